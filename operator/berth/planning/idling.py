"""When an OnDemand Model that nobody uses is unloaded (`idle.after`)."""

from dataclasses import dataclass
from datetime import datetime

from berth.api.model import DesiredState, ModelSpec
from berth.api.model_status import LoadState
from berth.backends.registry import backend_for
from berth.planning.canonical import duration
from berth.planning.load_state import Load
from berth.planning.starting import Start

WATCHED_SECONDS = 10.0
"""No process unloads a Model that it has not watched for so long."""
_SOON = 1.0


@dataclass(frozen=True, slots=True)
class Idling:
    """Whether it is time, and otherwise when to look again; None when only news can change that."""

    unload: bool = False
    look_again: float | None = None


def idling(spec: ModelSpec, start: Start, load: Load | None, now: datetime, *, routed: bool) -> Idling:
    """What `idle.after` asks for now; `routed` says that a ModelRoute points at the Model, which keeps it loaded.

    The time counts from the last request that was seen, from when all servers told for the first time, or from the
    last start that was asked for, whichever is the latest. What is not known is no idleness. Raises InvalidSpecError.
    """
    if spec.idle is None or spec.state is not DesiredState.ON_DEMAND or routed or not start.awake:
        return Idling()
    after = duration("idle.after", spec.idle.after)
    if load is None or load.state is LoadState.UNKNOWN:
        return Idling()
    left = max(after - load.quiet, WATCHED_SECONDS - load.watched)
    age = start.age(now)
    if age is not None:
        left = max(left, after - age)
    if load.known and left <= 0:
        return Idling(unload=True)
    return Idling(look_again=max(left, _SOON))


def idle_note(spec: ModelSpec) -> str:
    """What a person should know whose `idle.after` cannot take effect; empty when it can."""
    if spec.idle is None or backend_for(spec.backend).load(spec) is not None:
        return ""
    if spec.custom is not None:
        return "idle.after has no effect without custom.metrics, which tell whether the server works on requests"
    return f"idle.after has no effect: {spec.backend} tells nobody how many requests it has"
