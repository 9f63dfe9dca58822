"""A stop that waits for nobody."""

from typing import Any

from berth.planning import names
from berth.planning.forced_stop import FORCE_STOP_ANNOTATION, hurries
from berth.planning.plan import Hurry, Plan
from berth.planning.pods import pod_from
from support import builders
from support.simulation import Simulation


def annotated(cluster: Simulation) -> None:
    annotations = {FORCE_STOP_ANNOTATION: "now"}
    cluster.keep({**cluster.model, "metadata": {**cluster.model["metadata"], "annotations": annotations}})


def leaving(grace: int = 95, address: str = "", **more: Any) -> dict[str, Any]:
    pod = builders.serving_pod(deleting=True, **more)
    pod["metadata"]["deletionGracePeriodSeconds"] = grace
    pod["status"]["podIP"] = address
    return pod


def test_servers_are_told_to_end_at_once() -> None:
    cluster = Simulation()
    cluster.settle()
    annotated(cluster)
    assert cluster.plan() == Plan(), "a Model that runs goes on"
    cluster.edit(state="Stopped")
    (hurry,) = cluster.plan().hurries
    assert (hurry.name, hurry.grace) == ("p1", 1)
    cluster.reconcile()
    assert cluster.deployment["spec"]["replicas"] == 0, "nothing is waited for"
    cluster.settle()
    assert (cluster.status["phase"], cluster.plan()) == ("Stopped", Plan())


def test_a_drain_that_has_begun_is_cut_short() -> None:
    cluster = Simulation()
    cluster.settle()
    cluster.end(cluster.pods()[0])
    cluster.edit(state="Stopped")
    assert cluster.plan().hurries == ()
    annotated(cluster)
    assert len(cluster.plan().hurries) == 1


def test_a_replacement_drains_all_the_same() -> None:
    cluster = Simulation()
    cluster.settle()
    annotated(cluster)
    cluster.edit(serving={"image": "server:2"})
    cluster.end(cluster.pods()[0])
    assert cluster.plan().hurries == ()


def test_who_has_no_time_left_is_not_hurried_again() -> None:
    pods = [leaving(name="told", grace=1), leaving(name="slow"), builders.pod("over", phase="Failed")]
    assert hurries(map(pod_from, pods), 1) == (Hurry("models", "slow", "pod-slow", 1, ""),)


def test_a_sidecar_that_holds_a_server_back_is_told_by_its_pods_address() -> None:
    sidecar = (builders.container(names.DRAIN_CONTAINER, running_for=50, started=True),)
    pods = [leaving(address=address, init=sidecar) for address in ("10.0.0.1", "fd00::1", "")]
    orders = [hurry.order for hurry in hurries(map(pod_from, pods), 61999)]
    assert orders == ["http://10.0.0.1:61999/skip", "http://[fd00::1]:61999/skip", ""]
