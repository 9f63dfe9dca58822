"""Busy at once, Idle after a while, Unknown when nobody tells; and no quiet that nobody has seen."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.api.model_status import LoadState
from berth.planning.load_state import Load, Reading, look
from support.builders import NOW

SETTLE = 30.0
REST, WORK = Reading(0, 0, 7), Reading(1, 0, 7)
IDLE, BUSY, UNKNOWN = LoadState.IDLE, LoadState.BUSY, LoadState.UNKNOWN


class Looks:
    """Looks at the servers of one Model, in one process after the other."""

    def __init__(self, told: dict[str, str] | None = None) -> None:
        self.told, self.clock, self.now = told, 1000.0, NOW
        self.load: Load | None = None

    def at(self, seconds: float, *answers: Reading | None, **servers: Reading | None) -> Load:
        """A look so many seconds after the beginning; servers are a, b, … unless they are named."""
        self.wait(1000.0 + seconds - self.clock)
        return self.look({**dict(zip("abc", answers, strict=False)), **servers})

    def wait(self, seconds: float) -> None:
        self.clock += seconds
        self.now += timedelta(seconds=seconds)

    def look(self, readings: dict[str, Reading | None]) -> Load:
        self.load = look(self.load, readings, self.told, self.now, self.clock, SETTLE)
        state, since, mark = self.load.shown()
        self.told = {"state": state.value, "since": since, **({"mark": mark} if mark else {})}
        return self.load

    def restart(self, **told: str) -> None:
        """Another process takes over, with a clock of its own."""
        self.load, self.clock = None, self.clock + 12345
        self.told = {**(self.told or {}), **told}


@pytest.fixture
def looks() -> Looks:
    return Looks()


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


# ---- the states --------------------------------------------------------------------------------------------------


def test_a_server_that_has_had_no_request_is_idle(looks: Looks) -> None:
    load = looks.at(0, REST)
    assert (load.state, load.since, load.quiet) == (IDLE, NOW, 0)


@pytest.mark.parametrize("busy", [Reading(1, 0), Reading(0, 2), Reading(0.5, 0)])
def test_one_request_makes_a_model_busy_at_once(looks: Looks, busy: Reading) -> None:
    looks.at(0, REST, REST)
    load = looks.at(5, REST, busy)
    assert (load.state, load.since) == (BUSY, after(5))


def test_requests_of_all_servers_are_summed(looks: Looks) -> None:
    load = looks.at(0, Reading(1, 2), Reading(3, 4))
    assert (load.running, load.waiting) == (4, 6)


def test_a_model_is_idle_once_it_has_been_quiet_for_a_while_and_since_it_was(looks: Looks) -> None:
    looks.at(0, WORK)
    looks.at(5, REST)
    assert looks.at(29, REST).state is BUSY
    load = looks.at(30, REST)
    assert (load.state, load.since) == (IDLE, after(0))


def test_requests_now_and_then_leave_it_busy_without_a_change(looks: Looks) -> None:
    shown = {looks.at(20 * number, WORK if number % 2 else REST).shown() for number in range(1, 20)}
    assert len(shown) == 1


def test_a_request_between_two_looks_counts(looks: Looks) -> None:
    looks.at(0, REST)
    load = looks.at(5, replace(REST, worked=8))
    assert (load.state, load.quiet) == (BUSY, 0)


def test_the_first_look_at_a_server_tells_nothing_of_its_past(looks: Looks) -> None:
    looks.at(0, REST)
    assert looks.at(5, REST, Reading(0, 0, 9)).state is IDLE


def test_a_counter_that_appears_with_the_first_request_counts_it(looks: Looks) -> None:
    looks.at(0, Reading(0))
    assert looks.at(5, Reading(0, 0, 1)).state is BUSY


# ---- servers that do not tell ------------------------------------------------------------------------------------


def test_a_model_of_which_nobody_ever_told_is_unknown(looks: Looks) -> None:
    load = looks.at(0, None)
    assert (load.state, load.known, load.quiet) == (UNKNOWN, False, 0)


def test_a_request_is_seen_whoever_else_is_silent(looks: Looks) -> None:
    assert looks.at(0, None, WORK).state is BUSY


def test_a_silence_becomes_unknown_after_a_while(looks: Looks) -> None:
    looks.at(0, REST, REST)
    looks.at(5, REST, None)
    assert looks.at(34, REST, None).state is IDLE
    load = looks.at(35, REST, None)
    assert (load.state, load.since) == (UNKNOWN, after(35))


def test_silence_is_no_quiet(looks: Looks) -> None:
    looks.at(0, Reading(0))
    assert looks.at(60, Reading(0)).quiet == 60
    assert looks.at(70, None).quiet == 0
    assert looks.at(80, Reading(0)).quiet == 0
    assert looks.at(90, Reading(0)).quiet == 10


def test_a_counter_that_stayed_proves_that_a_silence_was_quiet(looks: Looks) -> None:
    looks.at(0, REST, REST)
    looks.at(60, None, REST)
    load = looks.at(70, REST, REST)
    assert (load.quiet, load.since) == (70, NOW)


def test_a_counter_that_rose_during_a_silence_is_work(looks: Looks) -> None:
    looks.at(0, REST)
    looks.at(60, None)
    load = looks.at(70, replace(REST, worked=8))
    assert (load.state, load.quiet) == (BUSY, 0)


def test_a_server_that_was_silent_and_is_gone_may_have_worked(looks: Looks) -> None:
    looks.at(0, REST, REST)
    looks.at(60, REST, None)
    assert looks.at(70, REST).quiet == 0


def test_a_server_that_ends_or_comes_does_not_disturb_the_quiet(looks: Looks) -> None:
    looks.at(0, REST, REST)
    looks.at(10, REST)
    assert looks.at(20, REST, REST).quiet == 20


# ---- other processes and clocks ----------------------------------------------------------------------------------


def test_the_next_leader_goes_on_where_no_request_was_missed(looks: Looks) -> None:
    looks.at(0, REST)
    before = looks.at(60, REST)
    looks.restart()
    looks.wait(40)
    load = looks.look({"a": REST})
    assert (load.shown(), load.quiet, load.watched) == (before.shown(), 100, 0)


@pytest.mark.parametrize(
    "servers",
    [{"a": replace(REST, worked=8)}, {"a2": REST}, {"a": REST, "b": REST}, {"a": replace(REST, worked=None)}],
    ids=["work", "another server", "one more", "no counter"],
)
def test_the_next_leader_begins_anew_where_a_request_may_have_been_missed(
    looks: Looks, servers: dict[str, Reading]
) -> None:
    looks.at(0, REST)
    looks.at(60, REST)
    looks.restart()
    load = looks.look(dict(servers))
    assert (load.state, load.since, load.quiet) == (IDLE, after(60), 0)


def test_the_next_leader_waits_for_the_first_answers_before_it_changes_anything(looks: Looks) -> None:
    looks.at(0, REST)
    before = looks.at(60, REST)
    looks.restart()
    assert looks.look({"a": None}).shown()[:2] == before.shown()[:2]
    looks.wait(20)
    assert looks.look({"a": REST}).quiet == 80


@pytest.mark.parametrize(
    "told",
    [{"since": "soon"}, {"since": "2036-01-01T12:00:00Z"}, {"state": "Dreaming"}, {"since": ""}, {"mark": "other"}],
)
def test_a_status_that_makes_no_sense_vouches_for_nothing(looks: Looks, told: dict[str, str]) -> None:
    looks.at(0, REST)
    looks.at(60, REST)
    looks.restart(**told)
    assert looks.look({"a": REST}).quiet == 0


def test_a_clock_that_is_set_changes_no_quiet(looks: Looks) -> None:
    looks.at(0, REST)
    looks.now += timedelta(days=1)
    assert looks.at(60, REST).quiet == 60
    looks.now -= timedelta(days=2)
    assert looks.at(90, REST).quiet == 90


# ---- whatever happens --------------------------------------------------------------------------------------------


_SERVERS = st.sampled_from("abc")
_STEPS = (
    st.tuples(st.just("look"), st.sampled_from(["", "", "a", "b", "ab", "abc"]), st.floats(0.1, 40)),
    st.tuples(st.just("request"), _SERVERS, st.floats(0, 5)),
    st.tuples(st.just("long request"), _SERVERS, st.floats(0, 5)),
    st.tuples(st.just("new server"), _SERVERS, st.floats(0, 5)),
)
_RESTART = st.tuples(st.just("restart"), st.just(""), st.floats(0, 200))
_CLOCK = st.tuples(st.just("clock"), st.sampled_from(["3600", "-3600"]), st.floats(0, 5))


@dataclass
class Counting:
    """A server that counts its requests, and when it had the last of those that a look could show."""

    run: int = 0
    running: int = 0
    done: int = 0
    asked: bool = False
    last: float = 0.0

    def work(self, time: float, running: int) -> None:
        self.running, self.done = running, self.done + 1
        self.last = time if self.asked else 0.0  # what it did before it was asked first is not seen


@settings(max_examples=200, deadline=None)
@given(steps=st.lists(st.one_of(*_STEPS, _RESTART), max_size=40) | st.lists(st.one_of(*_STEPS, _CLOCK), max_size=40))
def test_no_model_is_quiet_for_longer_than_since_its_last_request(steps: list[tuple[str, str, float]]) -> None:
    """Whatever happens, unless a clock is set while nobody leads."""
    looks, servers, time = Looks(), {name: Counting() for name in "abc"}, 0.0
    for kind, which, seconds in steps:
        time += seconds
        looks.wait(seconds)
        match kind:
            case "request":
                servers[which].work(time, servers[which].running)
            case "long request":
                servers[which].work(time, 1 - servers[which].running)
            case "new server":
                servers[which] = Counting(servers[which].run + 1)
            case "restart":
                looks.restart()
            case "clock":
                looks.now += timedelta(seconds=float(which))
            case _:
                look_and_compare(looks, servers, which, time)


def look_and_compare(looks: Looks, servers: dict[str, Counting], silent: str, time: float) -> None:
    told = {name: one for name, one in servers.items() if name not in silent}
    readings = {f"{name}/{one.run}": Reading(one.running, 0, one.done) for name, one in told.items()}
    load = looks.look({**{f"{name}/{servers[name].run}": None for name in silent}, **readings})
    for one in told.values():
        one.asked = True
    working = any(one.running for one in told.values())
    if working:
        assert load.state is BUSY
    if load.known:
        assert load.quiet <= (0 if working else time - max(one.last for one in servers.values())) + 1e-6
        assert load.state is BUSY or (load.state is IDLE and not working)
