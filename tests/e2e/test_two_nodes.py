"""Where downloads and servers run when there are several nodes: one real, the others simulated.

Pods on a simulated node only say that they run, which is enough to see where the scheduler put them.
"""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tinymodel
from conftest import LLAMA_IMAGE
from support.caches import cache, download_pods, entry, jobs
from support.kube import Cluster, eventually
from support.misbehaving_server import MisbehavingServer
from support.models import Served, pods, pretend_ready, wait_for_phase
from support.operator_process import OperatorProcess, grant
from support.servers import HTTPD, llama, shell

pytestmark = pytest.mark.cluster

TINY = "hf://org/tiny"
ELSEWHERE = "NVIDIA-H100-80GB-HBM3"
"""Product of the GPUs that only the simulated node has."""


@pytest.fixture(scope="module")
def two_nodes(two_node_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A namespace of a cluster with a real and a simulated node, with an operator that serves it."""
    from localcluster import api, images

    api.load_image(two_node_cluster.name, images.berth())
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    two_node_cluster.kubectl("create", "namespace", namespace)
    eventually(lambda: two_node_cluster.get("serviceaccount", "default", namespace), 30, "the ServiceAccount")
    grant(two_node_cluster, namespace)
    folder = tmp_path_factory.mktemp("two-nodes")
    flags = ("--image", f"llamacpp={LLAMA_IMAGE}", "--provisioner-image", images.BERTH_IMAGE, "--download-retry", "2")
    operator = OperatorProcess(two_node_cluster, namespace, folder, *flags)
    try:
        yield Served(two_node_cluster, namespace, operator.start())
    finally:
        operator.stop()
        two_node_cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def hub(two_nodes: Served, tmp_path: Path) -> Iterator[MisbehavingServer]:
    """A hub that Pods of the real node reach."""
    from localcluster import api

    weights = tmp_path / "tiny.gguf"
    tinymodel.write(weights)
    with MisbehavingServer(host=api.status(two_nodes.cluster.name)["addresses"]["host"]) as server:
        server.put_repository("org/tiny", {"tiny.gguf": weights.read_bytes()}, lfs=("tiny.gguf",))
        yield server


@pytest.fixture
def store() -> str:
    """A name for the ModelCache of a test."""
    return f"c-{uuid.uuid4().hex[:8]}"


def volume_without_a_node(served: Served, name: str, folder: Path, mode: str) -> dict[str, Any]:
    """A claim whose volume may be used from any node: nothing but Berth keeps Pods together."""
    folder.mkdir()
    folder.chmod(0o777)
    size = {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": size,
            "accessModes": [mode],
            "storageClassName": name,
            "hostPath": {"path": str(folder), "type": "Directory"},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": served.namespace},
        "spec": {"accessModes": [mode], "storageClassName": name, "resources": {"requests": size}},
    }
    served.cluster.apply(volume, claim)
    return {"claim": name}


def on_node(name: str) -> dict[str, Any]:
    return {"spec": {"nodeSelector": {"kubernetes.io/hostname": name}}}


def rather_simulated() -> dict[str, Any]:
    term = {"matchExpressions": [{"key": "type", "operator": "In", "values": ["kwok"]}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
    return {"spec": {"affinity": {"nodeAffinity": preferred}}}


def node_of(served: Served, model: str) -> str:
    """The node of a Model's Pod, once it has one."""

    def placed() -> str:
        found = pods(served.cluster, served.namespace, model)
        return str(found[0]["spec"].get("nodeName", "")) if found else ""

    return eventually(placed, 60, f"a node for {model}")


def test_a_volume_is_made_where_the_models_gpus_are(two_nodes: Served, store: str, hub: MisbehavingServer) -> None:
    where, namespace = two_nodes.cluster, two_nodes.namespace
    gpus = {"count": 1, "products": [ELSEWHERE]}
    model = llama(f"m-{store}", source={"uri": TINY, "cache": store})
    model["spec"]["gpus"] = gpus
    where.apply(cache(store, hub.url), model, namespace=namespace)

    def selected() -> str:
        claim = where.get("pvc", f"modelcache-{store}", namespace)
        assert claim is not None
        return str(claim["metadata"].get("annotations", {}).get("volume.kubernetes.io/selected-node", ""))

    assert eventually(selected, 60, "a node for the volume").startswith("simulated-")
    where.kubectl("-n", namespace, "delete", "model", f"m-{store}", "--wait=false")
    where.kubectl("-n", namespace, "delete", "modelcache", store, "--wait=false")


def test_a_volume_is_not_made_before_a_node_has_the_models_gpus(
    two_nodes: Served, store: str, hub: MisbehavingServer
) -> None:
    from localcluster import api

    where, namespace = two_nodes.cluster, two_nodes.namespace
    model = llama(f"m-{store}", source={"uri": TINY, "cache": store})
    model["spec"]["gpus"] = {"count": 2, "products": ["NVIDIA-L40S"]}
    where.apply(cache(store, hub.url), model, namespace=namespace)

    def waiting() -> bool:
        found = entry(where, namespace, store, TINY)
        return found.get("reason") == "WaitingForNode" and "nvidia.com/gpu" in found["message"]

    eventually(waiting, 40, "WaitingForNode")
    assert jobs(where, namespace, store) == []
    (added,) = api.add_nodes(where.name, 1, gpus=2, product="NVIDIA-L40S", memory=46068)
    try:

        def placed() -> set[str]:
            return {pod["spec"].get("nodeName", "") for pod in download_pods(where, namespace, store)} - {""}

        assert eventually(placed, 40, "a node for the download") == {added}
    finally:
        where.kubectl("-n", namespace, "delete", "model", f"m-{store}", "--wait=false")
        where.kubectl("-n", namespace, "delete", "modelcache", store, "--wait=false")
        where.kubectl("delete", "node", added)


def test_read_write_once_keeps_downloads_and_servers_on_one_node(
    two_nodes: Served, store: str, hub: MisbehavingServer, tmp_path: Path
) -> None:
    where, namespace = two_nodes.cluster, two_nodes.namespace
    storage = volume_without_a_node(two_nodes, store, tmp_path / "volume", "ReadWriteOnce")
    first, second = f"a-{store}", f"b-{store}"
    source = {"uri": TINY, "cache": store}
    where.apply(cache(store, hub.url, storage=storage), namespace=namespace)
    where.apply(llama(first, source=source, podTemplate=on_node("berth")), namespace=namespace)
    wait_for_phase(where, namespace, first, "Ready", 90)
    where.apply(llama(second, source=source, podTemplate=rather_simulated()), namespace=namespace)
    assert node_of(two_nodes, second) == node_of(two_nodes, first) == "berth"
    wait_for_phase(where, namespace, second, "Ready", 60)
    found = where.get("modelcache", store, namespace)
    assert found is not None
    assert (found["status"]["accessMode"], found["status"]["nodes"]) == ("ReadWriteOnce", ["berth"])
    where.kubectl("-n", namespace, "delete", "model", first, second, "--wait=false")


def test_read_write_many_lets_servers_run_anywhere(
    two_nodes: Served, store: str, hub: MisbehavingServer, tmp_path: Path
) -> None:
    where, namespace = two_nodes.cluster, two_nodes.namespace
    storage = volume_without_a_node(two_nodes, store, tmp_path / "volume", "ReadWriteMany")
    first, second = f"a-{store}", f"b-{store}"
    source = {"uri": TINY, "cache": store}
    where.apply(cache(store, hub.url, storage=storage), namespace=namespace)
    where.apply(llama(first, source=source, podTemplate=on_node("berth")), namespace=namespace)
    wait_for_phase(where, namespace, first, "Ready", 90)
    where.apply(llama(second, source=source, podTemplate=rather_simulated()), namespace=namespace)
    assert node_of(two_nodes, second).startswith("simulated-")
    where.kubectl("-n", namespace, "delete", "model", first, second, "--wait=false")


def test_read_write_once_pod_is_refused(two_nodes: Served, store: str) -> None:
    where, namespace = two_nodes.cluster, two_nodes.namespace
    spec = {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": store}, "spec": spec}
    where.apply(claim, cache(store, storage={"claim": store}), namespace=namespace)

    def refused() -> bool:
        found = where.get("modelcache", store, namespace)
        assert found is not None
        stalled = [c for c in found["status"].get("conditions", ()) if c["type"] == "Stalled"]
        return bool(stalled) and stalled[0]["reason"] == "AccessModeUnsupported"

    eventually(refused, 20, "AccessModeUnsupported")


# ---- nodes that fail a Model -------------------------------------------------------------------------------------


def model_status(served: Served, name: str) -> dict[str, Any]:
    found = served.cluster.get("model", name, served.namespace)
    assert found is not None
    return dict(found["status"])


def test_a_node_whose_gpus_do_not_work_is_left(two_nodes: Served, store: str) -> None:
    where, namespace, name = two_nodes.cluster, two_nodes.namespace, f"m-{store}"
    rather_real = {"matchExpressions": [{"key": "type", "operator": "NotIn", "values": ["kwok"]}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": rather_real}]}
    script = "echo 'RuntimeError: No CUDA GPUs are available' >&2; exit 1"
    template = {"spec": {"affinity": {"nodeAffinity": preferred}}}
    where.apply(shell(name, script, podTemplate=template), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    assert [one["node"] for one in model_status(two_nodes, name)["recovery"]["excludedNodes"]] == ["berth"]
    assert model_status(two_nodes, name)["lastFailure"]["reason"] == "GpuFault"

    def only_there() -> bool:
        living = [pod for pod in pods(where, namespace, name) if "deletionTimestamp" not in pod["metadata"]]
        return [pod["spec"].get("nodeName", "").partition("-")[0] for pod in living] == ["simulated"]

    eventually(only_there, 20, "a Pod on the simulated node and no other")
    assert two_nodes.operator.metric("berth_unequal_applies_total", kind="Deployment") == 0
    where.kubectl("-n", namespace, "delete", "model", name, "--wait=false")


def node_that_speaks_once(served: Served, name: str) -> None:
    """A Node that says that it is ready, and then nothing more: nobody plays its kubelet."""
    from localcluster import simulated

    made = simulated.node(name, 0, "", 0)
    made["metadata"].pop("annotations")
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "once"}
    served.cluster.apply(made)
    status = {"status": {**made["status"], "conditions": [ready]}}
    patch = ("patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    eventually(lambda: served.cluster.kubectl(*patch), 20, f"the status of {name}")

    def usable() -> bool:
        found = served.cluster.get("node", name)
        return found is not None and not found["spec"].get("taints")

    eventually(usable, 30, f"{name} without the taint of a node that is not ready")


@pytest.mark.slow
def test_a_server_on_a_node_that_falls_silent_is_replaced_on_another(two_nodes: Served, store: str) -> None:
    """The node-lifecycle controller is the real one: a node is silent for 50 s before anybody says so."""
    where, namespace, name, silent = two_nodes.cluster, two_nodes.namespace, f"m-{store}", f"silent-{store}"
    there = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [silent]}]}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": there}]}
    hurry = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    template = {"affinity": {"nodeAffinity": preferred}, "tolerations": [{**hurry, "tolerationSeconds": 5}]}
    node_that_speaks_once(two_nodes, silent)
    try:
        where.apply(shell(name, HTTPD, podTemplate={"spec": template}), namespace=namespace)
        assert node_of(two_nodes, name) == silent
        pretend_ready(where, namespace, name)
        wait_for_phase(where, namespace, name, "Ready", 30)

        def named() -> bool:
            return bool(model_status(two_nodes, name).get("lastFailure", {}).get("reason") == "NodeLost")

        eventually(named, 120, "NodeLost")

        def elsewhere() -> bool:
            living = [p for p in pods(where, namespace, name) if "deletionTimestamp" not in p["metadata"]]
            return bool(living) and living[0]["spec"].get("nodeName") not in (None, silent)

        eventually(elsewhere, 60, "a Pod on another node")
        wait_for_phase(where, namespace, name, "Ready", 60)
        assert [one["reason"] for one in model_status(two_nodes, name)["recovery"]["lostPods"]] == ["NodeLost"]
        where.kubectl("-n", namespace, "patch", "model", name, "--type=merge", "-p", '{"spec":{"state":"Stopped"}}')
        wait_for_phase(where, namespace, name, "Stopped", 60)
        assert pods(where, namespace, name), "the Pod on the silent node is still there, and holds up nothing"
    finally:
        where.kubectl("-n", namespace, "delete", "model", name, "--wait=false")
        where.kubectl("delete", "node", silent)
