"""What agents write, on a real API server."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import agents, nvml_standin
from support.agent_process import AgentProcess
from support.kube import Cluster, eventually
from support.nvml_standin import Gpu, Part

pytestmark = pytest.mark.control_plane


@pytest.fixture
def node(tmp_path: Path) -> nvml_standin.Node:
    """The driver of the node: two GPUs with nothing on them."""
    return nvml_standin.Node(tmp_path / "driver", gpus=[Gpu("GPU-a"), Gpu("GPU-b")]).write()


@pytest.fixture
def name(control_plane: Cluster) -> Iterator[str]:
    """A node without a GPUNode; nothing runs on it but an agent that is beside the cluster in truth."""
    agents.install(control_plane)
    chosen = f"gpu-{uuid.uuid4().hex[:8]}"
    control_plane.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": chosen}})
    yield chosen
    control_plane.kubectl("delete", f"node/{chosen}", f"gpunode/{chosen}", "--ignore-not-found", "--wait=false")


@pytest.fixture
def start(control_plane: Cluster, name: str, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    started: list[AgentProcess] = []

    def begin(driver: nvml_standin.Node | None) -> AgentProcess:
        login = agents.login(control_plane, name, tmp_path)
        flags = ("--pod-resources", str(tmp_path / "no.sock"), "--pod-logs", str(tmp_path))
        started.append(AgentProcess(tmp_path, name, login, *flags, driver=driver))
        return started[-1]

    yield begin
    for process in started:
        process.stop()


def reported(cluster: Cluster, name: str) -> dict[str, Any]:
    status = agents.read(cluster, name)
    assert "lastWrittenAt" in status, f"nothing yet: {status}"
    return status


def used(cluster: Cluster, name: str) -> list[int | None]:
    return [gpu.get("memory", {}).get("usedMiB") for gpu in reported(cluster, name)["gpus"]]


def looks(agent: AgentProcess, seconds: float) -> None:
    """Wait until the agent has looked for some seconds more."""
    until = time.time() + seconds
    eventually(lambda: (agent.metric("berth_agent_last_look_timestamp_seconds") or 0) > until, 30, "more looks")


def test_it_waits_for_its_object_and_then_fills_it(
    control_plane: Cluster, name: str, node: nvml_standin.Node, start: Callable[..., AgentProcess]
) -> None:
    agent = start(node)
    eventually(lambda: f"the GPUNode {name} does not exist yet" in agent.log.read_text(), 10, "the message")
    control_plane.apply(agents.gpu_node(name))
    status = eventually(lambda: reported(control_plane, name), 15, "a status")
    assert status["observedGeneration"] == 1
    assert [gpu["uuid"] for gpu in status["gpus"]] == ["GPU-a", "GPU-b"]
    assert [(one["type"], one["status"]) for one in status["conditions"]] == [
        ("Ready", "True"),
        ("HoldersKnown", "False"),
    ]
    table = control_plane.kubectl("get", "gpunodes", name).stdout.splitlines()
    assert table[0].split() == ["NAME", "GPUS", "MEMORY", "HEALTH", "AGE"]
    assert table[1].split()[:5] == [name, "2", "0.0/159.3", "GiB", "Healthy"]
    control_plane.kubectl("wait", "--for=condition=Ready", f"gpunode/{name}", "--timeout=5s")


def test_it_writes_what_matters_and_nothing_else(
    control_plane: Cluster, name: str, node: nvml_standin.Node, start: Callable[..., AgentProcess]
) -> None:
    control_plane.apply(agents.gpu_node(name))
    node.gpus[0].memory = (81559, 60000, 614)
    node.write()
    agent = start(node)
    eventually(lambda: used(control_plane, name) == [60000, 4], 15, "the first status")
    node.gpus[0].figures["temperature"] = 88
    node.gpus[0].memory = (81559, 59900, 614)
    node.write()
    looks(agent, 1.5)
    assert agent.metric("berth_agent_status_writes_total") == 1, "warmer, and 100 MiB less"
    node.gpus[0].memory = (81559, 4, 614)
    node.write()
    eventually(lambda: used(control_plane, name) == [4, 4], 5, "memory that became free")
    node.gpus[1].lost = True
    node.write()
    eventually(lambda: not reported(control_plane, name)["gpus"][1]["health"]["healthy"], 5, "the lost GPU")
    assert agent.metric("berth_agent_status_writes_total") == 3
    summary = reported(control_plane, name)["summary"]
    assert summary == {"gpus": "1/2", "memory": "0.0/79.6 GiB", "health": "GPULost"}


def test_an_agent_that_is_restarted_goes_on_where_it_was(
    control_plane: Cluster, name: str, node: nvml_standin.Node, start: Callable[..., AgentProcess]
) -> None:
    control_plane.apply(agents.gpu_node(name))
    first = start(node)
    status = eventually(lambda: reported(control_plane, name), 15, "a status")
    first.stop()
    second = start(node)
    looks(second, 1.5)
    assert second.metric("berth_agent_status_writes_total") == 0
    assert reported(control_plane, name) == status
    second.stop()
    node.gpus.pop()
    node.write()
    third = start(node)
    gone = eventually(lambda: reported(control_plane, name)["gpus"][1]["health"].get("reason"), 10, "its loss")
    assert gone == "GPULost", "it fell off the bus while nobody looked"
    assert third.stop() == 0


def test_gpus_are_cut_and_a_driver_goes_and_comes(
    control_plane: Cluster, name: str, node: nvml_standin.Node, start: Callable[..., AgentProcess]
) -> None:
    control_plane.apply(agents.gpu_node(name))
    node.gpus[0].parts = [Part("MIG-1", "1g.10gb"), Part("MIG-2", "1g.10gb")]
    node.write()
    start(node)
    status = eventually(lambda: reported(control_plane, name), 15, "a status")
    assert [(gpu["uuid"], gpu["mig"], gpu.get("parentUuid")) for gpu in status["gpus"]] == [
        ("GPU-a", True, None),
        ("MIG-1", False, "GPU-a"),
        ("MIG-2", False, "GPU-a"),
        ("GPU-b", False, None),
    ]
    node.start = 9
    node.write()
    eventually(lambda: reported(control_plane, name)["summary"]["health"] == "DriverNotLoaded", 10, "the driver's loss")
    assert "driverVersion" not in reported(control_plane, name)
    node.start, node.boot = 0, 2
    node.write()
    eventually(lambda: reported(control_plane, name)["summary"]["health"] == "Healthy", 10, "the driver's return")
    assert reported(control_plane, name)["driverVersion"] == "580.65.06"


def test_without_a_driver_the_object_says_so(
    control_plane: Cluster, name: str, start: Callable[..., AgentProcess]
) -> None:
    control_plane.apply(agents.gpu_node(name))
    start(None)
    status = eventually(lambda: reported(control_plane, name), 15, "a status")
    ready = status["conditions"][0]
    assert (ready["status"], ready["reason"]) == ("False", "NoDriver")
    assert "runtimeClassName" in ready["message"]
    assert status["hostMemory"]["totalMiB"] > 0
    assert "gpus" not in status or status["gpus"] == []
