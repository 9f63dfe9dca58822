"""A Model that nobody uses is unloaded, and not a moment too early."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from berth.api.model import ModelSpec
from berth.planning.idling import idle_note
from berth.planning.load_state import Reading
from berth.planning.model_plan import decide
from support import builders
from support.simulation import KEY, SETTLE, Simulation

AFTER = 60
MEASURED = {"custom": {"port": 9000, "metrics": {"running": "busy", "worked": "total"}}}
IDLE = {"state": "OnDemand", "idle": {"after": f"{AFTER}s"}, **MEASURED}
WORK = Reading(1, 0, 1)


@pytest.fixture
def cluster() -> Simulation:
    """A cluster whose OnDemand Model was started, and is at rest since this moment."""
    found = Simulation(**IDLE)
    found.annotate(start="1")
    become_ready(found)
    return found


def become_ready(cluster: Simulation) -> None:
    cluster.settle()
    assert cluster.status["phase"] == "Ready"
    pass_time(cluster, 0)


def pass_time(cluster: Simulation, seconds: float, *answers: Reading | None) -> None:
    """Time passes, then everything happens that happens by itself."""
    cluster.now += timedelta(seconds=seconds)
    cluster.look(*answers)
    for _ in range(3):
        cluster.reconcile()


def end_servers(cluster: Simulation) -> None:
    """Until its servers are gone."""
    for _ in range(8):
        cluster.now += timedelta(seconds=1)
        cluster.look()
        cluster.reconcile()
        cluster.roll_out()
        for pod in cluster.pods():
            cluster.run_pod(pod)


def is_unloaded(cluster: Simulation) -> bool:
    return "unloadedAt" in cluster.status["start"]


# ---- the load in the status --------------------------------------------------------------------------------------


def test_the_load_is_shown_when_it_changes_and_costs_nothing_else(cluster: Simulation) -> None:
    assert cluster.status["load"]["state"] == "Idle"
    writes = cluster.writes
    pass_time(cluster, 5)
    assert cluster.writes == writes
    pass_time(cluster, 5, WORK)
    assert (cluster.status["load"]["state"], cluster.writes) == ("Busy", writes + 1)
    assert "mark" not in cluster.status["load"]
    pass_time(cluster, 5, Reading(0, 0, 1))
    pass_time(cluster, SETTLE, Reading(0, 0, 1))
    assert (cluster.status["load"]["state"], cluster.writes) == ("Idle", writes + 2)


def test_a_process_that_has_not_asked_yet_leaves_the_load_as_it_is(cluster: Simulation) -> None:
    cluster.restart()
    plan = cluster.plan()
    assert (plan.changes, plan.status) == ((), None)


def test_a_model_without_servers_has_no_load(cluster: Simulation) -> None:
    cluster.edit(state="Stopped")
    end_servers(cluster)
    assert cluster.status["phase"] == "Stopped"
    assert "load" not in cluster.status


def test_without_idle_after_nothing_is_kept_for_the_next_leader() -> None:
    cluster = Simulation(**MEASURED)
    become_ready(cluster)
    assert set(cluster.status["load"]) == {"state", "since"}
    assert cluster.plan().look_again is None


def test_a_load_that_nobody_can_tell_is_unknown_from_the_beginning() -> None:
    cluster = Simulation()
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["load"]) == ("Ready", {"state": "Unknown"})


# ---- unloading ---------------------------------------------------------------------------------------------------


def test_a_model_is_unloaded_after_its_time_without_requests(cluster: Simulation) -> None:
    pass_time(cluster, AFTER - 1)
    assert cluster.deployment["spec"]["replicas"] == 1
    pass_time(cluster, 1)
    assert cluster.status["phase"] == "Draining"
    end_servers(cluster)
    assert (cluster.status["phase"], cluster.status["conditions"][0]["reason"]) == ("Stopped", "Idle")
    assert cluster.pods() == []


def test_the_status_says_so_before_anything_is_stopped(cluster: Simulation) -> None:
    cluster.now += timedelta(seconds=AFTER)
    cluster.look()
    plan = cluster.plan()
    assert plan.changes == ()
    assert plan.status is not None
    assert "unloadedAt" in plan.status["start"]
    assert plan.look_again == 0


def test_it_looks_again_when_the_time_may_be_over(cluster: Simulation) -> None:
    pass_time(cluster, 20)
    assert cluster.plan().look_again == pytest.approx(AFTER - 20)


def test_requests_begin_the_time_anew(cluster: Simulation) -> None:
    pass_time(cluster, AFTER - 1, WORK)
    pass_time(cluster, AFTER - 1, Reading(0, 0, 1))
    assert not is_unloaded(cluster)
    pass_time(cluster, 1, Reading(0, 0, 1))
    assert is_unloaded(cluster)


def test_short_requests_between_the_looks_keep_it_loaded(cluster: Simulation) -> None:
    for number in range(1, 10):
        pass_time(cluster, AFTER - 1, Reading(0, 0, number))
    assert not is_unloaded(cluster)


def test_a_server_that_does_not_tell_is_not_idle(cluster: Simulation) -> None:
    for _ in range(20):
        pass_time(cluster, AFTER, None)
    assert cluster.status["load"]["state"] == "Unknown"
    assert cluster.status["phase"] == "Ready"
    assert cluster.plan().look_again is None


def test_a_start_that_is_asked_for_again_begins_the_time_anew(cluster: Simulation) -> None:
    pass_time(cluster, AFTER - 5)
    cluster.annotate(start="2")
    pass_time(cluster, 5)
    pass_time(cluster, AFTER - 6)
    assert not is_unloaded(cluster)
    pass_time(cluster, 6)
    assert is_unloaded(cluster)


def test_a_model_that_a_route_points_at_stays_and_even_starts(cluster: Simulation) -> None:
    pass_time(cluster, 10 * AFTER)
    asleep = replace(cluster.world(), routed=False)
    assert decide(asleep, cluster.now, cluster.policy).changes == ()
    cluster = Simulation(**IDLE)
    plan = decide(replace(cluster.world(), routed=True), cluster.now, cluster.policy)
    assert plan.changes


@pytest.mark.parametrize("state", ["Running", "OnDemand"])
def test_without_a_time_nothing_is_unloaded(state: str) -> None:
    cluster = Simulation(**MEASURED, state=state)
    cluster.annotate(start="1")
    become_ready(cluster)
    pass_time(cluster, 1_000_000)
    assert cluster.status["phase"] == "Ready"


def test_a_model_that_becomes_on_demand_goes_on_until_it_is_idle() -> None:
    cluster = Simulation(**MEASURED)
    become_ready(cluster)
    cluster.edit(state="OnDemand", idle={"after": f"{AFTER}s"})
    pass_time(cluster, 1)
    assert cluster.status["phase"] == "Ready"
    pass_time(cluster, AFTER)
    assert is_unloaded(cluster)


# ---- starting again ----------------------------------------------------------------------------------------------


def test_the_value_that_was_there_is_used_up(cluster: Simulation) -> None:
    pass_time(cluster, AFTER)
    end_servers(cluster)
    cluster.restart()
    cluster.settle()
    assert cluster.status["phase"] == "Stopped"


def test_a_new_value_starts_it_again(cluster: Simulation) -> None:
    pass_time(cluster, AFTER)
    end_servers(cluster)
    cluster.annotate(start="2")
    become_ready(cluster)
    pass_time(cluster, AFTER - 1)
    assert not is_unloaded(cluster)


def test_a_start_while_it_drains_brings_it_back(cluster: Simulation) -> None:
    pass_time(cluster, AFTER)
    assert cluster.status["phase"] == "Draining"
    cluster.annotate(start="2")
    cluster.look()
    cluster.reconcile()
    assert (cluster.status["phase"], cluster.deployment["spec"]["replicas"]) == ("Ready", 1)
    pass_time(cluster, AFTER / 2)
    assert not is_unloaded(cluster)


def test_a_start_that_comes_with_the_decision_to_unload_is_not_lost(cluster: Simulation) -> None:
    """The API server refuses the status then, because it rests on another version: what counts is the next plan."""
    cluster.now += timedelta(seconds=AFTER)
    cluster.look()
    assert "unloadedAt" in (cluster.plan().status or {})["start"]
    cluster.annotate(start="2")
    pass_time(cluster, 0)
    assert (cluster.status["start"]["value"], is_unloaded(cluster)) == ("2", False)


# ---- other processes and clocks ----------------------------------------------------------------------------------


def test_another_process_unloads_it_in_time_but_not_before_it_has_watched_it(cluster: Simulation) -> None:
    pass_time(cluster, AFTER - 1)
    cluster.restart()
    pass_time(cluster, 1)
    assert not is_unloaded(cluster)
    pass_time(cluster, 9)
    assert not is_unloaded(cluster)
    pass_time(cluster, 1)
    assert is_unloaded(cluster)


def test_requests_while_nobody_led_keep_it_loaded(cluster: Simulation) -> None:
    cluster.restart()
    pass_time(cluster, 10 * AFTER, Reading(0, 0, 5))
    pass_time(cluster, AFTER - 1, Reading(0, 0, 5))
    assert not is_unloaded(cluster)


@pytest.mark.parametrize("seconds", [-100_000, 100_000])
def test_a_clock_that_is_set_unloads_nothing(cluster: Simulation, seconds: float) -> None:
    pass_time(cluster, 10)
    load = cluster.store.memories.loads[KEY]
    plan = decide(cluster.world(), cluster.now + timedelta(seconds=seconds), cluster.policy)
    assert load.quiet == 10
    assert plan.changes == ()
    assert plan.status is None or "unloadedAt" not in plan.status["start"]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["rest", "rest", "work", "silent", "start", "restart"]), st.integers(1, 40)),
        max_size=25,
    ),
    cut_off_after=st.integers(0, 3),
)
def test_whatever_happens_it_is_unloaded_in_time_and_never_early(
    steps: list[tuple[str, int]], cut_off_after: int
) -> None:
    cluster = Simulation(**IDLE)
    cluster.annotate(start="0")
    become_ready(cluster)
    used, done = cluster.now, 0
    for number, (kind, seconds) in enumerate(steps):
        cluster.now += timedelta(seconds=seconds)
        if kind == "work":
            done, used = done + 1, cluster.now
        elif kind == "start":
            cluster.annotate(start=f"{number}")
            used = cluster.now
        elif kind == "restart":
            cluster.reconcile(cut_off_after=cut_off_after)
        cluster.look(None if kind == "silent" else Reading(kind == "work", 0, done))
        cluster.reconcile()
        if is_unloaded(cluster):
            assert (cluster.now - used).total_seconds() >= AFTER
            return
    for _ in range(2):
        cluster.now += timedelta(seconds=AFTER)
        cluster.look(Reading(0, 0, done))
        cluster.reconcile()
    assert is_unloaded(cluster)


# ---- what cannot be seen -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (MEASURED, ""),
        ({}, "custom.metrics"),
        ({"backend": "ollama", "serving": None, "custom": None, "source": {"uri": "ollama://a:1"}}, "ollama"),
        ({"backend": "llamacpp", "serving": None, "custom": None, "source": {"uri": "pvc://c/a.gguf"}}, ""),
    ],
)
def test_a_person_is_told_when_nothing_tells_whether_a_model_is_idle(spec: dict[str, Any], said: str) -> None:
    wishes = builders.spec(state="OnDemand", idle={"after": "1m"}, **spec)
    model = ModelSpec.model_validate({field: value for field, value in wishes.items() if value is not None})
    note = idle_note(model)
    assert said in note
    assert bool(said) == bool(note)
    assert idle_note(model.model_copy(update={"idle": None})) == ""


def test_the_condition_accepted_says_so() -> None:
    cluster = Simulation(state="OnDemand", idle={"after": "1m"})
    cluster.settle()
    accepted = next(c for c in cluster.status["conditions"] if c["type"] == "Accepted")
    assert "idle.after has no effect" in accepted["message"]
