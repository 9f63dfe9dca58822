"""What the cluster has to have for agents: their rights, their objects, and logins like those of their Pods."""

import copy
import uuid
from pathlib import Path
from typing import Any

import yaml

from support import chart
from support.kube import Cluster, eventually

NAMESPACE = ACCOUNT = "berth-agent"


def install(cluster: Cluster) -> None:
    """Everything of the chart's agents but the agents themselves."""
    cluster.apply(*(document for document in manifests() if document["kind"] != "DaemonSet"))
    eventually(lambda: cluster.get("serviceaccount", ACCOUNT, NAMESPACE), 30, "the ServiceAccount")


def manifests() -> list[dict[str, Any]]:
    """The objects of the chart that have to do with agents, in the image of this checkout."""
    return copy.deepcopy(chart.component(chart.rendered(chart.THIS_IMAGE), "agent"))


def gpu_node(name: str) -> dict[str, Any]:
    """The object that the operator makes for a node."""
    return {"apiVersion": "berth.dev/v1alpha1", "kind": "GPUNode", "metadata": {"name": name}}


def read(cluster: Cluster, name: str) -> dict[str, Any]:
    """What the GPUNode says."""
    found = cluster.get("gpunode", name, None)  # type: ignore[arg-type]
    assert found is not None, f"there is no GPUNode {name}"
    status: dict[str, Any] = found["status"]
    return status


def login(cluster: Cluster, node: str, folder: Path) -> Path:
    """A kubeconfig with the token that kubelet would give to an agent on the node: it is bound to a Pod there."""
    pod = f"identity-{uuid.uuid4().hex[:8]}"
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": NAMESPACE},
            "spec": {
                "serviceAccountName": ACCOUNT,
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "agent", "image": "localhost/pause:1", "imagePullPolicy": "Never"}],
            },
        }
    )
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", pod)
    token = cluster.kubectl("-n", NAMESPACE, "create", "token", ACCOUNT, *bound).stdout.strip()
    return write_kubeconfig(cluster, token, folder / f"{pod}.kubeconfig")


def write_kubeconfig(cluster: Cluster, token: str, path: Path) -> Path:
    """A kubeconfig with nothing but a token."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    (name,) = [context["context"]["cluster"] for context in document["contexts"]][:1]
    document |= {
        "users": [{"name": "agent", "user": {"token": token}}],
        "contexts": [{"name": "agent", "context": {"cluster": name, "user": "agent"}}],
        "current-context": "agent",
    }
    path.write_text(yaml.safe_dump(document))
    path.chmod(0o600)
    return path
