"""When a status is written, and which Events tell of it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from berth.api.model_status import Phase
from berth.planning.conditions import Verdict
from berth.planning.model_status import first_status_can_wait, only_progress_differs, only_words_differ
from berth.planning.plan import Note
from berth.planning.policy import Policy
from berth.planning.times import parse_time
from berth.planning.world import ModelWorld


def status_wait(
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


def notes(verdict: Verdict) -> tuple[Note, ...]:
    """Events for the transitions that a person wants to hear of; the rest is in the status and on the Pods."""
    kind = _TOLD.get(verdict.phase)
    if kind is None:
        return ()
    reason = verdict.reason if verdict.phase in (Phase.FAILED, Phase.DEGRADED) else verdict.phase.value
    return (Note(kind, reason, verdict.message),)
