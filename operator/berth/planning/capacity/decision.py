"""What the capacity worker has decided about one Model, as that Model's own plan reads it."""

from dataclasses import dataclass, replace

from berth.planning.capacity.plan import ModelCapacity
from berth.planning.capacity.world import Demand


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, and what it was made for. It says nothing about a Model that asks for something else by now."""

    demand: Demand
    capacity: ModelCapacity
    hostnames: tuple[str, ...] = ()
    """The label kubernetes.io/hostname of `capacity.nodes`, for the affinity of the Pod that is told."""
    existing: tuple[str, ...] = ()
    """That label of all nodes with GPUs, where a Pod asks for one that does not exist yet."""
    leaves_first: frozenset[str] = frozenset()
    """uids of its Pods that have to end before others."""
    preempted: str = ""
    """Whom it makes way for, as a sentence; empty when for nobody."""
    measured_mib: int | None = None
    """Memory that its Pod which uses most has in use on one GPU; None when nobody has measured it."""
    told: bool = False
    """Whether a Pod has been told its nodes by this decision: one of each decision is."""


def as_carried_out(decision: Decision) -> Demand:
    """What the Model asks for once the decision is carried out: what is under way counts as done.

    A plan that was made before all writes of the last one are known would otherwise decide the same thing twice.
    """
    demand, capacity = decision.demand, decision.capacity
    rollout = demand.rollout
    if rollout is not None and capacity.rollout is not None and capacity.rollout.begin:
        rollout = replace(rollout, started=capacity.rollout.strategy)
    return replace(demand, replicas=capacity.admitted, remembered=capacity.remembered, rollout=rollout)


def has_to_be_carried_out(decision: Decision) -> bool:
    """Whether something has to be written for it."""
    demand = decision.demand
    return as_carried_out(decision) != demand and (demand.wanted > 0 or demand.replicas > 0)
