"""Explicit starts: a new value of the annotation `berth.dev/start` starts an OnDemand Model.

The operator never writes annotations, so `status.start` remembers the value that was seen last. All of it is in the
cluster: whoever leads next knows what was started and what was unloaded since.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from berth.planning.canonical import content_hash
from berth.planning.times import format_time, parse_time

START_ANNOTATION = "berth.dev/start"
"""Any new value asks for a start. An empty one asks for nothing."""
LONGEST_VALUE = 253


def start_value(annotations: Mapping[str, str]) -> str:
    """The value by which a start is asked for, short enough for a status; empty when none is."""
    value = annotations.get(START_ANNOTATION, "")
    return value if len(value) <= LONGEST_VALUE else content_hash(value)


def asks_anew(annotations: Mapping[str, str], handled: str) -> bool:
    """Whether a start is asked for that is not the one that was `handled`."""
    return start_value(annotations) not in ("", handled)


@dataclass(frozen=True, slots=True)
class Start:
    """The latest start of an OnDemand Model, as `status.start` has it. Of other Models it is the value only."""

    value: str = ""
    """The annotation's value that was seen last; empty once it was taken away, so that it can be given again."""
    at: str = ""
    """When the start was asked for; empty when it never was."""
    unloaded_at: str = ""
    """When the Model was unloaded after that, because nobody used it."""

    @property
    def awake(self) -> bool:
        """Whether an OnDemand Model is to run."""
        return bool(self.at) and not self.unloaded_at

    def age(self, now: datetime) -> float | None:
        """Seconds since the start was asked for; None when that cannot be told, as after a clock was set back."""
        at = _time(self.at)
        age = (now - at).total_seconds() if at is not None else -1.0
        return age if age >= 0 else None

    def unloaded(self, now: datetime) -> "Start":
        """The same, now that nobody uses it any more."""
        return replace(self, unloaded_at=format_time(now))

    def to_status(self) -> dict[str, str]:
        """As it is written; empty when there is nothing to remember."""
        told = {"value": self.value, "at": self.at, "unloadedAt": self.unloaded_at}
        return {field: text for field, text in told.items() if text}


def remembered(status: Mapping[str, Any]) -> Start:
    """The start that a status tells of."""
    told = status.get("start") or {}
    return Start(told.get("value", ""), told.get("at", ""), told.get("unloadedAt", ""))


def current_start(
    before: Start, annotations: Mapping[str, str], *, on_demand: bool, serves: bool, now: datetime
) -> Start:
    """The start that counts now. `serves` says that the Model is to have servers by what was decided last.

    A Model that served when it became OnDemand goes on until nobody uses it.
    """
    value = start_value(annotations)
    if not on_demand:
        return Start(value)
    never = not before.at and not before.unloaded_at
    if asks_anew(annotations, before.value) or (never and serves):
        return Start(value, format_time(now))
    return replace(before, value=value)


def _time(text: str) -> datetime | None:
    try:
        return parse_time(text)
    except ValueError:
        return None
