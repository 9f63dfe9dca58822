"""What follows from failures that one Pod cannot mend: counting them, waiting, going elsewhere.

A kubelet restarts containers with patience of its own. A Pod that is lost as a whole is replaced by its ReplicaSet at
once and for ever: here it gets patience and a budget, and nodes that are to blame are left. Only what the status
remembers already is acted on: the Pods are the evidence, and a crash in between must not lose both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from berth.planning.excluded_nodes import applied_exclusions, hosts_of, may_exclude
from berth.planning.failures import Failure
from berth.planning.last_words import missing_command
from berth.planning.plan import Hurry
from berth.planning.pods import Pod
from berth.planning.policy import Policy
from berth.planning.reasons import EXPLANATIONS, Reason
from berth.planning.recovery_memory import Excluded, Lost, Memory
from berth.planning.times import format_time
from berth.planning.world import ModelWorld, Subject

Diagnoses = Sequence[tuple[Pod, Failure]]

_LOST = frozenset({Reason.EVICTED, Reason.NODE_LOST, Reason.NODE_REJECTED, Reason.POD_FAILED})
"""Ends of a Pod that count. That it was deleted, drained, preempted or shut down in order is nobody's failure."""
_NODES_FAULT = frozenset(
    {Reason.EVICTED, Reason.NODE_LOST, Reason.NODE_REJECTED, Reason.GPU_FAULT, Reason.CONTAINER_START_FAILED}
)
"""What another node may do better. What a server does wrong by itself, it does wrong everywhere."""
_MOVE_GRACE = 5
"""Seconds for a Pod that is sent elsewhere: its server does not run."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What recovery asks for in one pass."""

    most: int | None = None
    """Replicas that the Deployment may have at most, while a place has to stay empty."""
    until: datetime | None = None
    """Until when."""
    excluded: tuple[str, ...] = ()
    """Hosts that the Pod template avoids."""
    moves: tuple[Hurry, ...] = ()
    """Pods to delete, so that the scheduler finds them another place."""


def count(memory: Memory, world: ModelWorld, diagnoses: Diagnoses, policy: Policy, now: datetime) -> Memory:
    """The memory with the failures that are not in it yet. `diagnoses` are of Pods of the wanted template."""
    known = {one.pod for one in memory.lost}
    fresh = [
        Lost(pod.name, pod.node, str(failure.reason), (failure.at or now).replace(microsecond=0))
        for pod, failure in diagnoses
        if pod.name not in known and _counts(pod, failure, policy, now)
    ]
    fresh = [one for one in fresh if memory.since is None or one.at > memory.since]
    if len(memory.lost) >= policy.crash_budget:  # those that have fallen out of it are no news
        fresh = [one for one in fresh if (one.at, one.pod) > (memory.lost[0].at, memory.lost[0].pod)]
    excluded = memory.excluded
    if _finds_no_place(world, policy, now):
        excluded = ()
    for one in sorted(fresh, key=lambda lost: (lost.at, lost.pod)):
        nodes = {other.node for other in excluded}
        if one.reason in _NODES_FAULT and one.node and may_exclude(world, {*nodes, one.node}, policy):
            until = now.replace(microsecond=0) + timedelta(seconds=policy.exclusion)
            excluded = (*(other for other in excluded if other.node != one.node), Excluded(one.node, one.reason, until))
    if not fresh:
        return memory if excluded == memory.excluded else replace(memory, excluded=excluded)
    lost = tuple(sorted((*memory.lost, *fresh), key=lambda lost: (lost.at, lost.pod)))[-policy.crash_budget :]
    return replace(memory, lost=lost, excluded=excluded, generation=world.subject.generation)


def _counts(pod: Pod, failure: Failure, policy: Policy, now: datetime) -> bool:
    if not pod.living or pod.deleting:
        return failure.reason in _LOST
    return _to_move(failure, policy, now)


def _to_move(failure: Failure, policy: Policy, now: datetime) -> bool:
    """Whether a Pod that lives should go elsewhere."""
    if failure.reason == Reason.CONTAINER_START_FAILED:
        lasts = (now - failure.at).total_seconds() if failure.at else 0.0
        return lasts >= policy.start_patience and not missing_command(failure.message)
    return failure.reason == Reason.GPU_FAULT


def patience(memory: Memory, world: ModelWorld, diagnoses: Diagnoses, policy: Policy, now: datetime) -> float | None:
    """Seconds until a node is blamed for a container that it cannot start, or avoided nodes are allowed again."""
    waits = [
        policy.elsewhere_patience - (now - pod.created_at).total_seconds()
        for pod in _without_place(world)
        if memory.excluded and pod.created_at
    ]
    waits += [
        policy.start_patience - (now - failure.at).total_seconds()
        for pod, failure in diagnoses
        if pod.living and failure.reason == Reason.CONTAINER_START_FAILED and failure.at
    ]
    return min((wait for wait in waits if wait > 0), default=None)


def _finds_no_place(world: ModelWorld, policy: Policy, now: datetime) -> bool:
    """Whether a Pod has been without a node for so long that the avoided ones had better be allowed again."""
    ages = [(now - pod.created_at).total_seconds() for pod in _without_place(world) if pod.created_at]
    return max(ages, default=0.0) >= policy.elsewhere_patience


def _without_place(world: ModelWorld) -> list[Pod]:
    """Pods that the scheduler finds no node for."""
    waiting = (pod for pod in world.pods if pod.living and not pod.deleting and not pod.scheduled)
    return [pod for pod in waiting if pod.unschedulable_message]


# ---- what is done ---------------------------------------------------------------------------------------------


def steps(memory: Memory, world: ModelWorld, template_hash: str, mark: str, policy: Policy, now: datetime) -> Steps:
    """What the memory asks for. `mark` is the hash of the template that the observed Deployment has."""
    here = [pod for pod in world.pods if pod.living and not pod.deleting]
    if any(pod.template_hash != template_hash for pod in here):
        # A rollout is on its way, and the Deployment has servers of two templates: it is left to itself.
        return Steps(excluded=applied_exclusions(world))
    failed = {one.pod for one in memory.lost}
    well = [pod for pod in here if pod.ready or (pod.scheduled and pod.name not in failed)]
    excluded = _exclusions(memory, world, well, anew=mark != template_hash)
    moves: tuple[Hurry, ...] = ()
    if well and excluded == applied_exclusions(world):
        moves = tuple(
            Hurry(pod.namespace, pod.name, pod.uid, _MOVE_GRACE, order="")
            for pod in here
            if pod.name in failed and not (pod.server and pod.server.started)
        )
    following = memory.next_attempt(world.subject.uid, policy)
    if following is None or now >= following:
        return Steps(excluded=excluded, moves=moves)
    before = memory.lost[-1].at
    staying = [pod for pod in well if pod.ready or (pod.created_at and pod.created_at < before)]
    return Steps(len(staying), following, excluded, moves)


def _exclusions(memory: Memory, world: ModelWorld, well: Sequence[Pod], *, anew: bool) -> tuple[str, ...]:
    """The hosts to avoid now. To change them is to replace every server, so that waits until none is worth keeping."""
    wanted = {one.node for one in memory.excluded}
    if not anew and any(pod.ready or pod.node not in wanted for pod in well):
        return applied_exclusions(world)
    return hosts_of(world, wanted)


# ---- what is shown --------------------------------------------------------------------------------------------


def told(memory: Memory, subject: Subject, diagnoses: Diagnoses, policy: Policy, now: datetime) -> Failure | None:
    """What a Model without a server that answers says of the Pods that it lost; None while Pods speak for themselves.

    The failure is final when the budget is spent.
    """
    if not memory.lost:
        return None
    loss = _last_loss(memory, subject.status, diagnoses)
    number = len(memory.lost)
    if number >= policy.crash_budget:
        many = f"{number} Pods failed one after the other" if number > 1 else "a Pod failed"
        remedy = EXPLANATIONS[Reason(loss.reason)].remedy.replace("`", "")
        return replace(loss, message=f"{many}, the last one: {loss.message}. {remedy}".rstrip(". "), final=True)
    following = memory.next_attempt(subject.uid, policy)
    if following is None or now >= following:
        return None
    attempt = f"Attempt {number + 1} of {policy.crash_budget} begins at {format_time(following)}"
    return replace(loss, message=f"{loss.message}. {attempt}", look_again=(following - now).total_seconds())


def _last_loss(memory: Memory, status: Mapping[str, Any], diagnoses: Diagnoses) -> Failure:
    """The last Pod that was lost, in the words of the Pods that are still there or of the status."""
    last = memory.lost[-1]
    shown = status.get("lastFailure") or {}
    words = [failure.message for pod, failure in diagnoses if pod.name == last.pod]
    words += [shown["message"]] if shown.get("reason") == last.reason else []
    reason = Reason(last.reason) if last.reason in set(Reason) else Reason.POD_FAILED
    return Failure(reason, words[0] if words else EXPLANATIONS[reason].meaning.rstrip("."), at=last.at)
