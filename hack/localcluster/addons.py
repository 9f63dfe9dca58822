"""What every Kubernetes has besides itself: names for Services, volumes, and here GPUs that are only numbers."""

import urllib.request
from pathlib import Path

from localcluster.kubeapi import Api, Object
from localcluster.network import Ranges
from localcluster.pki import NODE
from localcluster.state import Paths, State, write

COMPONENTS = ("coredns", "volume-provisioner", "gpu-device-plugin")
GPU_PRODUCT = "Berth-Simulated-GPU"
GPU_MEMORY_MIB = 24576
STORAGE_CLASS = "local"
PROVISIONER = "berth.dev/local-path"
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxies: this is our own machine


def write_configuration(where: Paths, ranges: Ranges) -> None:
    """Write the files that the commands below name."""
    write(
        where.conf / "Corefile",
        f""".:53 {{
    bind {ranges.node}
    errors
    ready {ranges.node}:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {where.kubeconfig}
        pods insecure
        ttl 5
    }}
    loadbalance
}}
""",
    )
    where.volumes.mkdir(exist_ok=True)


def commands(where: Paths, state: State, binaries: dict[str, Path]) -> dict[str, list[str]]:
    """Return the command line of each component."""
    addons = str(binaries["cluster-addons"])
    found = {
        "coredns": [str(binaries["coredns"]), "-conf", f"{where.conf}/Corefile"],
        "volume-provisioner": [
            addons, "volume-provisioner", "--kubeconfig", str(where.kubeconfig), "--folder", str(where.volumes),
        ],
    }  # fmt: skip
    if state.gpus:
        found["gpu-device-plugin"] = [addons, "gpu-device-plugin", "--count", str(state.gpus)]
    return found


def gpu_labels(count: int, product: str, memory_mib: int) -> dict[str, str]:
    """Return the labels that GPU feature discovery puts on a node."""
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.count": str(count),
    }


def install(api: Api, ranges: Ranges) -> None:
    """Make the objects behind the cluster's DNS and its default StorageClass."""
    for path, body in objects(ranges).items():
        api.apply(path, body)


def objects(ranges: Ranges) -> dict[str, Object]:
    """Return what `install` makes, by path."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    system = {"namespace": "kube-system"}
    return {
        "/api/v1/namespaces/kube-system/services/kube-dns": {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", **system, "labels": {"k8s-app": "kube-dns"}},
            "spec": {"clusterIP": ranges.dns, "ports": ports},
        },
        # No Pod answers for this Service but a process of the node, so its endpoint is written by hand.
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-node": {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "kube-dns-node", **system, "labels": {"kubernetes.io/service-name": "kube-dns"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [ranges.node], "conditions": {"ready": True}}],
            "ports": ports,
        },
        f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}": {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
    }


def label_node(api: Api, gpus: int) -> None:
    """Give the real node the labels of its GPUs."""
    labels = gpu_labels(gpus, GPU_PRODUCT, GPU_MEMORY_MIB) if gpus else {}
    api.merge(f"/api/v1/nodes/{NODE}", {"metadata": {"labels": labels}})


def gpus_are_offered(api: Api, gpus: int) -> bool:
    """Tell whether the scheduler can give away as many GPUs as the node has."""
    node = api.get(f"/api/v1/nodes/{NODE}") or {}
    allocatable = node.get("status", {}).get("allocatable", {})
    return not gpus or allocatable.get("nvidia.com/gpu") == str(gpus)


def answers(url: str) -> bool:
    """Tell whether a component says of itself that it works."""
    try:
        with _opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
