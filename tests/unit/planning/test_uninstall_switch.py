"""Berth is uninstalled with the wish to stop all Models: they stop as for any other reason, and come back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.plan import Delete, Plan
from berth.planning.uninstalling import MISSING_SECONDS, asks_to_stop, remaining
from support import builders
from support.simulation import Simulation
from unit.planning.test_closing import Guarded


def serving(**spec: Any) -> Guarded:
    cluster = Guarded(**spec)
    cluster.settle()
    assert cluster.status["phase"] == "Ready"
    return cluster


def ready(cluster: Simulation) -> tuple[str, str]:
    condition = next(c for c in cluster.status["conditions"] if c["type"] == "Ready")
    return condition["status"], condition["reason"]


def uninstall(cluster: Simulation, asked: bool | None = True) -> None:
    cluster.store.uninstall(asked)
    cluster.settle()


# ---- the switch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "asked"),
    [({"stopModels": "true"}, True), ({"stopModels": " True\n"}, True), ({"stopModels": "false"}, False), ({}, False)],
)
def test_the_config_map_asks_to_stop_by_one_key(data: dict[str, str], asked: bool) -> None:
    assert asks_to_stop({"data": data}) is asked
    assert asks_to_stop({}) is False


def test_a_config_map_that_has_just_gone_says_nothing_and_one_that_stays_away_says_no() -> None:
    assert asks_to_stop(None, 0) is None
    assert asks_to_stop(None, MISSING_SECONDS) is False


# ---- a Model -------------------------------------------------------------------------------------------------


def test_a_model_is_drained_and_stopped_and_says_why() -> None:
    cluster = serving()
    uninstall(cluster)
    assert (cluster.status["phase"], ready(cluster)) == ("Stopped", ("True", "OperatorUninstalling"))
    assert cluster.pods() == []
    assert cluster.plan() == Plan()


def test_it_starts_again_when_berth_is_back() -> None:
    cluster = serving(replicas=2)
    before = cluster.ending()
    uninstall(cluster)
    uninstall(cluster, False)
    assert cluster.ending() == before


def test_a_model_that_was_stopped_by_somebody_stays_what_it_is() -> None:
    cluster = Simulation(state="Stopped")
    cluster.settle()
    writes = cluster.writes
    uninstall(cluster)
    assert (cluster.writes, ready(cluster)[1]) == (writes, "StoppedByUser")


def test_a_new_model_gets_no_server_meanwhile() -> None:
    cluster = Simulation()
    uninstall(cluster)
    assert (cluster.status["phase"], cluster.pods_made) == ("Stopped", 0)


def test_what_is_stopped_starts_not_once_more_when_the_wish_is_removed_before_the_operator() -> None:
    cluster = serving()
    uninstall(cluster)
    writes = cluster.writes
    uninstall(cluster, None)
    cluster.restart()  # the standby leads for a moment
    cluster.settle()
    assert (cluster.writes, cluster.status["phase"]) == (writes, "Stopped")


def test_an_operator_that_finds_no_config_map_goes_on_as_ever() -> None:
    cluster = serving()
    writes = cluster.writes
    uninstall(cluster, None)
    assert (cluster.writes, cluster.status["phase"]) == (writes, "Ready")


def test_servers_of_a_spec_that_cannot_be_carried_out_go_with_their_deployment() -> None:
    cluster = serving()
    cluster.edit(podTemplate={"spec": {"nodeName": "n1"}})
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert len(cluster.pods()) == 1
    cluster.store.uninstall(True)
    gone = cluster.plan().changes
    assert [change.kind for change in gone if isinstance(change, Delete)] == ["Service", "Deployment"]
    cluster.reconcile()
    assert cluster.plan().changes == ()


def test_only_a_change_of_the_wish_has_models_looked_at() -> None:
    cluster = Simulation()
    assert len(cluster.store.uninstall(False)) == 1
    assert cluster.store.uninstall(False) == ()


@given(st.lists(st.sampled_from([True, False, None]), max_size=6), st.booleans())
def test_however_often_minds_change_the_last_wish_holds(wishes: list[bool | None], last: bool) -> None:
    cluster = Guarded()
    for wish in wishes:
        cluster.store.uninstall(wish)
        cluster.reconcile()
        cluster.roll_out()
        for pod in cluster.pods():
            cluster.run_pod(pod)
    uninstall(cluster, last)
    assert cluster.status["phase"] == ("Stopped" if last else "Ready")
    assert len(cluster.pods()) == (0 if last else 1)


# ---- waiting for all of them ---------------------------------------------------------------------------------


def model(name: str, phase: str, **more: Any) -> dict[str, Any]:
    return builders.model(name, status={"phase": phase, **more})


def test_a_line_says_how_many_are_stopped_and_names_the_others() -> None:
    models = [model("b", "Draining"), model("a", "Ready"), model("c", "Stopped")]
    assert str(remaining(models)) == "1 of 3 Models are stopped; left: models/a (Ready), models/b (Draining)"


def test_of_many_a_line_names_five() -> None:
    line = str(remaining(model(f"m{number}", "Draining") for number in range(9)))
    assert line.endswith("models/m4 (Draining) and 4 more")


def test_nothing_is_left_when_no_model_is_there() -> None:
    assert str(remaining([])) == "0 of 0 Models are stopped"


def test_what_failed_has_stopped_once_it_has_no_server() -> None:
    assert remaining([model("a", "Failed", replicas=0)]).left == ()
    assert remaining([model("a", "Failed", replicas=1)]).left == ("models/a (Failed)",)


def test_a_model_that_nobody_has_looked_at_may_still_start() -> None:
    assert remaining([builders.model("new")]).left == ("models/new (Pending)",)


def test_models_that_are_being_deleted_are_not_waited_for() -> None:
    assert remaining([builders.model("a", deleting=True)]) == remaining([])
