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
from berth.planning.changes import Changes, plan_changes
from berth.planning.conditions import Facts, assess
from berth.planning.counted_pods import without_predecessor, without_stranded
from berth.planning.download_reasons import DownloadReason
from berth.planning.drain_pod import drain_port
from berth.planning.errors import InvalidSpecError, first_error
from berth.planning.failures import Circumstances, Failure, diagnose, shown, unschedulable, worst
from berth.planning.forced_stop import hurries
from berth.planning.gpu_standing import GpuStanding, gpu_notes, gpu_standing
from berth.planning.idling import idling
from berth.planning.intent import Intent, intend
from berth.planning.model_status import (
    build_status,
    known_failure,
    same,
    shown_load,
)
from berth.planning.own_download import downloading
from berth.planning.plan import Apply, Plan
from berth.planning.policy import Policy
from berth.planning.provisioning import Provisioning, Way, provision
from berth.planning.reasons import BREAKER, Reason
from berth.planning.recovery import Diagnoses, count, patience, told
from berth.planning.recovery_memory import Memory, recall
from berth.planning.status_writes import notes, status_wait
from berth.planning.timeline import finished_start, seconds_in_phase
from berth.planning.uninstalling import take_down
from berth.planning.world import Child, ModelWorld, Subject

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
    memory: Memory
    """What is to be remembered of them."""


def decide(world: ModelWorld, now: datetime, policy: Policy) -> Plan:
    """The Plan for one Model. Pure: the same arguments give the same Plan."""
    subject = world.subject
    if subject.deleting:
        return Plan()  # the garbage collector removes the children, with or without an operator
    everything = without_predecessor(world)
    world = without_stranded(everything)
    try:
        spec = ModelSpec.model_validate(subject.spec)
        provisioning = provision(world, spec)
        tripped = _tripped(subject, provisioning)
        gone = not any(pod.living or pod.deleting for pod in world.pods)
        recalled = recall(subject, now, policy, startable=tripped is None or gone)
        tripped = None if recalled.started else tripped
        given_up = tripped is not None
        intent = intend(world, spec, provisioning, recalled.memory, given_up=given_up, policy=policy, now=now)
    except ValidationError as error:
        return _refuse(world, *first_error(error), now, policy)
    except InvalidSpecError as error:
        return _refuse(world, error.field, error.message, now, policy)
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
    troubles = _troubles(everything, intent, recalled.memory, policy, now, counting=tripped is None)
    gpus = None
    if intent.need is not None:
        gpus = gpu_standing(
            intent.need, intent.demand, intent.decision, intent.estimate, subject.status, subject.generation
        )
    facts = _facts(world, intent, changes, troubles, tripped, gpus)
    plan = _report(world, intent, facts, changes, troubles, now, policy, gpus)
    waits = [wait for wait in (plan.look_again, recalled.look_again) if wait is not None]
    if plan.status is not None and troubles.memory != recalled.memory:
        waits.append(0.0)  # what follows from a failure is done once it is remembered
    plan = replace(plan, look_again=min(waits, default=None))
    if policy.render.gated:
        return _with_gpus(plan, world, intent, now)
    return replace(plan, tells=let_all_go(world.pods))


def _with_gpus(plan: Plan, world: ModelWorld, intent: Intent, now: datetime) -> Plan:
    """The same Plan with what it asks of the capacity planner, and with what its Pods are told."""
    if intent.demand is None:
        return plan
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


def _refuse(world: ModelWorld, field: str, message: str, now: datetime, policy: Policy) -> Plan:
    """The Plan for a spec that cannot be carried out: what runs goes on, as long as Berth is here."""
    changes = Changes(take_down(world))
    return _report(world, None, _facts_of_invalid(world, field, message), changes, None, now, policy)


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


def _troubles(
    world: ModelWorld, intent: Intent, memory: Memory, policy: Policy, now: datetime, *, counting: bool
) -> _Troubles:
    """`counting` is whether failures matter: those of servers that are stopped do not."""
    known = known_failure(world.subject.status)
    diagnoses = _diagnoses(world, intent, memory, policy, now)
    current = [pod for pod in world.pods if pod.template_hash == intent.template_hash and not pod.deleting]
    living = [failure for pod, failure in diagnoses if pod.living and not pod.deleting]
    dead = [failure for pod, failure in diagnoses if not pod.living or pod.deleting]
    beyond_hope = {pod.uid for pod, failure in diagnoses if failure.final}
    hopeful = sum(pod.living and pod.scheduled and pod.uid not in beyond_hope for pod in current)
    present, past = worst(living, known), worst(dead, known)
    if present is None and sum(pod.living for pod in current) < intent.wanted:
        present = past  # nobody has taken the place yet
    latest = present or past
    if counting and intent.wanted:
        memory = count(memory, world, diagnoses, policy, now)
        ready = any(pod.ready and not pod.deleting for pod in world.pods)
        verdict = None if ready else told(memory, world.subject, diagnoses, policy, now)
        present = verdict or present
        hopeful = 0 if verdict is not None and verdict.final else hopeful
    waits = [failure.look_again for failure in (*living, present) if failure and failure.look_again is not None]
    waits += [
        wait for wait in (patience(memory, world, diagnoses, policy, now), _left(intent, now)) if wait is not None
    ]
    return _Troubles(present, latest, hopeful, min(waits, default=None), memory)


def _left(intent: Intent, now: datetime) -> float | None:
    """Seconds until a place that stays empty is filled again."""
    until = intent.recovery.until
    return (until - now).total_seconds() if until is not None else None


def _diagnoses(world: ModelWorld, intent: Intent, memory: Memory, policy: Policy, now: datetime) -> Diagnoses:
    """What is wrong with each Pod of the wanted template."""
    spec = intent.spec
    startup = duration_seconds(spec.health.startup_timeout)
    known = known_failure(world.subject.status)
    limited = bool(spec.limits and spec.limits.memory) or spec.pod_template is not None
    lost_nodes = world.lost_nodes
    found = []
    for pod in world.pods:
        if pod.template_hash == intent.template_hash:
            earlier = sum(one.pod != pod.name for one in memory.lost)
            around = Circumstances(lost_nodes, earlier, limited, world.sick_gpus)
            failure = diagnose(pod, startup, policy, now, known, around)
            if failure is not None:
                found.append((pod, failure))
    return found


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
        troubles.memory.shown(subject.uid, policy) if troubles else subject.status.get("recovery"),
    )
    if intent is not None:
        waits += _note_use(status, world, intent, now)
    if intent is not None and intent.door.wait is not None:
        waits.append(intent.door.wait)
    if intent is not None and intent.held and not facts.outdated:
        waits.append(_POD_NEWS)  # no Pod whose end would be told has been seen
    plan = Plan(changes=changes.writes)
    if intent is not None and intent.forced:
        port = drain_port(intent.spec.custom.port if intent.spec.custom else None)
        plan = replace(plan, hurries=hurries(world.pods, port))
    elif intent is not None:
        plan = replace(plan, hurries=intent.recovery.moves)
    if not same(status, subject.status):
        wait = status_wait(world, verdict, status, now, policy)
        if wait is not None:
            waits.append(wait)
        else:
            plan = replace(plan, status=status, start=finished_start(subject.status, status))
            if facts.was is not verdict.phase:
                transition = (facts.was, verdict.phase, verdict.reason)
                seconds = seconds_in_phase(subject, now)
                plan = replace(plan, transition=transition, phase_seconds=seconds, notes=notes(verdict))
            own = intent is not None and intent.provisioning.way is Way.EPHEMERAL
            if verdict.stalled and _breaks(verdict.reason, own=own):
                waits.append(0.0)  # the servers are stopped once the status says why
    return replace(plan, look_again=min(waits, default=None))


def _note_use(status: dict[str, Any], world: ModelWorld, intent: Intent, now: datetime) -> list[float]:
    """Write down the load and the start, or that the Model is unloaded because nobody uses it. Times to look again.

    It is unloaded once the status says so, and so with the next look.
    """
    idle = idling(intent.spec, intent.start, world.load, now, routed=world.routed)
    start = (intent.start.unloaded(now) if idle.unload else intent.start).to_status()
    used = {"load": shown_load(world, intent.spec), "start": start}
    status |= {field: value for field, value in used.items() if value}
    if idle.unload:
        return [0.0]
    return [] if idle.look_again is None else [idle.look_again]
