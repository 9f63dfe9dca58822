"""How the soak judges requests, and what it calls growth."""

from dataclasses import replace

import pytest

from berth.planning.drain_pod import PRE_STOP_SECONDS
from soak.judging import Fate, Happenings, Tally, Window
from soak.observing import Growth, Sample
from support.load import Ending

CUT = Ending(began=100, ended=101, failure="reset")
REFUSED = replace(CUT, connected=False)
DRAIN = 15
QUIET = Happenings(DRAIN)


@pytest.mark.parametrize(
    ("ending", "happenings", "fate"),
    [
        (Ending(100, 101), QUIET, Fate.COMPLETED),
        (CUT, QUIET, Fate.CUT),
        (REFUSED, QUIET, Fate.FAILED),
        (REFUSED, replace(QUIET, closed=99), Fate.REFUSED_BY_WISH),
        (REFUSED, replace(QUIET, closed=100.5), Fate.FAILED),
        (CUT, replace(QUIET, closed=99), Fate.CUT),
        (CUT, replace(QUIET, deletions=[99]), Fate.CUT),
        (CUT, replace(QUIET, deletions=[101 - PRE_STOP_SECONDS - DRAIN]), Fate.AT_DRAIN_TIMEOUT),
        (CUT, replace(QUIET, kills=[Window(100.5, 130)]), Fate.HIT_BY_KILL),
        (REFUSED, replace(QUIET, kills=[Window(50, 99)]), Fate.FAILED),
    ],
)
def test_a_request_is_excused_only_by_what_was_going_on(ending: Ending, happenings: Happenings, fate: Fate) -> None:
    assert happenings.fate(ending) is fate


def test_what_has_no_good_reason_is_kept_as_an_example() -> None:
    tally = Tally()
    tally.count([CUT, Ending(1, 2)], QUIET)
    assert (tally.requests, tally.counts[Fate.CUT], len(tally.examples)) == (2, 1, 1)


def samples(*sizes: float, pid: int = 1) -> list[Sample]:
    return [Sample(pid, number, size, 20 + number // 10, 40) for number, size in enumerate(sizes)]


def test_growth_is_that_of_the_last_process_after_its_warm_up() -> None:
    earlier = samples(*[500.0] * 20, pid=1)
    last = samples(*[50.0] * 5, *[100.0] * 10, *[104.0] * 10, pid=2)
    growth = Growth.of(earlier + last)
    assert (growth.cycles, growth.rss_percent, growth.descriptors, growth.tasks) == (20, 4.0, 2, 0)


def test_a_few_cycles_tell_nothing_about_growth() -> None:
    assert Growth.of(samples(*[100.0] * 14)) == Growth(9)
