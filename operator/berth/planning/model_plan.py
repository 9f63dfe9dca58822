"""Model + World -> Plan: every decision about one Model starts here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from berth.api.base import duration_seconds
from berth.api.model import ModelSpec
from berth.api.model_status import Phase
from berth.planning.capacity.step import let_all_go, mark, tell
from berth.planning.changes import Changes, left_by_predecessor, plan_changes
from berth.planning.conditions import Facts, Verdict, assess
from berth.planning.download_reasons import DownloadReason
from berth.planning.drain_pod import drain_port
from berth.planning.errors import InvalidSpecError, first_error
from berth.planning.failures import Failure, diagnose, shown, unschedulable, worst
from berth.planning.forced_stop import hurries
from berth.planning.gpu_standing import GpuStanding, gpu_notes, gpu_standing
from berth.planning.intent import Intent, intend
from berth.planning.model_status import (
    build_status,
    first_status_can_wait,
    known_failure,
    only_progress_differs,
    only_words_differ,
    same,
)
from berth.planning.own_download import downloading
from berth.planning.policy import Policy
from berth.planning.provisioning import Provisioning, Way, provision
from berth.planning.reasons import BREAKER, Reason
from berth.planning.world import Apply, Child, ModelWorld, Note, Plan, Subject, parse_time

_POD_NEWS = 1.0
"""Seconds in which a Pod that was made this moment is told by the watch."""


@dataclass(frozen=True, slots=True)
class _Troubles:
    """What is wrong with the servers of the wanted template."""

    present: Failure | None
    """What keeps the Model from being where it should be."""
    latest: Failure | None
    """What happened last: also to a Pod whose place another one has taken."""
    hopeful: int
    look_again: float | None


def decide(world: ModelWorld, now: datetime, policy: Policy) -> Plan:
    """The Plan for one Model. Pure: the same arguments give the same Plan."""
    subject = world.subject
    if subject.deleting:
        return Plan()  # the garbage collector removes the children, with or without an operator
    world = _without_predecessor(world)
    try:
        spec = ModelSpec.model_validate(subject.spec)
        tripped = _tripped(subject, provision(world, spec))
        intent = intend(world, spec, given_up=tripped is not None, policy=policy, now=now)
    except ValidationError as error:
        return _report(world, None, _facts_of_invalid(world, *first_error(error)), Changes(()), None, now, policy)
    except InvalidSpecError as error:
        return _report(
            world, None, _facts_of_invalid(world, error.field, error.message), Changes(()), None, now, policy
        )
    observed = {child.kind: child for child in world.children if child.name == subject.name}
    if intent.waits_with_deployment:
        observed.pop("Deployment", None)
    changes = plan_changes(
        subject,
        intent.children,
        observed,
        {refusal.kind: refusal for refusal in world.refusals},
        world.stubborn,
        policy,
        now,
    )
    troubles = _troubles(world, intent, policy, now)
    gpus = None
    if intent.demand is not None:
        gpus = gpu_standing(intent.demand, intent.decision, intent.estimate, subject.status, subject.generation)
    facts = _facts(world, intent, changes, troubles, tripped, gpus)
    plan = _report(world, intent, facts, changes, troubles, now, policy, gpus)
    return _with_gpus(plan, world, intent, now)


def _with_gpus(plan: Plan, world: ModelWorld, intent: Intent, now: datetime) -> Plan:
    """The same Plan with what it asks of the capacity planner, and with what its Pods are told."""
    if intent.demand is None:
        return replace(plan, tells=let_all_go(world.pods))
    decision = intent.decision
    written = any(isinstance(change, Apply) and change.manifest["kind"] == "Deployment" for change in plan.changes)
    return replace(
        plan,
        demand=intent.demand,
        template_hash=intent.template_hash,
        marks=mark(decision, world.pods),
        tells=tell(decision, intent.template_hash, world.pods, now),
        notes=(*plan.notes, *(gpu_notes(decision, written=written) if decision is not None else ())),
        look_again=0.0 if written else plan.look_again,  # it asks for something else once that is written
    )


def _without_predecessor(world: ModelWorld) -> ModelWorld:
    """The World in which Pods of a deleted Model of the same name count as outdated, whatever template they have.

    They live on for the time of their drain, and their namesake is often made at once: `kubectl replace --force`.
    """
    subject, deployment = world.subject, world.child("Deployment")
    if deployment is None:
        born = subject.created_at
        strangers = [pod for pod in world.pods if born and pod.created_at and pod.created_at < born]
    else:
        strangers = list(world.pods) if left_by_predecessor(subject, deployment) else []
    if not strangers:
        return world
    return replace(world, pods=tuple(replace(p, template_hash="") if p in strangers else p for p in world.pods))


def _tripped(subject: Subject, provisioning: Provisioning) -> tuple[str, str] | None:
    """The failure that this very generation was given up for; it is remembered in the status, so in the cluster.

    A failed download of a ModelCache is remembered there, and may be over by now.
    """
    conditions = {condition["type"]: condition for condition in subject.status.get("conditions") or ()}
    stalled, weights = conditions.get("Stalled", {}), conditions.get("Provisioned", {})
    if stalled.get("status") != "True" or stalled.get("observedGeneration") != subject.generation:
        return None
    own = provisioning.way is Way.EPHEMERAL
    of_cache = not own and weights.get("status") == "False" and weights["reason"] == stalled["reason"]
    if of_cache or not _breaks(stalled["reason"], own=own):
        return None
    return stalled["reason"], stalled["message"]


def _breaks(reason: str, *, own: bool) -> bool:
    """Whether a generation is given up for it; `own` says that its Pods download their weights themselves."""
    return reason in BREAKER or (own and (reason == Reason.CACHE_REQUIRED or reason in set(DownloadReason)))


def _troubles(world: ModelWorld, intent: Intent, policy: Policy, now: datetime) -> _Troubles:
    startup = duration_seconds(intent.spec.health.startup_timeout)
    known = known_failure(world.subject.status)
    living: list[Failure] = []
    dead: list[Failure] = []
    places = hopeful = 0
    for pod in world.pods:
        if pod.template_hash != intent.template_hash or pod.deleting:
            continue
        failure = diagnose(pod, startup, policy, now, known)
        if failure is not None:
            (living if pod.living else dead).append(failure)
        places += pod.living
        hopeful += pod.living and pod.scheduled and not (failure is not None and failure.final)
    present, past = worst(living, known), worst(dead, known)
    if present is None and places < intent.wanted:
        present = past  # nobody has taken the place yet
    waits = [failure.look_again for failure in living if failure.look_again is not None]
    return _Troubles(present, present or past, hopeful, min(waits, default=None))


def _facts(
    world: ModelWorld,
    intent: Intent,
    changes: Changes,
    troubles: _Troubles,
    tripped: tuple[str, str] | None,
    gpus: GpuStanding | None,
) -> Facts:
    there = [pod for pod in world.pods if pod.living or pod.deleting]
    staying = [pod for pod in there if not pod.deleting]
    current = [pod for pod in staying if pod.template_hash == intent.template_hash]
    status = world.subject.status
    started = any(pod.server is not None and pod.server.running_since is not None for pod in current)
    awaited = intent.provisioning.waiting
    if intent.provisioning.way is Way.EPHEMERAL and not started and troubles.present is None:
        awaited = downloading(current, world.progress)
    return Facts(
        generation=world.subject.generation,
        wanted=intent.wanted,
        stop_reason=intent.stop_reason,
        current_ready=sum(pod.ready for pod in current),
        ready=sum(pod.ready for pod in staying) if intent.door.open else 0,
        current=len(current),
        outdated=sum(pod.template_hash != intent.template_hash for pod in there),
        leaving=len(there) - len(staying),
        started=started,
        scheduled=any(pod.scheduled for pod in current),
        unschedulable=unschedulable(current),
        failure=troubles.present,
        hopeful=troubles.hopeful,
        invalid=changes.invalid,
        refused=changes.refused or _replica_failure(world.child("Deployment")),
        tripped=tripped,
        was=_phase(status),
        was_generation=status.get("observedGeneration", -1),
        queued=gpus.waiting if gpus else None,
        admitted=gpus.admitted if gpus else None,
        unfit=gpus.unfit if gpus else None,
        weights_awaited=awaited,
        weights_failed=intent.provisioning.failed,
    )


def _facts_of_invalid(world: ModelWorld, field: str, message: str) -> Facts:
    """Facts for a spec that cannot be carried out: what runs goes on and is left as it is."""
    status = world.subject.status
    return Facts(
        generation=world.subject.generation,
        wanted=0,
        stop_reason=None,
        current_ready=0,
        ready=sum(pod.ready and not pod.deleting for pod in world.pods),
        current=0,
        outdated=0,
        leaving=0,
        started=False,
        scheduled=False,
        unschedulable="",
        failure=None,
        hopeful=0,
        invalid=(Reason.INVALID_SPEC, shown(f"{field}: {message}")),
        refused=None,
        tripped=None,
        was=_phase(status),
        was_generation=status.get("observedGeneration", -1),
    )


def _phase(status: Mapping[str, Any]) -> Phase:
    """The phase that is shown; one that this version of Berth does not know says nothing to it."""
    shown_phase = status.get("phase", Phase.PENDING)
    return Phase(shown_phase) if shown_phase in set(Phase) else Phase.PENDING


def _replica_failure(deployment: Child | None) -> tuple[str, str] | None:
    """What the Deployment controller was told when it made Pods: quota, Pod Security and the like."""
    if deployment is None:
        return None
    for condition in (deployment.manifest().get("status") or {}).get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = shown(condition.get("message", ""))
            return (Reason.QUOTA_EXCEEDED if "exceeded quota" in message else Reason.PODS_REFUSED), message
    return None


def _report(
    world: ModelWorld,
    intent: Intent | None,
    facts: Facts,
    changes: Changes,
    troubles: _Troubles | None,
    now: datetime,
    policy: Policy,
    gpus: GpuStanding | None = None,
) -> Plan:
    """The status to write, the Events to tell and when to look again."""
    subject = world.subject
    verdict = assess(facts)
    waits = [wait for wait in (changes.look_again, troubles.look_again if troubles else None) if wait is not None]
    status = build_status(
        subject,
        intent.spec if intent else None,
        verdict,
        facts,
        world.pods,
        troubles.latest if troubles else None,
        intent.upgrade_available if intent else bool(subject.status.get("upgradeAvailable")),
        now,
        intent.provisioning if intent else None,
        gpus,
    )
    if intent is not None and intent.door.wait is not None:
        waits.append(intent.door.wait)
    if intent is not None and intent.held and not facts.outdated:
        waits.append(_POD_NEWS)  # no Pod whose end would be told has been seen
    plan = Plan(changes=changes.writes)
    if intent is not None and intent.forced:
        port = drain_port(intent.spec.custom.port if intent.spec.custom else None)
        plan = replace(plan, hurries=hurries(world.pods, port))
    if not same(status, subject.status):
        wait = _status_wait(world, verdict, status, now, policy)
        if wait is not None:
            waits.append(wait)
        else:
            plan = replace(plan, status=status)
            if facts.was is not verdict.phase:
                transition = (facts.was, verdict.phase, verdict.reason)
                plan = replace(plan, transition=transition, notes=_notes(verdict))
            own = intent is not None and intent.provisioning.way is Way.EPHEMERAL
            if verdict.stalled and _breaks(verdict.reason, own=own):
                waits.append(0.0)  # the servers are stopped once the status says why
    return replace(plan, look_again=min(waits, default=None))


def _status_wait(
    world: ModelWorld, verdict: Verdict, status: Mapping[str, Any], now: datetime, policy: Policy
) -> float | None:
    """Seconds that a status write may wait; None when it is due."""
    subject, deployment = world.subject, world.child("Deployment")
    if first_status_can_wait(subject.status, verdict):
        # Counted from the Deployment: among a thousand new Models a Model may have waited long for its turn.
        made = parse_time(deployment.manifest()["metadata"].get("creationTimestamp")) if deployment else None
        age = (now - made).total_seconds() if made else 0.0
        if 0 <= age < policy.first_status_patience:
            return policy.first_status_patience - age
    if world.status_written_at is None:
        return None
    since = (now - world.status_written_at).total_seconds()
    if only_words_differ(subject.status, status):
        interval = policy.message_interval
    else:
        interval = policy.progress_interval if only_progress_differs(subject.status, status) else 0.0
    return interval - since if 0 <= since < interval else None


_TOLD = {
    Phase.READY: "Normal",
    Phase.STOPPED: "Normal",
    Phase.UPDATING: "Normal",
    Phase.DEGRADED: "Warning",
    Phase.FAILED: "Warning",
}


def _notes(verdict: Verdict) -> tuple[Note, ...]:
    """Events for the transitions that a person wants to hear of; the rest is in the status and on the Pods."""
    kind = _TOLD.get(verdict.phase)
    if kind is None:
        return ()
    reason = verdict.reason if verdict.phase in (Phase.FAILED, Phase.DEGRADED) else verdict.phase.value
    return (Note(kind, reason, verdict.message),)
