"""The load of a Model: Busy at once, Idle when it has been quiet for a while, Unknown when servers do not tell.

Times between looks are counted by a clock that nobody can set (`clock`, in seconds); `now` is only what is shown.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from berth.api.model_status import LoadState
from berth.planning.canonical import content_hash
from berth.planning.times import format_time, parse_time


@dataclass(frozen=True, slots=True)
class Reading:
    """What one server told at one look."""

    running: float
    waiting: float = 0.0
    worked: float | None = None
    """A counter that grows with every request: it shows those that come and go between two looks. None without one."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is known of the load of all servers of a Model after a look."""

    state: LoadState
    since: datetime
    looked_at: float
    known: bool
    """Whether every server told."""
    running: float = 0.0
    waiting: float = 0.0
    quiet_since: float | None = None
    """Since when no request was seen and none can have been missed; None until all servers have told once."""
    watched_since: float | None = None
    """When all servers had told for the first time in this process."""
    unknown_since: float | None = None
    work: Mapping[str, float | None] = field(default_factory=dict)
    """By server: its counter when it told last."""
    missed: frozenset[str] = frozenset()
    """Servers that did not tell of late, so that they may have had requests."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """`status.load` as the last leader left it, until all servers have told this process."""

    @property
    def quiet(self) -> float:
        """Seconds without requests up to the last look at which that was known."""
        return self.looked_at - self.quiet_since if self.known and self.quiet_since is not None else 0.0

    @property
    def watched(self) -> float:
        """Seconds for which this process has watched it."""
        return self.looked_at - self.watched_since if self.watched_since is not None else 0.0

    @property
    def mark(self) -> str:
        """Stands for these servers and all that they have done; empty when a server does not count its requests.

        While it stays, there was no request: another leader that finds it in the status need not begin anew.
        """
        return _mark(self.work) if self.quiet_since is not None else self.told.get("mark", "")

    def shown(self) -> tuple[LoadState, str, str]:
        """What a plan shows of it."""
        return self.state, format_time(self.since), self.mark if self.state is LoadState.IDLE else ""


def look(
    before: Load | None,
    readings: Mapping[str, Reading | None],
    told: Mapping[str, Any] | None,
    now: datetime,
    clock: float,
    settle: float,
) -> Load:
    """The load after a look at all servers, None standing for one that did not tell.

    `told` is `status.load`, which counts as long as this process has seen nothing itself. `settle` is for how many
    seconds a Model has to be quiet until it is Idle, and silent until it is Unknown.
    """
    if before is None:
        told = told or {}
        before = Load(_told_state(told), _told_since(told, now) or now, looked_at=clock, known=False, told=told)
    answers = {server: reading for server, reading in readings.items() if reading is not None}
    known = bool(readings) and len(answers) == len(readings)
    work = {server: before.work[server] for server in readings if server in before.work}
    work |= {server: reading.worked for server, reading in answers.items()}
    proven = all(_same(before.work.get(server), work.get(server)) for server in before.missed)
    active = any(_active(reading, server, before.work) for server, reading in answers.items())
    quiet_since = before.quiet_since
    if active or (known and quiet_since is not None and not proven):
        quiet_since = clock
    elif known and quiet_since is None:
        quiet_since = clock - _quiet_before(before.told, work, now)
    first = known and before.watched_since is None
    after = replace(
        before,
        looked_at=clock,
        known=known,
        running=sum(reading.running for reading in answers.values()),
        waiting=sum(reading.waiting for reading in answers.values()),
        quiet_since=quiet_since,
        watched_since=clock if first else before.watched_since,
        unknown_since=None if known else clock if before.unknown_since is None else before.unknown_since,
        work=work,
        missed=frozenset() if known else before.missed | (readings.keys() - answers.keys()),
    )
    state, since = _settled(before, after, now, settle, active=active)
    return replace(after, state=state, since=since)


def _settled(before: Load, after: Load, now: datetime, settle: float, *, active: bool) -> tuple[LoadState, datetime]:
    """State and its time; both stay those of the last look as long as nothing speaks against it."""
    stays = before.state, before.since
    if active:
        return stays if before.state is LoadState.BUSY else (LoadState.BUSY, now)
    if not after.known:
        silent = after.looked_at - after.unknown_since if after.unknown_since is not None else 0.0
        return stays if before.state is LoadState.UNKNOWN or silent < settle else (LoadState.UNKNOWN, now)
    if before.state is LoadState.BUSY and after.quiet < settle:
        return stays
    if before.state is LoadState.IDLE and before.quiet_since == after.quiet_since:
        return stays
    return LoadState.IDLE, _whole(now - timedelta(seconds=after.quiet))


def _active(reading: Reading, server: str, old: Mapping[str, float | None]) -> bool:
    """Whether a server works on requests, or has since the last look. A first look shows nothing of the past."""
    if reading.running + reading.waiting > 0:
        return True
    return server in old and reading.worked is not None and reading.worked != old[server]


def _same(one: float | None, other: float | None) -> bool:
    """Whether a counter proves that nothing was done in between."""
    return one is not None and one == other


def _mark(work: Mapping[str, float | None]) -> str:
    return "" if not work or None in work.values() else content_hash(sorted(work.items()))


# ---- what the last leader saw -----------------------------------------------------------------------------------


def _told_state(told: Mapping[str, Any]) -> LoadState:
    state = told.get("state")
    return LoadState(state) if state in set(LoadState) else LoadState.UNKNOWN


def _told_since(told: Mapping[str, Any], now: datetime) -> datetime | None:
    """The time in the status; None when it is none, or one that is still to come."""
    try:
        since = parse_time(told.get("since"))
        return since if since is not None and since <= now else None
    except (TypeError, ValueError):
        return None


def _quiet_before(told: Mapping[str, Any], work: Mapping[str, float | None], now: datetime) -> float:
    """Seconds of quiet that the last leader vouches for, if the same servers have had no request since."""
    since = _told_since(told, now)
    if since is None or _told_state(told) is not LoadState.IDLE:
        return 0.0
    mark = _mark(work)
    return (now - since).total_seconds() if mark and mark == told.get("mark") else 0.0


def _whole(moment: datetime) -> datetime:
    """The next whole second: a status has no finer times, and no quiet is to be made up by rounding."""
    return moment.replace(microsecond=0) + timedelta(seconds=math.ceil(moment.microsecond / 1e6))
