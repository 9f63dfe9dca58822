"""Clusters in a container engine, through kind: for machines that have one."""

import os
import shutil
import subprocess
from pathlib import Path

from localcluster import addons, engines, images
from localcluster.errors import ClusterError
from localcluster.kubeapi import Api
from localcluster.state import Paths, State

CONFIG_VARIABLE = "BERTH_KIND_CONFIG"
"""Names a file for `kind create cluster --config`: the version of Kubernetes, ports, nodes."""


def usable() -> bool:
    """Tell whether kind is there and a container engine answers."""
    return shutil.which("kind") is not None and engines.answering() is not None


def up(where: Paths, state: State) -> None:
    """Make the cluster unless it is there; then give its node images and GPUs."""
    if not where.kubeconfig.exists() or _cluster_name(state) not in _kind("get", "clusters").split():
        config = os.environ.get(CONFIG_VARIABLE)
        _kind(
            *("create", "cluster", "--name", _cluster_name(state), "--kubeconfig", str(where.kubeconfig)),
            *("--wait", "180s", *(("--config", config) if config else ())),
        )
        for archive in (images.busybox(), images.llama_server()):
            load_image(state, archive)
    api = Api(where.kubeconfig)
    if not api.ready():
        raise ClusterError(f"the API server of the kind cluster {_cluster_name(state)} does not answer")
    node = f"/api/v1/nodes/{_cluster_name(state)}-control-plane"
    if state.gpus:
        labels = addons.gpu_labels(state.gpus, addons.GPU_PRODUCT, addons.GPU_MEMORY_MIB)
        api.merge(node, {"metadata": {"labels": labels}})
        gpus = {"nvidia.com/gpu": str(state.gpus)}
        api.merge(f"{node}/status", {"status": {"capacity": gpus, "allocatable": gpus}})


def addresses(where: Paths, state: State) -> dict[str, str]:
    """Return the node's address. A program in the node's network, as hack/kind runs tests, is reached there too."""
    node = Api(where.kubeconfig).get(f"/api/v1/nodes/{_cluster_name(state)}-control-plane")
    known = node["status"]["addresses"] if node else []
    found = next((one["address"] for one in known if one["type"] == "InternalIP"), "")
    return {"node": found, "host": found}


def load_image(state: State, archive: Path) -> None:
    """Import an archive of images into the cluster's node."""
    _kind("load", "image-archive", str(archive), "--name", _cluster_name(state))


def down(where: Paths, state: State) -> None:
    """Delete the cluster."""
    _kind("delete", "cluster", "--name", _cluster_name(state), "--kubeconfig", str(where.kubeconfig))


def _cluster_name(state: State) -> str:
    """Return a name of our own: a cluster that the user made with kind is never met by accident."""
    return f"berth-local-{state.name}"


def _kind(*args: str) -> str:
    done = subprocess.run(("kind", *args), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"`kind {' '.join(args)}` failed: {done.stderr.strip()[-1200:]}")
    return done.stdout
