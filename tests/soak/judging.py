"""What became of the requests of one cycle, by kind of connection and by what was going on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from berth.planning.drain_pod import PRE_STOP_SECONDS
from support.load import Ending


class Fate(StrEnum):
    """How a request ended."""

    COMPLETED = "completed"
    """Its answer came to its end."""
    REFUSED_BY_WISH = "refused_by_wish"
    """No connection, because the Service was closed for a stop before it began."""
    AT_DRAIN_TIMEOUT = "cut_at_drain_timeout"
    """Cut, because it ran longer than a server that was told to end may take."""
    HIT_BY_KILL = "hit_by_kill"
    """Failed while a server that was killed on purpose was not yet back."""
    FAILED = "failed"
    """No connection, and no good reason."""
    CUT = "cut"
    """A connection, not the whole answer, and no good reason."""


@dataclass(frozen=True)
class Window:
    """A span of time on the machine's clock."""

    began: float
    ended: float


@dataclass(frozen=True)
class Happenings:
    """What was going on while requests ran."""

    drain_seconds: float
    closed: float = float("inf")
    """When the Service was closed for the stop."""
    deletions: Sequence[float] = ()
    """When Pods were told to end."""
    kills: Sequence[Window] = ()
    """From the kill of a server until the Model was Ready again."""

    def fate(self, one: Ending) -> Fate:
        """What became of a request, and whether that is as promised."""
        if not one.failure:
            return Fate.COMPLETED
        if any(one.began <= kill.ended and one.ended >= kill.began for kill in self.kills):
            return Fate.HIT_BY_KILL
        if not one.connected:
            return Fate.REFUSED_BY_WISH if one.began >= self.closed else Fate.FAILED
        timeout = PRE_STOP_SECONDS + self.drain_seconds - 1  # the times of deletions are whole seconds
        return Fate.AT_DRAIN_TIMEOUT if any(one.ended >= told + timeout for told in self.deletions) else Fate.CUT


@dataclass
class Tally:
    """How many requests met each fate."""

    counts: dict[Fate, int] = field(default_factory=lambda: dict.fromkeys(Fate, 0))
    examples: list[str] = field(default_factory=list)
    """The first few that ended without a good reason."""

    def count(self, endings: Iterable[Ending], happenings: Happenings) -> None:
        """Add the requests of one cycle."""
        for one in endings:
            fate = happenings.fate(one)
            self.counts[fate] += 1
            if fate in (Fate.FAILED, Fate.CUT) and len(self.examples) < 20:
                self.examples.append(f"{fate}: {one}; {happenings}")

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def told(self) -> dict[str, int]:
        """As JSON has it."""
        return {str(fate): count for fate, count in self.counts.items()}
