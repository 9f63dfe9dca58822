"""The next step of a Model towards what the capacity planner has decided: its Deployment, and its Pods.

A decision that was made for something else than what the Model asks for now holds nothing but what is there: a stop
needs nobody's permission, everything else waits for the next decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from berth.api.model import RolloutStrategy
from berth.planning import names
from berth.planning.canonical import canonical_json
from berth.planning.capacity.asking import note_on_deployment, share_of, strategy_of
from berth.planning.capacity.decision import Decision
from berth.planning.capacity.projections import is_held
from berth.planning.capacity.world import Demand
from berth.planning.nodes import HOSTNAME_LABEL
from berth.planning.plan import PodPatch
from berth.planning.pods import Pod
from berth.planning.rollout import annotation
from berth.planning.times import format_time


@dataclass(frozen=True, slots=True)
class Step:
    """What the Deployment may become now."""

    replicas: int
    new_template: bool
    """Whether it may have the wanted Pod template; otherwise it keeps the one that it has."""
    strategy: RolloutStrategy
    note: str
    """What is stored on it, in JSON."""
    share: float | None
    """The part of a GPU's memory that servers made from the wanted template may use."""
    wait: bool = False
    """Whether nothing is decided, so that there is nothing to make a Deployment of."""


def heard(decision: Decision | None, demand: Demand) -> Decision | None:
    """The decision, if it is about what the Model asks for now."""
    return decision if decision is not None and decision.demand == demand else None


def next_step(
    demand: Demand, decision: Decision | None, deployment: Mapping[str, Any] | None, otherwise: RolloutStrategy
) -> Step:
    """The step; `deployment` is the observed one, `otherwise` the strategy of one that is made now."""
    strategy = strategy_of(deployment) if deployment is not None else otherwise
    share = share_of(deployment)
    stored = annotation(deployment, names.CAPACITY_ANNOTATION) or "{}"
    if decision is None:
        replicas = min(demand.replicas, demand.wanted)
        as_it_is = demand.rollout is None or demand.rollout.started is not None or not demand.wanted
        return Step(replicas, as_it_is, strategy, stored, share, wait=deployment is None)
    capacity, rollout = decision.capacity, decision.capacity.rollout
    begins = rollout is not None and rollout.begin
    anew = not demand.replicas or (demand.rollout is not None and demand.rollout.started is None)
    if capacity.share is not None and anew:
        share = capacity.share
    return Step(
        replicas=min(capacity.admitted, demand.wanted),
        new_template=demand.rollout is None or begins or not demand.wanted,
        strategy=rollout.strategy if rollout is not None and begins else strategy,
        note=canonical_json(note_on_deployment(capacity.remembered, share)),
        share=share,
    )


# ---- Pods -------------------------------------------------------------------------------------------------------


def tell(decision: Decision | None, template_hash: str, pods: Sequence[Pod], now: datetime) -> tuple[PodPatch, ...]:
    """Lets one Pod go to the nodes that are decided, once these are stored; one with each decision."""
    if decision is None or decision.told:
        return ()
    capacity, memory = decision.capacity, decision.demand.remembered
    beyond = capacity.new_nodes_only
    if memory is None or not (decision.hostnames or beyond):
        return ()
    if memory.nodes != capacity.nodes or (memory.beyond is not None) != beyond:
        return ()
    held = [pod for pod in pods if is_held(pod) and pod.template_hash == template_hash]
    if not held:
        return ()
    pod = min(held, key=lambda one: (one.created_at or now, one.name))
    if beyond:
        requirement = {"key": HOSTNAME_LABEL, "operator": "NotIn", "values": sorted(decision.existing)}
        requirements = [requirement] if decision.existing else []
    else:
        requirements = [{"key": HOSTNAME_LABEL, "operator": "In", "values": sorted(decision.hostnames)}]
    need = decision.demand.need
    note = {
        "nodes": list(capacity.nodes),
        "at": format_time(now),
        **({"beyond": True} if beyond else {}),
        **({"memoryMiB": need.memory_mib} if need.memory_mib is not None else {}),
        **({"shared": True} if need.shared else {}),
    }
    return (_let_go(pod, requirements, canonical_json(note)),)


def let_all_go(pods: Sequence[Pod]) -> tuple[PodPatch, ...]:
    """Lets every Pod go wherever the scheduler likes: nobody plans capacity here any more."""
    return tuple(_let_go(pod, [], "") for pod in pods if is_held(pod))


def mark(decision: Decision | None, pods: Sequence[Pod]) -> tuple[PodPatch, ...]:
    """Marks the Pods that make way, so that none of the others ends in their place."""
    going = decision.leaves_first if decision is not None else frozenset[str]()
    body = {"metadata": {"annotations": {names.DELETION_COST_ANNOTATION: names.LEAVES_FIRST}}}
    return tuple(
        PodPatch(pod.namespace, pod.name, pod.uid, pod.resource_version, body)
        for pod in pods
        if pod.uid in going and not pod.leaves_first and not pod.deleting
    )


def _let_go(pod: Pod, requirements: Sequence[Mapping[str, Any]], note: str) -> PodPatch:
    """Takes the gate away and narrows the nodes: of a Pod with gates, an affinity may be narrowed and nothing else."""
    gates = [{"name": name} for name in pod.gates if name != names.CAPACITY_GATE]
    spec: dict[str, Any] = {"schedulingGates": gates or None}
    if requirements:
        spec["affinity"] = narrowed(orjson.loads(pod.held_affinity or b"{}"), requirements)
    metadata = {"metadata": {"annotations": {names.CAPACITY_ANNOTATION: note}}} if note else {}
    return PodPatch(pod.namespace, pod.name, pod.uid, pod.resource_version, {**metadata, "spec": spec})


def narrowed(affinity: Mapping[str, Any], requirements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An affinity that asks for these as well: each of its terms does, since any one of them is enough."""
    node = affinity.get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms = required.get("nodeSelectorTerms")
    more = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or ()), *map(dict, requirements)]}
        if term or terms is None
        else term  # an empty term holds nowhere, and stays so
        for term in terms or [{}]
    ]
    narrower = {**node, "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": more}}
    return {**affinity, "nodeAffinity": narrower}
