"""Simulated nodes: kwok answers for their kubelets, and Pods on them only say that they run."""

import concurrent.futures
import itertools
from pathlib import Path

from localcluster import addons, processes
from localcluster.errors import ClusterError
from localcluster.kubeapi import Api, Object
from localcluster.network import Ranges
from localcluster.state import Paths, State

COMPONENT = "kwok"
PLAYED_BY_HAND = "kwok.x-k8s.io/status"
"""With the value `custom` on a Pod: whoever tests says when it is ready, and when it has ended."""
_ANNOTATION = "kwok.x-k8s.io/node"


def commands(where: Paths, state: State, ranges: Ranges, binaries: dict[str, Path]) -> dict[str, list[str]]:
    """Return kwok's command line. It plays only nodes that are marked as its own."""
    stages = sorted(binaries["kwok"].parent.glob("*.yaml"))
    return {
        COMPONENT: [
            str(binaries["kwok"]),
            f"--kubeconfig={where.kubeconfig}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake",
            f"--disregard-status-with-annotation-selector={PLAYED_BY_HAND}=custom",
            f"--cidr={state.simulated_cidr}",
            f"--node-ip={ranges.node}",
            "--node-lease-duration-seconds=40",
            *(f"--config={stage}" for stage in stages),
        ]
    }


def node(name: str, gpus: int, product: str, memory_mib: int) -> Object:
    """Return a node with GPUs, labelled as GPU feature discovery would."""
    resources = {"cpu": "64", "memory": "512Gi", "pods": "250", "ephemeral-storage": "1Ti"}
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "type": "kwok",
    }
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus)
        labels |= addons.gpu_labels(gpus, product, memory_mib)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {_ANNOTATION: "fake"}},
        "status": {"capacity": resources, "allocatable": resources, "phase": "Running"},
    }


def add(api: Api, count: int, gpus: int, product: str, memory_mib: int) -> list[str]:
    """Add nodes under names that are not taken, and return the names once all of them are ready."""
    existing = {n["metadata"]["name"] for n in (api.get("/api/v1/nodes") or {"items": []})["items"]}
    free = (name for number in itertools.count() if (name := f"simulated-{number}") not in existing)
    names = list(itertools.islice(free, count))

    def make(name: str) -> None:
        body = node(name, gpus, product, memory_mib)
        api.apply(f"/api/v1/nodes/{name}", body)
        api.apply(f"/api/v1/nodes/{name}/status", body)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(make, names))
    if not processes.wait_until(lambda: _ready_nodes(api) >= set(names), 60, 0.1):
        waiting = sorted(set(names) - _ready_nodes(api))
        raise ClusterError(f"simulated nodes do not become ready: {', '.join(waiting[:10])}")
    return names


def _ready_nodes(api: Api) -> set[str]:
    nodes = (api.get("/api/v1/nodes") or {"items": []})["items"]
    return {n["metadata"]["name"] for n in nodes if node_is_ready(n)}


def node_is_ready(found: Object) -> bool:
    """Tell whether a node's condition Ready is true."""
    conditions = found.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
