"""Which nodes there are, who else is on them, and what that means for the queue. On a real API server and scheduler."""

from collections.abc import Callable
from typing import Any

import pytest

from support.gpu_fleet import GPU, Pool
from support.kube import eventually
from support.watchman import Watchman

pytestmark = pytest.mark.control_plane
PoolOf = Callable[..., Pool]


def test_what_no_node_can_ever_hold_stalls_after_a_while_and_goes_on_when_one_appears(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=2)
    pool.apply(pool.model("m", 4))
    waiting = pool.wait("m", "Queued", "NoNodeFits")["queue"]
    assert waiting["message"].startswith("needs 20000 MiB on each of 4 GPUs; ")
    assert f"{pool.nodes[0]} offers 2" in waiting["message"]
    stalled = pool.wait("m", "Failed", "NoNodeFits")
    conditions = {c["type"]: (c["status"], c["reason"]) for c in stalled["conditions"]}
    assert conditions["Stalled"] == ("True", "NoNodeFits")
    assert "Reconciling" not in conditions
    assert "position" not in stalled["queue"]
    pool.add_node(4)
    pool.wait("m", "Ready")


def test_a_cordoned_node_gets_nothing_until_it_is_uncordoned(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=1)
    pool.cordon(pool.nodes[0])
    pool.apply(pool.model("m"))
    assert "cordoned" in pool.wait("m", "Queued", "WaitingForNode")["queue"]["message"]
    pool.cordon(pool.nodes[0], False)
    pool.wait("m", "Ready")


def test_a_model_whose_node_is_deleted_goes_to_another_one(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=1)
    pool.apply(pool.model("m"))
    pool.wait("m", "Ready")
    lost = pool.pod("m")
    pool.drop_node(pool.nodes[0])
    pool.drop_pod(lost["metadata"]["name"])  # the garbage collector of Pods does it within a minute
    pool.wait("m", "Queued", "NoNodeFits")
    pool.add_node(1)
    pool.wait("m", "Ready")
    assert pool.pod("m")["spec"]["nodeName"] == pool.nodes[0]


def test_gpus_of_other_pods_are_taken(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=2)
    pool.foreign_pod("theirs", node=pool.nodes[0])
    pool.apply(pool.model("m", 2))
    waiting = pool.wait("m", "Queued", "WaitingForGPU")["queue"]
    assert f"{pool.nodes[0]} has 1 of 2 {GPU} unallocated" in waiting["message"]
    pool.drop_pod("theirs")
    pool.wait("m", "Ready")


def test_a_pod_of_others_that_is_about_to_be_placed_counts_unless_models_go_first(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=1)
    nobody = {"schedulerName": "nobody"}  # so it stays as it is in the moment before it is bound
    pool.foreign_pod("theirs", **nobody)
    pool.apply(pool.model("m"))
    pool.wait("m", "Queued", "WaitingForGPU")
    pool.drop_pod("theirs")
    pool.wait("m", "Ready")
    pool.delete("m")
    eventually(lambda: not pool.pods("m"), 30, "m is gone")
    with pool.priority_class(-10) as low:
        pool.foreign_pod("theirs-low", **nobody, priorityClassName=low)
        pool.foreign_pod("theirs-gated", **nobody, schedulingGates=[{"name": "example.com/quota"}])
        pool.apply(pool.model("n"))
        pool.wait("n", "Ready")


def test_few_autoscaled_models_ask_for_new_nodes_at_once(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=1)
    pool.apply(pool.model("first", priority=500))
    pool.wait("first", "Ready")
    pool.apply(*(pool.model(f"m{number:02}", nodes="Autoscaled") for number in range(12)))

    def asking() -> bool:
        reasons = [status.get("queue", {}).get("reason") for status in pool.statuses().values()]
        assert reasons.count("WaitingForNode") == 10
        assert reasons.count("WaitingForGPU") == 2
        pods = [pod for number in range(12) for pod in pool.pods(f"m{number:02}")]
        assert len(pods) == 10
        return all(_is_unschedulable(pod) for pod in pods)

    eventually(asking, 60, "ten Pods that a cluster autoscaler sees")
    pool.delete("first")  # its GPU is for the first in the queue, who asked for a new node in vain
    eventually(lambda: len(pool.phases().get("Ready", ())) == 1, 40, "one is ready on the node that there is")
    pool.add_node(4)
    eventually(lambda: len(pool.phases().get("Ready", ())) == 5, 60, "the new node is used")


def _is_unschedulable(pod: dict[str, Any]) -> bool:
    return any(c.get("reason") == "Unschedulable" for c in pod["status"].get("conditions", ()))


def test_mig_devices_are_counted_for_themselves(pool_of: PoolOf) -> None:
    resource = "nvidia.com/mig-1g.10gb"
    pool = pool_of(gpus=2, resource=resource, labels={f"{resource}.memory": "9984"})
    pool.apply(*(pool.model(name, resource=resource, memory="6000Mi", priority=p) for name, p in (("a", 9), ("b", 8))))
    pool.apply(pool.model("large", resource=resource, memory="12000Mi", priority=1))
    pool.wait("a", "Ready")
    pool.wait("b", "Ready")
    assert "has 9472 MiB to give" in pool.wait("large", "Failed", "NoNodeFits")["queue"]["message"]
    pool.apply(pool.model("c", resource=resource, memory="6000Mi", priority=1))
    assert "0 of 2 nvidia.com/mig-1g.10gb" in pool.wait("c", "Queued", "WaitingForGPU")["queue"]["message"]


def test_replicas_beyond_what_fits_wait_for_themselves(pool_of: PoolOf) -> None:
    pool = pool_of(nodes=2, gpus=2)
    pool.apply(pool.model("m", replicas=2))
    pool.wait("m", "Ready")
    with Watchman(pool):
        pool.scale("m", 6)
        status = pool.wait("m", "Updating", "WaitingForGPU")
        status = eventually(lambda: _all_admitted(pool, 4), 60, "four replicas")
    assert (status["admittedReplicas"], status["readyReplicas"], status["ready"]) == (4, 4, "4/6")
    admitted = next(c for c in status["conditions"] if c["type"] == "Admitted")
    assert (admitted["status"], admitted["reason"]) == ("False", "WaitingForGPU")
    assert admitted["message"].startswith("4 of 6 replicas may ask for their GPUs: ")
    pool.scale("m", 3)
    assert "queue" not in pool.wait("m", "Ready")
    eventually(lambda: len(pool.pods("m")) == 3, 30, "three servers")


def _all_admitted(pool: Pool, number: int) -> dict[str, Any]:
    status = pool.status("m")
    assert status["readyReplicas"] == number, status
    return status
