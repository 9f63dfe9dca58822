"""The agent beside a real kubelet, whose device plugin hands out GPUs that exist by number only: which Pod holds which
GPU and whose the processes are is real, what the GPUs say comes from the stand-in."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster import api
from localcluster.node import NODE
from support import agents, nvml_standin
from support.agent_process import AgentProcess
from support.kube import Cluster, eventually
from support.nvml_standin import Gpu

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def root(cluster: Cluster) -> Path:
    """The files of the node: it has mounts of its own, which the processes on it are a door to."""
    components: Any = api.status(cluster.name)["components"]
    kubelet = next((one["pid"] for one in components if one["name"] == "kubelet"), None)
    if kubelet is None:
        pytest.skip("the node is another machine: kind's")
    agents.install(cluster)
    cluster.apply(agents.gpu_node(NODE))
    return Path(f"/proc/{kubelet}/root")


@pytest.fixture
def node(tmp_path: Path) -> nvml_standin.Node:
    """A driver with the GPUs of the device plugin."""
    return nvml_standin.Node(tmp_path / "driver", gpus=[Gpu(f"GPU-{index}") for index in range(4)]).write()


@pytest.fixture
def start(
    cluster: Cluster, root: Path, node: nvml_standin.Node, tmp_path: Path
) -> Iterator[Callable[..., AgentProcess]]:
    started: list[AgentProcess] = []

    def begin(pod_logs: Path = root / "var/log/pods") -> AgentProcess:
        socket = root / "var/lib/kubelet/pod-resources/kubelet.sock"
        flags = ("--pod-resources", str(socket), "--pod-logs", str(pod_logs))
        login = agents.login(cluster, NODE, tmp_path)
        started.append(AgentProcess(tmp_path, NODE, login, *flags, driver=node))
        return started[-1]

    yield begin
    for process in started:
        process.stop()


@pytest.fixture
def held(cluster: Cluster, namespace: str) -> tuple[str, str, str, int]:
    """A Pod that was given a GPU: its name and uid, the GPU, and its process."""
    name = f"holder-{uuid.uuid4().hex[:8]}"
    container = {
        "name": "server",
        "image": "localhost/busybox:1",
        "imagePullPolicy": "Never",
        "command": ["sleep", "3600"],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
        },
        namespace=namespace,
    )
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    pod = cluster.get("pod", name, namespace)
    assert pod is not None
    uid = pod["metadata"]["uid"]
    pid = eventually(lambda: _process_of(uid), 10, "its process")
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    (gpu,) = [entry.partition("=")[2] for entry in environment if entry.startswith("NVIDIA_VISIBLE_DEVICES=")]
    return name, uid, gpu, pid


def _process_of(uid: str) -> int | None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if uid in (entry / "cgroup").read_text() and (entry / "comm").read_text().strip() == "sleep":
                    return int(entry.name)
            except OSError:
                continue
    return None


def gpu_of(cluster: Cluster, uuid: str) -> dict[str, Any]:
    found = {gpu["uuid"]: gpu for gpu in agents.read(cluster, NODE).get("gpus", ())}
    assert uuid in found, f"{uuid} is not reported"
    return found[uuid]


def test_holders_and_processes_are_those_of_the_node(
    cluster: Cluster,
    namespace: str,
    node: nvml_standin.Node,
    start: Callable[..., AgentProcess],
    held: tuple[str, str, str, int],
) -> None:
    name, uid, gpu, pid = held
    foreign = os.getpid()
    for each in node.gpus:
        each.memory = (81559, 9000, 614) if each.uuid == gpu else each.memory
        each.processes = {pid: 8000, foreign: 900} if each.uuid == gpu else {}
    node.write()
    agent = start()

    def reported() -> dict[str, Any]:
        found = gpu_of(cluster, gpu)
        assert found.get("processes"), found
        return found

    found = eventually(reported, 20, "the processes")
    assert found["holders"] == [{"namespace": namespace, "pod": name, "container": "server"}]
    ours, other = found["processes"]
    assert ours == {
        "pid": pid, "command": "sleep", "memoryMiB": 8000, "foreign": False,
        "podUid": uid, "namespace": namespace, "pod": name,
    }  # fmt: skip
    assert (other["pid"], other["foreign"], found["foreignMiB"]) == (foreign, True, 900)
    conditions = {one["type"]: one["status"] for one in agents.read(cluster, NODE)["conditions"]}
    assert conditions == {"Ready": "True", "HoldersKnown": "True"}
    assert agent.metric("berth_gpu_holder", uuid=gpu, namespace=namespace, pod=name) == 1
    assert agent.metric("berth_gpu_pod_memory_bytes", uuid=gpu, pod=name) == 8000 * 2**20

    cluster.kubectl("-n", namespace, "delete", "pod", name, "--wait=true")
    node.gpus = [Gpu(each.uuid) for each in node.gpus]
    node.write()
    eventually(lambda: "holders" not in gpu_of(cluster, gpu), 15, "nobody holds it")


def test_without_folders_of_logs_the_only_holder_is_meant(
    cluster: Cluster,
    namespace: str,
    node: nvml_standin.Node,
    start: Callable[..., AgentProcess],
    held: tuple[str, str, str, int],
    tmp_path: Path,
) -> None:
    name, uid, gpu, pid = held
    next(each for each in node.gpus if each.uuid == gpu).processes = {pid: 8000}
    node.write()
    start(pod_logs=tmp_path / "none")

    def process() -> dict[str, Any]:
        (found,) = gpu_of(cluster, gpu).get("processes") or [{}]
        assert found.get("podUid") == uid, found
        return found

    found = eventually(process, 20, "the process")
    assert (found["namespace"], found["pod"]) == (namespace, name)
