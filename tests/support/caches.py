"""ModelCaches for tests, and what tests want to know about them."""

from typing import Any

from support.kube import Cluster, eventually
from support.models import Manifest

JOB_SELECTOR = "app.kubernetes.io/component=provisioner"


def cache(name: str, hub: str = "", storage: Manifest | None = None, **spec: Any) -> Manifest:
    """A ModelCache with a claim of its own, whose downloads ask the hub at a URL."""
    template: Manifest = {}
    if hub:
        variables = [{"name": "HF_ENDPOINT", "value": hub}]
        template = {"podTemplate": {"spec": {"containers": [{"name": "provision", "env": variables}]}}}
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "ModelCache",
        "metadata": {"name": name},
        "spec": {"storage": storage or {"size": "1Gi", "reclaim": "Delete"}, **template, **spec},
    }


def entries(cluster: Cluster, namespace: str, name: str) -> list[Manifest]:
    """The artifacts that the status lists."""
    found = cluster.get("modelcache", name, namespace)
    assert found is not None, f"no modelcache {name}"
    listed: list[Manifest] = found["status"].get("artifacts") or []
    return listed


def entry(cluster: Cluster, namespace: str, name: str, uri: str) -> Manifest:
    """The artifact with this uri; an assertion fails while there is none."""
    found = [one for one in entries(cluster, namespace, name) if one.get("uri") == uri]
    assert found, f"{uri} is not listed"
    return found[0]


def wait_for_state(cluster: Cluster, namespace: str, name: str, uri: str, state: str, timeout: float = 60) -> Manifest:
    """The artifact, once it is in the state."""

    def reached() -> Manifest:
        found = entry(cluster, namespace, name, uri)
        assert found["state"] == state, found
        return found

    return eventually(reached, timeout, f"{uri} {state}")


def jobs(cluster: Cluster, namespace: str, name: str) -> list[Manifest]:
    """The Jobs of a ModelCache."""
    return cluster.list("job", namespace, f"berth.dev/cache={name}")


def download_pods(cluster: Cluster, namespace: str, name: str) -> list[Manifest]:
    """The Pods of its Jobs."""
    return cluster.list("pod", namespace, f"{JOB_SELECTOR},berth.dev/cache={name}")
