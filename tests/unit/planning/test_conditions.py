"""Conditions agree with the phase, with one another, and with the tools that wait for them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.model_status import Condition, Phase
from berth.planning.conditions import Facts, Verdict, assess, stamp
from berth.planning.reasons import Reason
from support.kstatus import kstatus
from unit.planning import strategies

# Ready, Reconciling, Stalled and, where it does not depend on what still serves, Available.
TABLE: dict[Phase, tuple[str, str | None, str | None, str | None]] = {
    Phase.PENDING: ("False", "True", None, "False"),
    Phase.QUEUED: ("False", "True", None, "False"),
    Phase.LOADING: ("False", "True", None, "False"),
    Phase.READY: ("True", None, None, "True"),
    Phase.UPDATING: ("False", "True", None, "True"),
    Phase.DEGRADED: ("False", "True", None, None),
    Phase.DRAINING: ("False", "True", None, "False"),
    Phase.STOPPED: ("True", None, None, "False"),
    Phase.FAILED: ("False", None, "True", None),
}
FINISHED = {Phase.READY: "Current", Phase.STOPPED: "Current", Phase.FAILED: "Failed"}


def written(facts: Facts, previous: list[dict[str, Any]] | None = None, now: str = "T1") -> list[dict[str, Any]]:
    return stamp(assess(facts), facts.generation, previous or [], now)


def statuses(conditions: list[dict[str, Any]]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in conditions}


@given(strategies.facts())
def test_conditions_follow_the_table_of_phases(facts: Facts) -> None:
    ready, reconciling, stalled, available = TABLE[assess(facts).phase]
    found = statuses(written(facts))
    assert found["Ready"] == ready
    assert found.get("Reconciling") == reconciling
    assert found.get("Stalled") == stalled
    assert available in (None, found["Available"])


@given(strategies.facts())
def test_available_means_that_a_server_takes_requests(facts: Facts) -> None:
    draining = assess(facts).phase is Phase.DRAINING
    assert (statuses(written(facts))["Available"] == "True") == (facts.ready > 0 and not draining)


@given(strategies.facts())
def test_tools_that_wait_see_what_the_phase_says(facts: Facts) -> None:
    phase = assess(facts).phase
    status = {"observedGeneration": facts.generation, "conditions": written(facts)}
    assert kstatus(facts.generation, status) == FINISHED.get(phase, "InProgress")


@given(strategies.facts())
def test_a_new_generation_is_in_progress_until_it_was_observed(facts: Facts) -> None:
    status = {"observedGeneration": facts.generation, "conditions": written(facts)}
    assert kstatus(facts.generation + 1, status) == "InProgress"


def test_a_fresh_object_is_in_progress() -> None:
    assert kstatus(1, {"observedGeneration": -1}) == "InProgress"


@given(strategies.facts(), strategies.facts())
def test_times_change_only_when_the_status_of_a_condition_does(before: Facts, after: Facts) -> None:
    old = {c["type"]: c for c in written(before, now="T1")}
    for condition in written(after, list(old.values()), now="T2"):
        known = old.get(condition["type"])
        kept = known is not None and known["status"] == condition["status"]
        assert condition["lastTransitionTime"] == ("T1" if kept else "T2")


@given(strategies.facts())
def test_conditions_written_twice_are_the_same(facts: Facts) -> None:
    first = written(facts, now="T1")
    assert written(facts, first, now="T2") == first


@given(strategies.facts())
def test_the_order_of_conditions_that_the_server_keeps_does_not_matter(facts: Facts) -> None:
    first = written(facts, now="T1")
    assert written(facts, first[::-1], now="T2") == first


@given(strategies.facts())
def test_conditions_have_the_shape_of_the_api(facts: Facts) -> None:
    for condition in written(facts, now="2026-01-01T00:00:00Z"):
        assert Condition.model_validate(condition).to_json() == condition
        assert type(condition["reason"]) is str


@given(strategies.facts(), st.integers(1, 9))
def test_every_condition_says_which_generation_it_is_about(facts: Facts, generation: int) -> None:
    assert {c["observedGeneration"] for c in stamp(assess(facts), generation, [], "T")} == {generation}


@pytest.mark.parametrize("kind", ["Ready", "Accepted", "Available"])
@given(strategies.facts())
def test_some_conditions_are_always_there(kind: str, facts: Facts) -> None:
    assert kind in statuses(written(facts))


def test_a_backend_that_needs_more_rights_says_so_in_the_condition_accepted() -> None:
    verdict = Verdict(Phase.READY, True, Reason.SERVING, "answers", False, False, True)
    accepted = next(
        c for c in stamp(verdict, 1, (), "2026-01-01T00:00:00Z", ("TGI runs as root",)) if c["type"] == "Accepted"
    )
    assert accepted["message"] == "the spec can be carried out. TGI runs as root"
