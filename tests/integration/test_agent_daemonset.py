"""The chart's agent on a real node: in its own image, with the token that kubelet gives it, under its policy."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster.node import NODE
from support import agents, nvml_standin
from support.kube import Cluster, eventually
from support.nvml_standin import Gpu

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def image(cluster: Cluster) -> None:
    """Berth's image of this checkout, on the node."""
    from localcluster import api, images

    api.load_image(cluster.name, images.berth())


@pytest.fixture
def deploy(cluster: Cluster, image: None) -> Iterator[Callable[[Callable[[dict[str, Any]], None]], None]]:
    """Installs agents, their Pod changed by a function, and waits until they are Ready."""
    agents.install(cluster)
    cluster.kubectl("delete", "gpunode", NODE, "--ignore-not-found")
    cluster.apply(agents.gpu_node(NODE))

    def apply(change: Callable[[dict[str, Any]], None]) -> None:
        (daemonset,) = (document for document in agents.manifests() if document["kind"] == "DaemonSet")
        change(daemonset["spec"]["template"]["spec"])
        cluster.apply(daemonset)
        cluster.kubectl("-n", agents.NAMESPACE, "rollout", "status", "ds/berth-agent", "--timeout=90s")

    yield apply
    cluster.kubectl("-n", agents.NAMESPACE, "delete", "ds", "berth-agent", "--wait=true", "--cascade=foreground")


def conditions(cluster: Cluster) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in agents.read(cluster, NODE).get("conditions", ())}


def test_on_a_node_without_a_driver_it_is_ready_and_says_so(cluster: Cluster, deploy: Callable[..., None]) -> None:
    deploy(lambda pod: None)
    expected = {"Ready": ("False", "NoDriver"), "HoldersKnown": ("True", "KubeletAnswers")}
    eventually(lambda: conditions(cluster) == expected, 20, "the conditions")
    (pod,) = cluster.list("pods", agents.NAMESPACE, "app.kubernetes.io/component=agent")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    log = cluster.kubectl("-n", agents.NAMESPACE, "logs", pod["metadata"]["name"]).stdout
    assert log.count("libnvidia-ml.so.1 is not here") == 1


def test_from_its_container_it_attributes_processes_of_the_node(
    cluster: Cluster, deploy: Callable[..., None], tmp_path: Path
) -> None:
    folder = tmp_path / "driver"
    folder.mkdir()
    (folder / "libnvidia-ml.so.1").write_bytes(nvml_standin.library().read_bytes())
    node = nvml_standin.Node(folder / "node", gpus=[Gpu("GPU-0")]).write()

    def with_standin(pod: dict[str, Any]) -> None:
        (container,) = pod["containers"]
        container["env"] += [
            {"name": "BERTH_NVML_LIBRARY", "value": "/standin/libnvidia-ml.so.1"},
            {"name": nvml_standin.VARIABLE, "value": "/standin/node"},
        ]
        container["volumeMounts"].append({"name": "standin", "mountPath": "/standin"})
        pod["volumes"].append({"name": "standin", "hostPath": {"path": str(folder), "type": "Directory"}})

    deploy(with_standin)
    (pod,) = cluster.list("pods", agents.NAMESPACE, "app.kubernetes.io/component=agent")
    itself, host = eventually(lambda: _processes(pod["metadata"]["uid"]), 10, "its process, as the node numbers it")
    node.gpus[0] = Gpu("GPU-0", memory=(81559, 3000, 614), processes={itself: 2000, host: 900})
    node.write()

    def processes() -> list[dict[str, Any]]:
        (gpu,) = agents.read(cluster, NODE).get("gpus") or [{}]
        found: list[dict[str, Any]] = gpu.get("processes") or []
        return found

    ours, foreign = eventually(processes, 20, "the processes")
    assert (ours["namespace"], ours["pod"], ours["foreign"]) == (agents.NAMESPACE, pod["metadata"]["name"], False)
    assert foreign["foreign"], foreign


def _processes(uid: str) -> tuple[int, int] | None:
    """A process of the Pod and one of the node itself (its first), by their numbers there."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if uid in (entry / "cgroup").read_text() and "berth" in (entry / "cmdline").read_text():
                    (numbers,) = [line for line in (entry / "status").read_text().splitlines() if "NSpid" in line]
                    return int(numbers.split()[2]), 1
            except OSError:
                continue
    return None
