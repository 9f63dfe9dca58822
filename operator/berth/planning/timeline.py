"""When a Model reached each step of its latest start, how long it has been in its phase, and what a start took.

A start begins when a Model that has no server left is to have one: it is made or woken up, its only server is replaced
in place, it is tried again after it was given up, or every server that answered is gone or runs anew. A rollout and a
lost replica begin no start while another server answers, nor does a server that only misses a probe.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from berth.api.model_status import Phase
from berth.planning.conditions import Facts, Verdict
from berth.planning.plan import StartTimes
from berth.planning.pods import Pod
from berth.planning.times import format_time, parse_time
from berth.planning.world import Subject

_ENDED = (Phase.STOPPED, Phase.FAILED, Phase.DRAINING)
_STEPS = (
    ("provisionedAt", "provisioning"),
    ("admittedAt", "queued"),
    ("startedAt", "creating"),
    ("readyAt", "loading"),
)
"""The steps after queuedAt, with the part of a start that each of them ends."""


def timeline(
    subject: Subject,
    verdict: Verdict,
    facts: Facts,
    pods: Sequence[Pod],
    now: datetime,
    *,
    provisioned: bool,
    admitted_at: datetime | None = None,
) -> dict[str, str]:
    """The timeline to show; a step that was reached once keeps its time until the next start.

    `provisioned` says that weights which have to come from somewhere are there. `admitted_at` is when the first
    replica was allowed to ask for its GPUs; None while none is, and where nobody has to be asked.
    """
    before: Mapping[str, str] = subject.status.get("timeline") or {}
    was = subject.status.get("phase", Phase.PENDING)
    if verdict.phase in _ENDED:
        return dict(before)
    staying = [pod for pod in pods if not pod.deleting]
    reached = dict(before)
    if _begins(before, was, facts, staying):
        reached = {"queuedAt": format_time(_beginning(was, staying, now))}
    elif "queuedAt" not in before:
        reached = {"queuedAt": format_time(subject.created_at or now)}
    running = [pod.server.running_since for pod in staying if pod.server and pod.server.running_since]
    ready = [pod.ready_since for pod in staying if pod.ready_since]
    seen = {
        # Weights that a Pod brings itself are there before its server runs, and are known to be only then.
        "provisionedAt": min(now, *running) if provisioned and running else now if provisioned else None,
        "admittedAt": admitted_at,
        "startedAt": min(running, default=None),
        "readyAt": min(ready, default=None),
    }
    for step, moment in seen.items():
        if step not in reached and moment is not None:
            reached[step] = max(format_time(moment), reached["queuedAt"])
    return reached


def _begins(before: Mapping[str, str], was: str, facts: Facts, staying: Sequence[Pod]) -> bool:
    """Whether a start begins that is not the first since the Model was made."""
    if "readyAt" not in before:
        return was in _ENDED  # it came to nothing
    return was == Phase.STOPPED or (facts.ready == 0 and not any(_has_answered(pod) for pod in staying))


def _has_answered(pod: Pod) -> bool:
    """Whether the server process that runs in it answered before, if not now: it began before the Pod was unready."""
    if pod.server is None or pod.server.running_since is None:
        return False
    return pod.unready_since is None or pod.server.running_since < pod.unready_since


def _beginning(was: str, staying: Sequence[Pod], now: datetime) -> datetime:
    """Now; where nobody looked in between, when the first Pod was made."""
    made = [pod.created_at for pod in staying if pod.created_at is not None] if was == Phase.STOPPED else []
    return min([now, *made])


def finished_start(before: Mapping[str, Any], after: Mapping[str, Any]) -> StartTimes | None:
    """What a start took, if the status `after` is the first to have the end of it."""
    told, known = after.get("timeline") or {}, before.get("timeline") or {}
    if "readyAt" not in told or told == known:
        return None
    if "readyAt" in known and known["queuedAt"] == told["queuedAt"]:
        return None
    began = last = datetime.fromisoformat(told["queuedAt"])
    parts: dict[str, float] = {}
    for step, part in sorted((one for one in _STEPS if one[0] in told), key=lambda one: told[one[0]]):
        moment = datetime.fromisoformat(told[step])
        parts[part] = (moment - last).total_seconds()
        last = moment
    return StartTimes((last - began).total_seconds(), parts)


def phase_since(subject: Subject, phase: Phase, now: datetime) -> str | None:
    """Since when the Model is in this phase; None where that was not written down."""
    status = subject.status
    if status.get("observedGeneration", -1) == -1 and phase is Phase.PENDING:
        return format_time(subject.created_at or now)
    if status.get("phase", Phase.PENDING) == phase:
        return status.get("phaseSince")
    return format_time(now)


def phase_start(subject: Subject) -> datetime | None:
    """Since when the Model has been in the phase that its status shows; None where that is not known."""
    since = parse_time(subject.status.get("phaseSince"))
    if since is None and subject.status.get("observedGeneration", -1) == -1:
        since = subject.created_at
    return since


def seconds_in_phase(subject: Subject, now: datetime) -> float | None:
    """How long the Model has been in the phase that its status shows; None where that is not known."""
    since = phase_start(subject)
    return max(0.0, round((now - since).total_seconds(), 1)) if since is not None else None
