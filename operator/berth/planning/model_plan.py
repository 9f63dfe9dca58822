"""Model + World -> Plan: every decision about one Model starts here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from berth.api.base import duration_seconds
from berth.api.model import DesiredState, ModelSpec
from berth.api.model_status import Phase
from berth.planning.changes import Changes, plan_changes
from berth.planning.children import (
    ModelIdentity,
    render_deployment,
    render_disruption_budget,
    render_network_policy,
    render_service,
    template_hash,
)
from berth.planning.conditions import Facts, Verdict, assess
from berth.planning.errors import InvalidSpecError
from berth.planning.failures import Failure, diagnose, unschedulable, worst
from berth.planning.model_status import build_status, first_status_can_wait, only_words_differ
from berth.planning.pod_template import render_pod_template, template_inputs
from berth.planning.policy import Policy
from berth.planning.rollout import Template, allowed_replicas, choose_strategy, choose_template
from berth.planning.world import Child, Manifest, ModelWorld, Note, Plan, Pod, Subject

WAKE_ANNOTATION = "berth.dev/wake"
"""Any value wakes an OnDemand Model."""
BREAKER_REASONS = frozenset({"ImagePullFailed", "CrashLoop", "OutOfMemory", "StartupTimeout", "SecretNotFound",
                             "ConfigurationError", "ContainerStartFailed"})  # fmt: skip
"""Failures that a generation is given up for; a change of the spec starts anew."""


@dataclass(frozen=True, slots=True)
class _Intent:
    """What one pass wants: the children and the numbers behind them."""

    spec: ModelSpec
    wanted: int
    stop_reason: str
    template: Template
    template_hash: str
    children: tuple[Manifest, ...]


def decide(world: ModelWorld, now: datetime, policy: Policy) -> Plan:
    """The Plan for one Model. Pure: the same arguments give the same Plan."""
    subject = world.subject
    if subject.deleting:
        return Plan()  # the garbage collector removes the children, with or without an operator
    try:
        spec = ModelSpec.model_validate(subject.spec)
        tripped = _tripped(subject)
        intent = _intend(world, spec, tripped, policy, now)
    except ValidationError as error:
        return _report(world, None, _facts_of_invalid(world, *_first_error(error)), Changes(()), None, now, policy)
    except InvalidSpecError as error:
        return _report(world, None, _facts_of_invalid(world, error.field, error.message), Changes(()), None, now, policy)
    changes = plan_changes(
        subject,
        intent.children,
        {child.kind: child for child in world.children if child.name == subject.name},
        {refusal.kind: refusal for refusal in world.refusals},
        world.stubborn,
        policy,
        now,
    )
    failure = _worst_failure(world.pods, intent, policy, now)
    facts = _facts(world, intent, changes, failure, tripped)
    return _report(world, intent, facts, changes, failure, now, policy)


def _intend(
    world: ModelWorld, spec: ModelSpec, tripped: tuple[str, str] | None, policy: Policy, now: datetime
) -> _Intent:
    subject = world.subject
    wanted, stop_reason = _wanted(spec, subject.annotations)
    deployment = world.child("Deployment")
    annotations = deployment.manifest().get("metadata", {}).get("annotations") or {} if deployment else {}
    fresh = render_pod_template(subject.name, subject.namespace, spec, policy.render)
    template = choose_template(fresh, template_inputs(spec), annotations, spec.rollout.on_upgrade)
    digest = template_hash(template.body)
    strategy, _ = choose_strategy(spec)
    replicas = allowed_replicas(wanted, strategy, digest, world.pods)
    given_up = tripped is not None or _final_failure(world.pods, digest, spec, policy, now)
    if given_up and not any(pod.ready and not pod.deleting for pod in world.pods):
        replicas = 0
    identity = ModelIdentity(subject.namespace, subject.name, subject.uid)
    budget = render_disruption_budget(identity, spec) if wanted > 1 else None
    children = [
        render_service(identity, spec),
        render_network_policy(identity, spec, policy.render),
        *([budget] if budget else []),
        render_deployment(identity, spec, template.body, replicas=replicas, strategy=strategy),
    ]
    return _Intent(spec, wanted, stop_reason, template, digest, tuple(children))


def _wanted(spec: ModelSpec, annotations: Mapping[str, str]) -> tuple[int, str]:
    """Replicas that should serve, and the reason for none."""
    if spec.state is DesiredState.STOPPED:
        return 0, "StoppedByUser"
    if spec.state is DesiredState.ON_DEMAND and WAKE_ANNOTATION not in annotations:
        return 0, "Idle"
    if spec.replicas == 0:
        return 0, "ScaledToZero"
    return spec.replicas, ""


def _tripped(subject: Subject) -> tuple[str, str] | None:
    """The failure that this very generation was given up for; it is remembered in the status, so in the cluster."""
    for condition in subject.status.get("conditions") or ():
        if condition["type"] == "Stalled" and condition["status"] == "True" and condition["reason"] in BREAKER_REASONS:
            if condition.get("observedGeneration") == subject.generation:
                return condition["reason"], condition["message"]
    return None


def _final_failure(pods: Sequence[Pod], digest: str, spec: ModelSpec, policy: Policy, now: datetime) -> bool:
    startup = duration_seconds(spec.health.startup_timeout)
    failures = (diagnose(pod, startup, policy, now) for pod in pods if pod.template_hash == digest and not pod.deleting)
    return any(failure is not None and failure.final for failure in failures)


def _worst_failure(pods: Sequence[Pod], intent: _Intent, policy: Policy, now: datetime) -> Failure | None:
    startup = duration_seconds(intent.spec.health.startup_timeout)
    current = [pod for pod in pods if pod.template_hash == intent.template_hash and not pod.deleting]
    return worst(f for f in (diagnose(pod, startup, policy, now) for pod in current) if f is not None)


def _facts(
    world: ModelWorld, intent: _Intent, changes: Changes, failure: Failure | None, tripped: tuple[str, str] | None
) -> Facts:
    living = [pod for pod in world.pods if pod.living]
    staying = [pod for pod in living if not pod.deleting]
    current = [pod for pod in staying if pod.template_hash == intent.template_hash]
    status = world.subject.status
    return Facts(
        generation=world.subject.generation,
        wanted=intent.wanted,
        stop_reason=intent.stop_reason,
        current_ready=sum(pod.ready for pod in current),
        ready=sum(pod.ready for pod in staying),
        current=len(current),
        outdated=sum(pod.template_hash != intent.template_hash for pod in living),
        leaving=len(living) - len(staying),
        started=any(pod.server is not None and pod.server.running_since is not None for pod in current),
        scheduled=any(pod.scheduled for pod in current),
        unschedulable=unschedulable(current),
        failure=failure,
        invalid=changes.invalid,
        refused=changes.refused or _replica_failure(world.child("Deployment")),
        tripped=tripped,
        was=Phase(status.get("phase", Phase.PENDING)),
        was_generation=status.get("observedGeneration", -1),
    )


def _facts_of_invalid(world: ModelWorld, field: str, message: str) -> Facts:
    """Facts for a spec that cannot be carried out: what runs goes on and is left as it is."""
    status = world.subject.status
    return Facts(
        generation=world.subject.generation,
        wanted=0,
        stop_reason="",
        current_ready=0,
        ready=sum(pod.ready and not pod.deleting for pod in world.pods),
        current=0,
        outdated=0,
        leaving=0,
        started=False,
        scheduled=False,
        unschedulable="",
        failure=None,
        invalid=("InvalidSpec", f"{field}: {message}"),
        refused=None,
        tripped=None,
        was=Phase(status.get("phase", Phase.PENDING)),
        was_generation=status.get("observedGeneration", -1),
    )


def _first_error(error: ValidationError) -> tuple[str, str]:
    first = error.errors(include_url=False)[0]
    return "spec." + ".".join(str(part) for part in first["loc"]), first["msg"]


def _replica_failure(deployment: Child | None) -> tuple[str, str] | None:
    """What the Deployment controller was told when it made Pods: quota, Pod Security and the like."""
    if deployment is None:
        return None
    for condition in (deployment.manifest().get("status") or {}).get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = condition.get("message", "")
            return ("QuotaExceeded" if "exceeded quota" in message else "PodsRefused"), message
    return None


def _report(
    world: ModelWorld,
    intent: _Intent | None,
    facts: Facts,
    changes: Changes,
    failure: Failure | None,
    now: datetime,
    policy: Policy,
) -> Plan:
    """The status to write, the Events to tell and when to look again."""
    subject = world.subject
    verdict = assess(facts)
    waits = [wait for wait in (changes.look_again, failure.look_again if failure else None) if wait is not None]
    status: dict[str, Any] | None = build_status(
        subject,
        intent.spec if intent else None,
        verdict,
        facts,
        world.pods,
        intent.template.upgrade_available if intent else bool(subject.status.get("upgradeAvailable")),
        now,
    )
    if status == subject.status:
        status = None
    elif status is not None:
        wait = _status_wait(world, verdict, status, now, policy)
        if wait is not None:
            status = None
            waits.append(wait)
    plan = Plan(changes=changes.writes, status=status, look_again=min(waits, default=None))
    was = facts.was
    if status is not None and was is not verdict.phase:
        plan = replace(plan, transition=(was, verdict.phase, verdict.reason), notes=_notes(verdict))
    return plan


def _status_wait(
    world: ModelWorld, verdict: Verdict, status: Mapping[str, Any], now: datetime, policy: Policy
) -> float | None:
    """Seconds that a status write may wait; None when it is due."""
    subject = world.subject
    if first_status_can_wait(subject.status, verdict):
        age = (now - subject.created_at).total_seconds() if subject.created_at else 0.0
        if age < policy.first_status_patience:
            return policy.first_status_patience - age
    if world.status_written_at is not None and only_words_differ(subject.status, status):
        since = (now - world.status_written_at).total_seconds()
        if 0 <= since < policy.message_interval:
            return policy.message_interval - since
    return None


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


