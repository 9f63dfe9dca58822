"""Explicit starts: a new value of an annotation, and what is remembered of it."""

from datetime import timedelta

import pytest

from berth.planning.starting import START_ANNOTATION, Start, asks_anew, current_start, remembered, start_value
from berth.planning.times import format_time
from support.builders import NOW

AT = format_time(NOW)
EARLIER = format_time(NOW - timedelta(hours=1))


def start(before: Start, value: str | None = None, *, on_demand: bool = True, serves: bool = False) -> Start:
    annotations = {START_ANNOTATION: value} if value is not None else {}
    return current_start(before, annotations, on_demand=on_demand, serves=serves, now=NOW)


def test_the_value_is_that_of_the_annotation() -> None:
    assert start_value({START_ANNOTATION: "1", "other": "2"}) == "1"
    assert start_value({}) == start_value({START_ANNOTATION: ""}) == ""


def test_a_value_that_is_too_long_for_a_status_is_told_by_its_hash() -> None:
    one, other = start_value({START_ANNOTATION: "a" * 10_000}), start_value({START_ANNOTATION: "a" * 9_999})
    assert len(one) < 253
    assert one != other


@pytest.mark.parametrize(("value", "anew"), [("1", False), ("2", True), ("", False)])
def test_only_a_value_that_was_not_handled_asks_anew(value: str, anew: bool) -> None:
    assert asks_anew({START_ANNOTATION: value}, "1") is anew


def test_a_model_that_nobody_ever_started_sleeps() -> None:
    assert not start(Start()).awake
    assert start(Start()).to_status() == {}


def test_a_new_value_starts_it_and_the_same_one_leaves_it_running() -> None:
    first = start(Start(), "1")
    assert (first.awake, first.at) == (True, AT)
    assert start(first, "1") == first


def test_an_unloaded_model_starts_with_another_value_only() -> None:
    asleep = Start("1", EARLIER).unloaded(NOW)
    assert not asleep.awake
    assert start(asleep, "1") == asleep
    assert start(asleep, "2") == Start("2", AT)


def test_a_value_that_was_taken_away_can_be_given_again() -> None:
    asleep = start(Start("now", EARLIER).unloaded(NOW), None)
    assert not asleep.awake
    assert start(asleep, "now").awake


def test_taking_the_annotation_away_stops_nothing() -> None:
    assert start(Start("1", EARLIER), None) == Start("", EARLIER)


def test_a_start_is_asked_for_again_while_it_runs() -> None:
    assert start(Start("1", EARLIER), "2") == Start("2", AT)


def test_a_model_that_becomes_on_demand_while_it_serves_goes_on() -> None:
    running = start(Start(), "1", on_demand=False, serves=True)
    assert running == Start("1")
    assert start(running, "1", serves=True).awake
    assert not start(running, "1", serves=False).awake


def test_what_was_unloaded_stays_so_while_its_servers_end() -> None:
    assert not start(Start("1", EARLIER, AT), "1", serves=True).awake


@pytest.mark.parametrize("told", [Start(), Start("1"), Start("1", EARLIER), Start("1", EARLIER, AT), Start("", AT)])
def test_a_status_remembers_all_of_it(told: Start) -> None:
    assert remembered({"start": told.to_status()}) == told


def test_the_age_of_a_start_is_not_known_before_it_or_without_a_time() -> None:
    assert Start("1", EARLIER).age(NOW) == 3600
    assert [Start("1", at).age(NOW) for at in ("", "soon", format_time(NOW + timedelta(seconds=1)))] == [None] * 3
