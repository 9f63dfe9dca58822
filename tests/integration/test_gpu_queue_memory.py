"""GPU memory as agents measure it, and updates that have to wait for it. The test plays the agents."""

from collections.abc import Callable
from typing import Any

import pytest

from support.gpu_fleet import Pool, gpu
from support.kube import eventually

pytestmark = pytest.mark.control_plane
PoolOf = Callable[..., Pool]


def test_a_foreign_process_holds_up_the_queue_until_it_frees_its_memory(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=1)
    (node,) = pool.nodes
    pool.report(node, gpu(foreign=70000))
    table = pool.fleet.cluster.kubectl("get", "gpunodes", node).stdout
    assert "68.4/78.1 GiB" in table
    pool.apply(pool.model("m"))
    waiting = pool.wait("m", "Queued", "WaitingForMemory")["queue"]
    assert waiting["message"] == f"needs 20000 MiB on a GPU; {node} has 9488 MiB free on its fullest candidate GPU"
    pool.report(node, gpu(foreign=50000))
    pool.wait("m", "Ready")
    pool.report(node, gpu(foreign=50000, pods=[(pool.pod("m"), 19000)]))
    eventually(lambda: pool.status("m")["gpu"].get("measuredMiB") == 19000, 40, "what was measured")
    assert pool.status("m")["gpu"]["requiredMiB"] == 20000


def test_an_update_of_the_only_gpu_waits_until_its_memory_is_free(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=1)
    (node,) = pool.nodes
    pool.report(node, gpu())
    pool.apply(pool.model("m"))
    pool.wait("m", "Ready")
    before = pool.pod("m")
    pool.report(node, gpu(pods=[(before, 60000)]))
    pool.apply(pool.model("rival", priority=200, memory="70000Mi"), pool.model("younger"))
    pool.wait("younger", "Queued")
    pool.patch("m", {"priority": 300})
    pool.patch("m", {"serving": {"image": "registry.invalid/server:2"}})
    eventually(lambda: not pool.pods("m"), 60, "the old server has ended")
    pool.report(node, gpu(60000))  # the process is gone, its memory is not
    pool.wait("m", "Queued", "WaitingForRelease")
    pool.stays_queued("m", 1.5)
    pool.report(node, gpu())
    pool.wait("m", "Ready")
    after = pool.pod("m")
    assert after["spec"]["containers"][0]["image"].endswith(":2")
    assert "RolloutBegins" in pool.events("m")
    assert {pool.status(name)["phase"] for name in ("rival", "younger")} == {"Queued"}


def test_an_update_runs_beside_the_old_server_where_a_gpu_is_free(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=2)
    pool.apply(pool.model("m", by_hand=True))
    old = pool.pod("m")
    pool.serve(old)
    pool.wait("m", "Ready")
    pool.patch("m", {"serving": {"image": "registry.invalid/server:2"}})

    def beside() -> dict[str, Any]:
        new = [pod for pod in pool.pods("m") if pod["metadata"]["uid"] != old["metadata"]["uid"]]
        assert len(new) == 1
        assert new[0]["spec"].get("nodeName")
        return new[0]

    new = eventually(beside, 40, "a new server beside the old one")
    status = pool.wait("m", "Updating")
    assert (status["readyReplicas"], status["replicas"]) == (1, 2)
    pool.serve(new)
    eventually(lambda: _is_ending(pool, old), 30, "the old one ends")
    pool.drop_pod(old["metadata"]["name"])
    pool.wait("m", "Ready")


def _is_ending(pool: Pool, pod: dict[str, Any]) -> bool:
    name = pod["metadata"]["name"]
    return any(one["metadata"]["name"] == name and "deletionTimestamp" in one["metadata"] for one in pool.pods("m"))


def test_models_share_a_gpu_as_far_as_its_memory_goes(pool_of: PoolOf) -> None:
    pool = pool_of(gpus=4, labels={"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.count": "1"})
    (node,) = pool.nodes

    def sharing(name: str) -> dict[str, Any]:
        shared = pool.model(name, sharing="Shared", memory="24000Mi")
        shared["spec"] |= {"backend": "vllm", "source": {"uri": "oci://registry.invalid/weights:1"}}
        del shared["spec"]["custom"]
        return shared

    for name in ("a", "b", "c"):
        pool.apply(sharing(name))
        pool.wait(name, "Ready")
    flags = pool.pod("a")["spec"]["containers"][0]["args"]
    assert flags[flags.index("--gpu-memory-utilization") + 1] == "0.3"
    pool.apply(sharing("d"))
    waiting = pool.wait("d", "Queued", "WaitingForMemory")["queue"]
    assert waiting["message"].startswith(f"needs 24000 MiB of a shared GPU; {node} has 7488 MiB free")
    pool.apply(pool.model("e", sharing="Shared"))
    assert "set gpus.sharing to Exclusive" in pool.wait("e", "Failed", "SharingUnavailable")["queue"]["message"]
