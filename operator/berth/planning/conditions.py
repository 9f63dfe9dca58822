"""The conditions of a Model and the phase that follows from them.

`assess` is an ordered chain: the first answer that applies wins, so that what is shown is read in one place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from berth.api.model_status import Phase
from berth.planning.failures import Failure
from berth.planning.reasons import Reason


@dataclass(frozen=True, slots=True)
class Facts:
    """What the conditions of one Model are decided from."""

    generation: int
    wanted: int
    """Replicas that should serve; 0 when the Model is stopped."""
    stop_reason: Reason | None
    """Why it is stopped: StoppedByUser, Idle, ScaledToZero or OperatorUninstalling; None when it should run."""
    current_ready: int
    """Ready Pods of the wanted template."""
    ready: int
    """Ready Pods of any template that are not being deleted; none while the Service sends them nothing."""
    current: int
    """Living Pods of the wanted template that are not being deleted."""
    outdated: int
    """Pods of an older template, those being deleted included until they are gone."""
    leaving: int
    """Pods that are being deleted."""
    started: bool
    """Whether a server process of the wanted template runs."""
    scheduled: bool
    """Whether a Pod of the wanted template has a node."""
    unschedulable: str
    """The scheduler's own words."""
    failure: Failure | None
    hopeful: int
    """Pods of the wanted template that have a node and no final failure: they may still answer."""
    invalid: tuple[str, str] | None
    """Reason and message of a spec that cannot be carried out."""
    refused: tuple[str, str] | None
    """Reason and message of the Deployment controller or API server refusing Pods for now."""
    tripped: tuple[str, str] | None
    """Reason and message of the failure that this generation has already been given up for."""
    was: Phase
    was_generation: int
    weights_awaited: tuple[str, str] | None = None
    """Reason and message while the weights are on their way."""
    weights_failed: tuple[str, str] | None = None
    """Reason and message when they cannot come until a person does something."""
    queued: tuple[str, str] | None = None
    """Reason and message while not all replicas are admitted to GPUs; None when they are, or need no permission."""
    admitted: int | None = None
    """Replicas that may ask for GPUs; None when they need no permission."""
    unfit: tuple[str, str] | None = None
    """Reason and message when no replica can be admitted until a person does something."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The conditions, before they are stamped with times."""

    phase: Phase
    ready: bool
    reason: str
    message: str
    reconciling: bool
    stalled: bool
    available: bool
    accepted: bool = True


def _working(phase: Phase, reason: str, message: str, *, available: bool) -> Verdict:
    return Verdict(phase, False, reason, message, reconciling=True, stalled=False, available=available)


def assess(facts: Facts) -> Verdict:
    """The conditions for these facts. Pure; phase and conditions always agree (DESIGN: Model.status)."""
    for judge in _JUDGES:
        verdict = judge(facts)
        if verdict is not None:
            available = facts.ready > 0 and verdict.phase is not Phase.DRAINING  # draining: nothing new is welcome
            return replace(verdict, available=available)
    raise AssertionError("_starting answers always")


def _invalid(facts: Facts) -> Verdict | None:
    if facts.invalid is None:
        return None
    reason, message = facts.invalid
    if facts.ready:
        message += ". The servers of the last valid generation go on"
    return Verdict(Phase.FAILED, False, reason, message, False, True, False, accepted=reason != Reason.INVALID_SPEC)


def _stopped(facts: Facts) -> Verdict | None:
    if facts.stop_reason is None:
        return None
    remaining = facts.current + facts.outdated + facts.leaving
    if remaining:
        return _working(Phase.DRAINING, facts.stop_reason, "servers finish their requests and stop", available=False)
    messages = {
        Reason.STOPPED_BY_USER: "stopped by spec.state; set it to Running to start",
        Reason.SCALED_TO_ZERO: "spec.replicas is 0; raise it to start",
        Reason.IDLE: "nobody uses it; give the annotation berth.dev/start a new value to start it",
        Reason.OPERATOR_UNINSTALLING: "stopped because Berth is uninstalled; "
        "starts again by itself when Berth is installed again",
    }
    return Verdict(Phase.STOPPED, True, facts.stop_reason, messages[facts.stop_reason], False, False, False)


_AGAIN = "Once that is mended, change the spec or give the annotation berth.dev/start a new value"


def _given_up(facts: Facts) -> Verdict | None:
    """Given up for this generation, for ever; or just now, because nobody answers and nobody is going to."""
    if facts.tripped is not None:
        reason, message = facts.tripped
    elif facts.weights_awaited or facts.weights_failed:
        return None  # what is wrong with servers that have other weights is over
    elif facts.failure is not None and facts.failure.final and not facts.ready and not facts.hopeful:
        reason, message = facts.failure.reason, facts.failure.message
        if reason != Reason.CACHE_REQUIRED:  # which starts by itself
            message = f"{message.rstrip('. ')}. {_AGAIN}"
    else:
        return None
    return Verdict(Phase.FAILED, False, reason, message, False, True, False)


def _without_weights(facts: Facts) -> Verdict | None:
    """No server can start; those of the last generation go on."""
    if facts.weights_failed is not None:
        reason, message = facts.weights_failed
        if facts.ready:
            message += ". The servers of the last generation go on"
        return Verdict(Phase.FAILED, False, reason, message, False, True, False)
    if facts.weights_awaited is None:
        return None
    reason, message = facts.weights_awaited
    phase = Phase.UPDATING if facts.ready else Phase.PROVISIONING
    return _working(phase, reason, message, available=facts.ready > 0)


def _queued(facts: Facts) -> Verdict | None:
    """No server has a place, and it waits for one."""
    if facts.unfit is not None and not facts.scheduled and not facts.outdated:
        return Verdict(Phase.FAILED, False, *facts.unfit, False, True, False)
    if facts.queued is None or facts.scheduled or facts.outdated or facts.ready:
        return None
    phase = Phase.DRAINING if facts.leaving else Phase.QUEUED
    return _working(phase, *facts.queued, available=False)


def _serving(facts: Facts) -> Verdict | None:
    if facts.current_ready < facts.wanted or facts.outdated:
        return None
    message = "answers" if facts.wanted == 1 else f"all {facts.wanted} replicas answer"
    return Verdict(Phase.READY, True, Reason.SERVING, message, False, False, True)


def _progress(facts: Facts) -> tuple[str, str]:
    """Reason and sentence for a Model that is not where it should be."""
    if facts.failure is not None:
        return facts.failure.reason, facts.failure.message
    if facts.refused is not None:
        return facts.refused
    if facts.queued is not None and (facts.ready or not facts.scheduled):
        return facts.queued
    if facts.unschedulable:
        return Reason.UNSCHEDULABLE, facts.unschedulable
    if facts.started:
        return Reason.LOADING_WEIGHTS, "the server process runs and loads the weights"
    if facts.scheduled:
        return Reason.CONTAINER_CREATING, "the node pulls the image and mounts the volumes"
    return Reason.CREATING, "the Pods are being created"


def _replacing(facts: Facts) -> Verdict | None:
    if not facts.outdated:
        return None
    if facts.ready:
        reason, message = _progress(facts)
        if facts.failure is not None and facts.failure.final and not facts.hopeful and not facts.current_ready:
            # Not remembered as a failure that the generation is given up for: the servers that answer would end.
            stuck = f"the new servers cannot start: {message}. The old ones go on"
            return Verdict(Phase.FAILED, False, Reason.ROLLOUT_FAILED, stuck, False, True, True)
        done = f"{facts.current_ready} of {facts.wanted} replicas are new, {facts.outdated} old"
        if reason in (Reason.CREATING, Reason.CONTAINER_CREATING, Reason.LOADING_WEIGHTS):
            return _working(Phase.UPDATING, Reason.ROLLING_OUT, done, available=True)
        return _working(Phase.UPDATING, reason, f"{done}. {_sentence(message)}", available=True)
    if not facts.current:
        message = "the old server finishes its requests, then the new one starts"
        return _working(Phase.DRAINING, Reason.REPLACING, message, available=False)
    return None


def _recovering(facts: Facts) -> Verdict | None:
    seen_ready = facts.was in (Phase.READY, Phase.DEGRADED) and facts.was_generation == facts.generation
    reason, message = _progress(facts)
    if seen_ready:
        done = f"{facts.current_ready} of {facts.wanted} replicas answer"
        return _working(Phase.DEGRADED, reason, f"{done}. {_sentence(message)}", available=True)
    if facts.ready:
        done = f"{facts.current_ready} of {facts.wanted} replicas answer"
        reason = Reason.SCALING if facts.failure is None and facts.queued is None else reason
        return _working(Phase.UPDATING, reason, f"{done}. {_sentence(message)}", available=True)
    return None


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:]


def _starting(facts: Facts) -> Verdict | None:
    reason, message = _progress(facts)
    phase = Phase.LOADING if facts.scheduled or facts.admitted else Phase.PENDING
    return _working(phase, reason, message, available=False)


_JUDGES = (_invalid, _stopped, _given_up, _without_weights, _queued, _serving, _replacing, _recovering, _starting)
"""In this order: the first answer that applies wins."""

CONDITIONS = ("Ready", "Reconciling", "Stalled", "Accepted", "Provisioned", "Admitted", "Available")
"""The types of the conditions that are Berth's; others may be added by anybody and are left alone."""


def stamp(
    verdict: Verdict,
    generation: int,
    previous: Sequence[dict[str, object]],
    now: str,
    notes: Sequence[str] = (),
    provisioned: tuple[bool, str, str] | None = None,
    admitted: tuple[bool, str, str] | None = None,
) -> list[dict[str, object]]:
    """The conditions as they are written: times are kept where the status of a condition has not changed.

    `now` is RFC 3339; `notes` are sentences that a person who chose this backend should read; `provisioned` says
    whether the weights are there, for those that have to come from somewhere, `admitted` whether all replicas may ask
    for GPUs, for those that need some. Reconciling and Stalled are present only
    while true, as kstatus wants it.
    """
    wanted: list[tuple[str, bool, str, str]] = [("Ready", verdict.ready, verdict.reason, verdict.message)]
    if verdict.reconciling:
        wanted.append(("Reconciling", True, verdict.reason, verdict.message))
    if verdict.stalled:
        wanted.append(("Stalled", True, verdict.reason, verdict.message))
    wanted.append(
        ("Accepted", True, Reason.VALID, ". ".join(("the spec can be carried out", *notes)))
        if verdict.accepted
        else ("Accepted", False, verdict.reason, verdict.message)
    )
    if provisioned is not None:
        wanted.append(("Provisioned", *provisioned))
    if admitted is not None:
        wanted.append(("Admitted", *admitted))
    wanted.append(
        ("Available", True, Reason.SERVING, "the URL answers")
        if verdict.available
        else ("Available", False, Reason.NOT_SERVING, "no server takes requests")
    )
    return stamp_all(wanted, generation, previous, now)


def stamp_all(
    wanted: Sequence[tuple[str, bool, str, str]],
    generation: int,
    previous: Sequence[Mapping[str, object]],
    now: str,
) -> list[dict[str, object]]:
    """Conditions from type, whether it holds, reason and message; `now` is RFC 3339.

    The time of a condition is kept where its status has not changed.
    """
    before = {condition["type"]: condition for condition in previous}
    stamped: list[dict[str, object]] = []
    for kind, holds, reason, message in wanted:
        status = "True" if holds else "False"
        old = before.get(kind)
        since = old["lastTransitionTime"] if old and old.get("status") == status else now
        stamped.append(
            {
                "type": kind,
                "status": status,
                "reason": str(reason),
                "message": message,
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return stamped
