"""When a start begins and what it took: told once for each, and never for what is no start."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from berth.planning.plan import Plan, StartTimes
from berth.planning.starting import START_ANNOTATION
from berth.planning.timeline import finished_start
from berth.planning.times import parse_time
from support import builders
from support.simulation import Simulation


class Recording(Simulation):
    """A simulation that keeps the plans that were carried out."""

    def __init__(self, **spec: Any) -> None:
        self.plans: list[Plan] = []
        super().__init__(**spec)

    def reconcile(self, cut_off_after: int | None = None) -> Plan:
        plan = super().reconcile(cut_off_after)
        self.plans.append(plan)
        return plan

    @property
    def starts(self) -> list[StartTimes]:
        """What a metric would have counted."""
        return [plan.start for plan in self.plans if plan.start is not None]

    def at(self, step: str) -> datetime:
        """A time of the timeline."""
        moment = parse_time(self.status["timeline"][step])
        assert moment is not None
        return moment

    def sees(self, *, ready: bool, running_for: float, changed_before: float) -> None:
        """The kubelet tells of the server of the only Pod; times are seconds before now."""
        (pod,) = self.pods()
        labels, since = pod["metadata"]["labels"], -self.elapsed()
        server = builders.container(running_for=running_for + since, started=True, ready=ready)
        shape = builders.serving_pod if ready else builders.pod
        self.keep(
            shape(
                pod["metadata"]["name"],
                template=labels["berth.dev/template-hash"],
                **{"phase": "Running", "node": "n1", "ready_changed": changed_before + since, "containers": (server,)},
            )
        )
        self.reconcile()


@pytest.fixture
def cluster() -> Recording:
    found = Recording(gpus={"count": 1})
    found.settle()
    assert found.status["phase"] == "Ready"
    found.now += timedelta(hours=1)
    return found


# ---- what begins a start ---------------------------------------------------------------------------------------


def test_a_new_model_is_one_start(cluster: Recording) -> None:
    (start,) = cluster.starts
    assert start.whole == (cluster.at("readyAt") - builders.NOW).total_seconds() > 0
    assert set(start.parts) == {"creating", "loading"}
    assert sum(start.parts.values()) == start.whole


def test_a_wake_up_is_a_start_of_its_own() -> None:
    cluster = Recording(state="OnDemand")
    cluster.settle()
    assert cluster.starts == []
    cluster.now += timedelta(hours=1)
    woken = cluster.now
    cluster.keep({**cluster.model, "metadata": {**cluster.model["metadata"], "annotations": {START_ANNOTATION: "me"}}})
    cluster.settle()
    assert cluster.at("queuedAt") > woken
    assert len(cluster.starts) == 1
    assert cluster.starts[0].whole < 60


def test_a_restart_in_place_is_a_start_once_the_old_server_is_gone(cluster: Recording) -> None:
    asked = cluster.now
    cluster.edit(serving={"image": "server:2"})
    cluster.settle()
    assert cluster.at("queuedAt") > asked
    assert cluster.at("queuedAt") < cluster.at("startedAt") < cluster.at("readyAt")
    assert len(cluster.starts) == 2


def test_a_server_that_crashed_and_answers_again_was_started(cluster: Recording) -> None:
    crashed = cluster.now
    cluster.crash(1)
    cluster.reconcile()
    assert cluster.status["phase"] == "Degraded"
    cluster.now += timedelta(seconds=20)
    cluster.sees(ready=False, running_for=10, changed_before=20)
    cluster.now += timedelta(seconds=10)
    cluster.sees(ready=True, running_for=20, changed_before=0)
    assert cluster.status["phase"] == "Ready"
    assert cluster.at("queuedAt") == crashed
    assert cluster.starts[1:] == [StartTimes(30, {"creating": 10, "loading": 20})]


def test_a_server_that_came_back_between_two_looks_was_started(cluster: Recording) -> None:
    cluster.sees(ready=False, running_for=0, changed_before=1)
    cluster.now += timedelta(seconds=10)
    cluster.sees(ready=True, running_for=10, changed_before=0)
    assert [start.whole for start in cluster.starts[1:]] == [10]


def test_a_model_that_was_given_up_starts_anew_with_the_next_generation(cluster: Recording) -> None:
    cluster.crash(9)
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
    given_up = cluster.now
    cluster.edit(serving={"image": "server:2"})
    cluster.settle()
    assert cluster.at("queuedAt") > given_up
    assert len(cluster.starts) == 2


def test_a_start_that_nobody_saw_began_with_its_pod(cluster: Recording) -> None:
    cluster.edit(state="Stopped")
    cluster.settle()
    cluster.edit(state="Running")
    cluster.now += timedelta(seconds=5)
    for change in cluster.plan().changes:
        cluster.carry_out(change)
    made = cluster.now
    for _ in range(5):
        cluster.now += timedelta(seconds=5)
        cluster.roll_out()
        for pod in cluster.pods():
            cluster.run_pod(pod)
    back = cluster.now
    cluster.restart()
    cluster.settle()
    assert made < cluster.at("queuedAt") < back
    assert len(cluster.starts) == 2


# ---- what is no start ------------------------------------------------------------------------------------------


def test_a_missed_probe_is_no_start(cluster: Recording) -> None:
    before = cluster.status["timeline"]
    cluster.sees(ready=False, running_for=3600, changed_before=1)
    assert cluster.status["phase"] == "Degraded"
    cluster.now += timedelta(seconds=5)
    cluster.sees(ready=True, running_for=3605, changed_before=0)
    assert cluster.status["phase"] == "Ready"
    assert cluster.status["timeline"] == before
    assert len(cluster.starts) == 1


def test_a_rollout_beside_a_server_that_answers_is_no_start() -> None:
    cluster = Recording(gpus={"count": 0})
    cluster.settle()
    before = cluster.status["timeline"]
    cluster.edit(serving={"image": "server:2"})
    cluster.settle()
    assert cluster.status["timeline"] == before
    assert len(cluster.starts) == 1


def test_a_mistake_that_is_corrected_while_the_server_answers_is_no_start() -> None:
    cluster = Recording(gpus={"count": 0})
    cluster.settle()
    cluster.edit(serving={"image": "server:2"})
    cluster.settle()
    before = cluster.status["timeline"]
    broken = {"podTemplate": {"spec": {"hostNetwork": True}}}
    cluster.edit(**broken)
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
    cluster.edit(podTemplate=None)
    cluster.settle()
    assert cluster.status["phase"] == "Ready"
    assert cluster.status["timeline"] == before


def test_another_process_counts_no_start_again(cluster: Recording) -> None:
    cluster.restart()
    cluster.settle()
    assert len(cluster.starts) == 1


# ---- the parts of a start --------------------------------------------------------------------------------------


def test_the_parts_follow_the_order_in_which_the_steps_were_reached() -> None:
    steps = {
        "queuedAt": "2026-01-01T12:00:00Z",
        "admittedAt": "2026-01-01T12:00:07Z",
        "provisionedAt": "2026-01-01T12:01:00Z",
        "startedAt": "2026-01-01T12:01:00Z",
        "readyAt": "2026-01-01T12:01:30Z",
    }
    start = finished_start({}, {"timeline": steps})
    assert start == StartTimes(90, {"queued": 7, "provisioning": 53, "creating": 0, "loading": 30})


# ---- phases ----------------------------------------------------------------------------------------------------


def test_a_transition_says_how_long_the_phase_before_it_lasted(cluster: Recording) -> None:
    ready_since = parse_time(cluster.status["phaseSince"])
    assert ready_since is not None
    cluster.edit(state="Stopped")
    plan = cluster.reconcile()
    assert plan.transition == ("Ready", "Draining", "StoppedByUser")
    assert plan.phase_seconds == (cluster.now - ready_since).total_seconds()
    assert parse_time(cluster.status["phaseSince"]) == cluster.now


def test_a_phase_that_was_written_without_its_time_lasts_for_an_unknown_time(cluster: Recording) -> None:
    cluster.status.pop("phaseSince")
    cluster.restart()
    assert cluster.plan().status is None, "no write only to say since when"
    cluster.edit(state="Stopped")
    assert cluster.plan().phase_seconds is None
