"""Models with GPUs on a real node: weights arrive, memory is estimated from them, and who has no place waits its turn.

The GPUs are numbers of a device plugin; the servers are real and run on the CPU.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinymodel
from conftest import LLAMA_IMAGE
from support.caches import cache
from support.kube import Cluster, eventually
from support.misbehaving_server import MisbehavingServer
from support.models import Served, patch, pods, wait_for_phase
from support.operator_process import OperatorProcess, grant
from support.servers import llama

pytestmark = pytest.mark.cluster

GPUS = 4
"""What the node has."""


@pytest.fixture
def everywhere(gpu_node_cluster: Cluster, tmp_path: Path) -> Iterator[Served]:
    """An operator that serves a whole cluster, and so plans who gets the GPUs; and a namespace."""
    from localcluster import api, images

    where = gpu_node_cluster
    for archive in (images.berth(), images.llama_server()):
        api.load_image(where.name, archive)
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    where.kubectl("create", "namespace", namespace)
    eventually(lambda: where.get("serviceaccount", "default", namespace), 30, "the ServiceAccount")
    grant(where, namespace, everywhere=True)
    flags = ("--image", f"llamacpp={LLAMA_IMAGE}", "--provisioner-image", images.BERTH_IMAGE)
    operator = OperatorProcess(where, namespace, tmp_path, *flags, everywhere=True)
    try:
        yield Served(where, namespace, operator.start())
    finally:
        operator.stop()
        where.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def hub(everywhere: Served, tmp_path: Path) -> Iterator[MisbehavingServer]:
    """A hub with a tiny model that Pods of the node reach."""
    from localcluster import api

    weights = tmp_path / "tiny.gguf"
    tinymodel.write(weights)
    with MisbehavingServer(host=api.status(everywhere.cluster.name)["addresses"]["host"]) as server:
        server.put_repository("org/tiny", {"tiny.gguf": weights.read_bytes()}, lfs=("tiny.gguf",))
        yield server


def test_who_has_no_gpu_waits_says_so_and_loads_once_another_has_left(
    everywhere: Served, hub: MisbehavingServer
) -> None:
    where, namespace = everywhere.cluster, everywhere.namespace
    models = [llama(name, source={"uri": "hf://org/tiny", "cache": "weights"}) for name in ("first", "second")]
    for model, count in zip(models, (GPUS, 1), strict=True):
        model["spec"]["gpus"] = {"count": count}
    where.apply(cache("weights", hub.url), models[0], namespace=namespace)
    first = wait_for_phase(where, namespace, "first", "Ready", 120)["status"]
    assert first["gpu"]["source"] == "Estimated"
    assert first["gpu"]["requiredMiB"] > 1000  # what llama.cpp leaves free is a part of it
    assert first["admittedReplicas"] == 1
    assert {"queuedAt", "provisionedAt", "admittedAt", "startedAt", "readyAt"} <= first["timeline"].keys()

    where.apply(models[1], namespace=namespace)
    second = wait_for_phase(where, namespace, "second", "Queued", 60)["status"]
    assert (second["queue"]["reason"], second["queue"]["position"]) == ("WaitingForGPU", "1")
    assert f"0 of {GPUS} nvidia.com/gpu unallocated" in second["queue"]["message"]
    assert pods(where, namespace, "second") == []

    patch(where, namespace, "first", {"spec": {"state": "Stopped"}})
    wait_for_phase(where, namespace, "second", "Ready", 120)
    (pod,) = pods(where, namespace, "second")
    assert "schedulingGates" not in pod["spec"]
    assert where.get("model", "first", namespace)["status"]["phase"] == "Stopped"  # type: ignore[index]
