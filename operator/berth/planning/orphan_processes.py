"""GPU processes whose Pod is gone: what holds GPU memory though Kubernetes knows nothing of it any more. Pure.

It happens when a kubelet or a container runtime loses a container: the Pod is deleted, and its process runs on.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from berth.planning.times import parse_time

GPU_PROCESS = "GPUProcess"
_STATIC_POD = "kubernetes.io/config.hash"
"""On the image of a static Pod in the API: the uid by which its node knows it."""


@dataclass(frozen=True, slots=True)
class LostProcess:
    """A process on a GPU whose Pod does not exist."""

    node: str
    pid: int
    command: str
    memory_mib: int | None
    """On all GPUs of the node together; None where the driver does not tell."""
    pod_uid: str
    pod: str
    """Namespace and name, as its node knew them; empty when it did not."""
    looked_at: datetime | None
    """When the agent last wrote that it is there."""

    def __str__(self) -> str:
        memory = f"{self.memory_mib} MiB" if self.memory_mib is not None else "an unknown amount"
        pod = f"Pod {self.pod} (uid {self.pod_uid})" if self.pod else f"Pod with uid {self.pod_uid}"
        return (
            f"process {self.pid} ({self.command or 'unnamed'}) on node {self.node} uses {memory} of GPU memory, "
            f"and its {pod} no longer exists; Berth ends no process: do so on the node"
        )


def lost_processes(
    gpu_node: Mapping[str, Any], living_pods: frozenset[str], namespace: str | None = None
) -> Iterator[LostProcess]:
    """The processes in the report of one node whose Pod is not among `living_pods`, each once.

    With a `namespace`, nothing is said of Pods that were not certainly in it.
    """
    status = gpu_node.get("status") or {}
    looked_at = parse_time(status.get("lastWrittenAt"))
    found: dict[tuple[int, str], LostProcess] = {}
    for process in _of_pods(status, namespace):
        uid, pid = process["podUid"], process["pid"]
        if uid in living_pods:
            continue
        used = process.get("memoryMiB")
        if (before := found.get((pid, uid))) is not None:
            both = before.memory_mib, used
            found[pid, uid] = replace(before, memory_mib=None if None in both else sum(map(int, both)))  # type: ignore[arg-type]
            continue
        pod = f"{process['namespace']}/{process['pod']}" if "namespace" in process and "pod" in process else ""
        name = gpu_node["metadata"]["name"]
        found[pid, uid] = LostProcess(name, pid, process.get("command", ""), used, uid, pod, looked_at)
    yield from found.values()


def reported_pods(gpu_nodes: Iterable[Mapping[str, Any]], namespace: str | None = None) -> frozenset[str]:
    """uids of the Pods that have processes on GPUs; with a `namespace`, of those that were certainly in it."""
    statuses = (gpu_node.get("status") or {} for gpu_node in gpu_nodes)
    return frozenset(process["podUid"] for status in statuses for process in _of_pods(status, namespace))


def pod_uids(pods: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Every uid by which a node may know these Pods, from their metadata."""
    found = set()
    for pod in pods:
        metadata = pod["metadata"]
        found.add(metadata["uid"])
        found.add((metadata.get("annotations") or {}).get(_STATIC_POD, metadata["uid"]))
    return frozenset(found)


def _of_pods(status: Mapping[str, Any], namespace: str | None) -> Iterator[Mapping[str, Any]]:
    """The processes that belong to a Pod."""
    for gpu in status.get("gpus") or ():
        for process in gpu.get("processes") or ():
            if process.get("podUid") and (namespace is None or process.get("namespace") == namespace):
                yield process
