"""The agent as a process beside a driver that stands in, without an API server: what it shows."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from support import nvml_standin
from support.agent_process import ROOT, AgentProcess
from support.kube import eventually
from support.nvml_standin import Gpu, Node

MIB = 2**20


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """A login to an API server that does not answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "none", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "none", "user": {}}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
        "current-context": "none",
    }
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def start(tmp_path: Path, kubeconfig: Path) -> Iterator[Callable[[Node | None], AgentProcess]]:
    started: list[AgentProcess] = []

    def begin(driver: Node | None) -> AgentProcess:
        flags = ("--pod-resources", str(tmp_path / "no.sock"), "--pod-logs", str(tmp_path))
        started.append(AgentProcess(tmp_path, "node-a", kubeconfig, *flags, driver=driver))
        return started[-1]

    yield begin
    for process in started:
        process.stop()


def test_metrics_follow_the_driver_while_the_api_server_is_away(
    node: Node, start: Callable[[Node | None], AgentProcess]
) -> None:
    mine = os.getpid()
    node.gpus = [Gpu("GPU-a", memory=(81559, 2048, 614), processes={mine: 1500}), Gpu("GPU-b")]
    node.write()
    agent = start(node)
    labels = {"node": "node-a", "uuid": "GPU-a", "product": "NVIDIA H100 80GB HBM3"}
    eventually(lambda: agent.metric("berth_gpu_memory_used_bytes", **labels) == 2048 * MIB, 10, "the memory")
    assert agent.get("/readyz") == (200, "ok\n")
    assert agent.metric("berth_gpu_memory_total_bytes") == 2 * 81559 * MIB
    assert agent.metric("berth_gpu_foreign_memory_bytes", **labels) == 1500 * MIB, "this test is in no Pod"
    assert agent.metric("berth_gpu_power_watts", uuid="GPU-a") == 70
    assert agent.metric("berth_gpu_driver_up") == 1
    assert agent.metric("berth_gpu_holders_known") == 0
    assert (agent.metric("berth_host_memory_total_bytes") or 0) > 0

    node.gpus[0] = Gpu("GPU-a", memory=(81559, 4, 614), xids=[79])
    node.gpus[1].lost = True
    node.write()
    eventually(lambda: agent.metric("berth_gpu_healthy") == 0, 10, "neither is healthy")
    assert agent.metric("berth_gpu_xid_errors_total", uuid="GPU-a", xid="79") == 1
    assert agent.metric("berth_gpu_foreign_memory_bytes", uuid="GPU-a") == 0
    assert agent.metric("berth_gpu_memory_used_bytes", uuid="GPU-b") is None
    assert agent.stop() == 0
    assert "Traceback" not in agent.log.read_text()


def test_without_a_driver_it_says_so_once_and_idles(
    start: Callable[[Node | None], AgentProcess], tmp_path: Path
) -> None:
    agent = start(None)
    eventually(lambda: agent.metric("berth_gpu_driver_up") == 0, 10, "a look")
    first = agent.metric("berth_agent_last_look_timestamp_seconds") or 0
    eventually(lambda: (agent.metric("berth_agent_last_look_timestamp_seconds") or 0) > first + 1.5, 10, "more looks")
    assert agent.get("/healthz") == (200, "ok\n")
    text = agent.log.read_text()
    assert text.count("libnvidia-ml.so.1 is not here") == 1
    assert agent.stop() == 0


def test_an_exchanged_driver_ends_it_with_a_sentence(node: Node, start: Callable[[Node | None], AgentProcess]) -> None:
    node.gpus = [Gpu()]
    node.write()
    agent = start(node)
    eventually(lambda: agent.metric("berth_gpu_driver_up") == 1, 10, "a look")
    node.start = 18
    node.write()
    assert agent.process.wait(10) == 1
    assert agent.log.read_text().splitlines()[-1].startswith("berth: the driver of the node is another one")


def test_the_stand_in_is_found_by_the_loader_as_well(node: Node) -> None:
    node.gpus = [Gpu("GPU-a")]
    node.write()
    done = subprocess.run(
        [sys.executable, "-c", "from berth.agent.driver import Driver; print(Driver().read().devices[0].uuid)"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "operator"),
            "LD_LIBRARY_PATH": str(nvml_standin.library().parent),
        },
    )
    assert done.stdout.strip() == "GPU-a", done.stderr
