"""Selectors first: no server is told to end while its Service sends it requests."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given

from berth.planning import names
from berth.planning.closing import CLOSED_SECONDS
from berth.planning.plan import Apply, Delete, Plan
from berth.planning.world import Refusal
from support import builders
from support.simulation import KEY, Simulation, ready
from unit.planning.test_model_plan import act, actions


class Guarded(Simulation):
    """A cluster in which it is a mistake to empty a Deployment behind an open Service."""

    def carry_out(self, change: Apply | Delete) -> None:
        """One write to a child."""
        if isinstance(change, Apply) and change.manifest["kind"] == "Deployment":
            before = self.objects.get(("Deployment", "m"), {"spec": {"replicas": 0}})["spec"]["replicas"]
            answering = [pod for pod in self.pods() if ready(pod) and "deletionTimestamp" not in pod["metadata"]]
            if before and answering and change.manifest["spec"]["replicas"] == 0:
                assert self.closed_for() >= CLOSED_SECONDS
        super().carry_out(change)

    def closed_for(self) -> float:
        """Seconds since the Service stopped sending requests; less than nothing while it sends them."""
        service = self.objects["Service", "m"]
        if names.CLOSED_LABEL not in service["spec"]["selector"]:
            return -1
        since = service["metadata"]["annotations"][names.CLOSED_SINCE_ANNOTATION]
        return (self.now - self.now.fromisoformat(since)).total_seconds()


@pytest.fixture
def serving() -> Guarded:
    """A cluster whose Model is Ready."""
    cluster = Guarded()
    cluster.settle()
    assert (cluster.status["phase"], cluster.closed_for()) == ("Ready", -1)
    return cluster


def kinds(plan: Plan) -> list[str]:
    return sorted(change.manifest["kind"] for change in plan.changes if isinstance(change, Apply))


def stop(cluster: Simulation) -> Plan:
    cluster.edit(state="Stopped")
    return cluster.reconcile()


def test_the_service_is_closed_first_and_the_servers_two_seconds_later(serving: Guarded) -> None:
    plan = stop(serving)
    assert (kinds(plan), plan.look_again) == (["Service"], CLOSED_SECONDS)
    serving.now += timedelta(seconds=CLOSED_SECONDS - 0.1)
    assert kinds(serving.reconcile()) == []
    serving.now += timedelta(seconds=0.1)
    assert kinds(serving.reconcile()) == ["Deployment"]
    assert serving.deployment["spec"]["replicas"] == 0


def test_a_model_whose_service_is_closed_is_draining_and_not_available(serving: Guarded) -> None:
    stop(serving)
    conditions = {c["type"]: c["status"] for c in serving.status["conditions"]}
    assert (serving.status["phase"], conditions["Available"]) == ("Draining", "False")


def test_a_server_that_is_replaced_in_place_is_draining_as_soon_as_nobody_reaches_it(serving: Guarded) -> None:
    serving.edit(serving={"image": "server:2"})
    serving.reconcile()
    assert (serving.status["phase"], serving.deployment["spec"]["replicas"]) == ("Draining", 1)
    serving.settle()
    assert (serving.status["phase"], serving.closed_for()) == ("Ready", -1)


def test_a_stopped_model_costs_no_writes(serving: Guarded) -> None:
    stop(serving)
    serving.settle()
    assert serving.status["phase"] == "Stopped"
    for _ in range(3):
        serving.now += timedelta(hours=1)
        serving.restart()
        assert serving.plan() == Plan()
    serving.now -= timedelta(days=1)
    assert serving.plan() == Plan(), "nor when the clock is set back"


def test_the_service_opens_with_the_start(serving: Guarded) -> None:
    stop(serving)
    serving.settle()
    serving.edit(state="Running")
    assert kinds(serving.reconcile()) == ["Deployment", "Service"]
    assert serving.closed_for() == -1


def test_who_changes_his_mind_in_time_loses_nothing(serving: Guarded) -> None:
    (pod,) = serving.pods()
    stop(serving)
    serving.edit(state="Running")
    assert kinds(serving.reconcile()) == ["Service"]
    serving.settle()
    assert (serving.pods(), serving.status["phase"]) == ([pod], "Ready")


def test_another_process_goes_on_where_the_first_was(serving: Guarded) -> None:
    stop(serving)
    serving.now += timedelta(seconds=1.5)
    serving.restart()
    plan = serving.plan()
    assert (plan.changes, plan.look_again) == ((), pytest.approx(0.5))


def test_a_service_that_somebody_opens_meanwhile_is_closed_for_the_whole_time_again(serving: Guarded) -> None:
    stop(serving)
    serving.now += timedelta(seconds=1.5)
    service = serving.objects["Service", "m"]
    serving.keep({**service, "spec": {**service["spec"], "selector": names.server_selector("m")}})
    plan = serving.reconcile()
    assert (kinds(plan), plan.look_again) == (["Service"], CLOSED_SECONDS)


def test_a_clock_that_was_set_back_makes_the_wait_begin_anew(serving: Guarded) -> None:
    stop(serving)
    serving.now -= timedelta(hours=1)
    plan = serving.reconcile()
    assert (kinds(plan), plan.look_again) == (["Service"], CLOSED_SECONDS)


@pytest.mark.parametrize("written", ["", "soon", "2026-01-01T12:00:00"])
def test_a_time_that_nobody_can_read_makes_the_wait_begin_anew(serving: Guarded, written: str) -> None:
    stop(serving)
    service = serving.objects["Service", "m"]
    annotations = service["metadata"]["annotations"] | {names.CLOSED_SINCE_ANNOTATION: written}
    serving.keep({**service, "metadata": {**service["metadata"], "annotations": annotations}})
    assert serving.reconcile().look_again == CLOSED_SECONDS
    serving.settle()
    assert serving.status["phase"] == "Stopped"


def test_nothing_is_waited_for_when_nobody_answers() -> None:
    cluster = Simulation()
    cluster.reconcile()
    cluster.roll_out()
    assert kinds(stop(cluster)) == ["Deployment", "Service"]


@pytest.mark.parametrize("change", [{"ownerReferences": []}, {"deletionTimestamp": builders.ago()}])
def test_a_service_that_is_not_ours_to_close_holds_up_no_stop(change: dict[str, Any]) -> None:
    cluster = Simulation()
    cluster.settle()
    service = cluster.objects["Service", "m"]
    cluster.keep({**service, "metadata": {**service["metadata"], **change}})
    assert "Deployment" in kinds(stop(cluster))


def test_a_service_that_the_api_server_refuses_to_close_holds_up_no_stop() -> None:
    cluster = Simulation()
    cluster.settle()
    cluster.edit(state="Stopped")
    for _ in range(2):
        closed = next(c for c in cluster.plan().changes if isinstance(c, Apply) and c.manifest["kind"] == "Service")
        digest = closed.manifest["metadata"]["annotations"][names.APPLIED_ANNOTATION]
        refusal = Refusal("Service", "m", "Forbidden", "a policy forbids it", digest, cluster.now)
        cluster.store.memories.refuse(KEY, refusal)
        cluster.now += timedelta(seconds=1)
    assert kinds(cluster.plan()) == ["Deployment"], "and the Service is not tried again at once"


@given(actions)
def test_whatever_happens_no_server_is_stopped_behind_an_open_service(happenings: list[tuple[str, int]]) -> None:
    cluster = Guarded()
    for what, number in happenings:
        act(cluster, what, number)
    cluster.settle()
    assert (cluster.closed_for() == -1) == (cluster.deployment["spec"]["replicas"] > 0)
