"""What a Model has: its replicas with and without a node, and those that are about to end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from berth.api.model import RolloutStrategy
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.world import Demand, GpuPod, Remembered


@dataclass(frozen=True, slots=True)
class Standing:
    """Derived from the Deployment and the living Pods alone, so a restart changes nothing."""

    demand: Demand
    pods: tuple[GpuPod, ...]
    """All that are not finished, those being deleted included."""
    bound: tuple[GpuPod, ...]
    """With a node, and neither being deleted nor about to be."""
    unbound: tuple[GpuPod, ...]
    """Without a node, and not being deleted."""
    unplaced: int
    """Replicas that have not been told yet where they may go, those without a Pod included."""
    missing: int
    """Replicas that the Deployment has been given and has made no Pod of yet."""
    leaving: frozenset[str]
    """uids of Pods that are being deleted, or that are one too many."""
    settled: bool
    """Whether there is nothing to decide: everything is as wanted."""
    remembered: Remembered
    """What is stored; of a Model that was never planned for, its age counts from its creation."""
    reserved: tuple[str, ...]
    """Nodes that are reserved for the next of its replicas that is told."""

    @property
    def waiting(self) -> int:
        """Replicas that may get a node at any moment."""
        return len(self.unbound) + self.missing

    @property
    def places(self) -> tuple[str, ...]:
        """Nodes that its replicas have, or may get."""
        return (*(pod.node for pod in self.bound), *(name for pod in self.unbound for name in pod.nodes))

    @property
    def surging(self) -> bool:
        """Whether a new replica runs, or is about to, beside those that it replaces."""
        rollout = self.demand.rollout
        return rollout is not None and rollout.started is RolloutStrategy.SURGE and self.demand.replicas > 0

    @property
    def let_through(self) -> bool:
        """Whether a replica waits for a node that does not exist yet."""
        return self.unplaced > 0 and self.remembered.beyond is not None

    def evictable(self) -> tuple[GpuPod, ...]:
        """Pods that end when the Deployment is made smaller: which ones is the choice of its ReplicaSet.

        Those that are not ready go first, whatever pod-deletion-cost says. While a new replica runs beside the old
        ones only a Model with a single replica can tell: all of it ends.
        """
        if self.demand.replicas <= 1:
            return self.bound
        if self.demand.rollout is not None or self.waiting:
            return ()
        return tuple(pod for pod in self.bound if not pod.ready) or self.bound

    def in_vain(self, policy: CapacityPolicy, over: Callable[[datetime, float], bool]) -> int:
        """Replicas that were admitted and have found no node in time; `over` says whether so much time has passed.

        Where Pods of its own are still ending, those without a node wait for them. One that asks for a new node waits
        for as long as that takes.
        """
        patience = policy.slot_timeout if self.leaving else policy.unschedulable_after
        told = [pod for pod in self.unbound if pod.nodes or not self.let_through]
        late = {pod.uid for pod in told if pod.unschedulable_since and over(pod.unschedulable_since, patience)}
        since = self.remembered.unbound_since
        if not self.unplaced or self.let_through or since is None or not over(since, patience):
            return len(late)
        return len(late | {pod.uid for pod in self.unbound if not pod.nodes}) + self.missing


def standing_of(demand: Demand, pods: Sequence[GpuPod]) -> Standing:
    """What the Model has."""
    staying = [pod for pod in pods if not pod.deleting]
    surge = demand.rollout is not None and demand.rollout.started is RolloutStrategy.SURGE and demand.replicas > 0
    if surge:
        current = sum(not pod.outdated for pod in staying)
        missing = max(0, min(demand.replicas + 1 - len(staying), demand.replicas - current))
        surplus = max(0, len(staying) - demand.replicas - 1)
    else:
        missing = max(0, demand.replicas - len(staying))
        surplus = max(0, len(staying) - demand.replicas)
    excess = {pod.uid for pod in sorted(staying, key=_first_to_end)[:surplus]}
    leaving = excess | {pod.uid for pod in pods if pod.deleting}
    bound = tuple(pod for pod in staying if pod.node and pod.uid not in excess)
    unbound = tuple(pod for pod in staying if not pod.node and pod.uid not in excess)
    settled = not (leaving or unbound or missing or demand.rollout) and (
        demand.wanted == demand.replicas == len(bound) or (demand.wanted == demand.replicas and not demand.need.count)
    )
    remembered = demand.remembered or Remembered(queued_at=demand.created_at)
    unplaced = missing + sum(not pod.nodes for pod in unbound)
    told = any(pod.nodes == remembered.nodes for pod in (*bound, *unbound))
    return Standing(
        demand,
        tuple(pods),
        bound,
        unbound,
        unplaced,
        missing,
        frozenset(leaving),
        settled,
        remembered,
        remembered.nodes if unplaced and not told else (),
    )


def _first_to_end(pod: GpuPod) -> tuple[bool, bool, bool, float, str]:
    """The order in which a ReplicaSet ends Pods."""
    return bool(pod.node), pod.ready, not pod.leaves_first, -pod.created_at.timestamp(), pod.uid
