"""The kinds of the Kubernetes API that Berth talks about, and where the API server keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote


class UnknownResourceError(LookupError):
    """A manifest of a kind that is not in this module."""


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One kind of object, as the API server names it. The core group is the empty string."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As manifests spell it: `apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of a collection (without `name`), an object, or a subresource of it.

        A collection without a namespace is the one over all namespaces. Raises ValueError for what can be
        no path: an object of a namespaced kind without its namespace, or a name such as `..`.
        """
        if namespace is not None and not self.namespaced:
            raise ValueError(f"{self.plural} have no namespace, got {namespace!r}")
        if name is not None and namespace is None and self.namespaced:
            raise ValueError(f"the namespace of {self.plural} {name!r} is missing")
        if subresource is not None and name is None:
            raise ValueError(f"the subresource {subresource!r} needs a name")
        path = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if namespace is not None:
            path += f"/namespaces/{_segment(namespace)}"
        path += f"/{self.plural}"
        if name is not None:
            path += f"/{_segment(name)}"
        return path if subresource is None else f"{path}/{_segment(subresource)}"


def _segment(text: str) -> str:
    """One segment of a path; the rules are those of Kubernetes for names in paths."""
    if not text or text in (".", "..") or "/" in text or "%" in text:
        raise ValueError(f"{text!r} is no name in a path")
    return quote(text, safe="")


MODELS = ResourceType("berth.dev", "v1alpha1", "models", "Model")
MODEL_ROUTES = ResourceType("berth.dev", "v1alpha1", "modelroutes", "ModelRoute")
MODEL_CACHES = ResourceType("berth.dev", "v1alpha1", "modelcaches", "ModelCache")
GPU_NODES = ResourceType("berth.dev", "v1alpha1", "gpunodes", "GPUNode", namespaced=False)

CONFIG_MAPS = ResourceType("", "v1", "configmaps", "ConfigMap")
EVENTS = ResourceType("", "v1", "events", "Event")
NAMESPACES = ResourceType("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = ResourceType("", "v1", "nodes", "Node", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = ResourceType("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PERSISTENT_VOLUMES = ResourceType("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PODS = ResourceType("", "v1", "pods", "Pod")
SERVICES = ResourceType("", "v1", "services", "Service")
SERVICE_ACCOUNTS = ResourceType("", "v1", "serviceaccounts", "ServiceAccount")

DEPLOYMENTS = ResourceType("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = ResourceType("apps", "v1", "replicasets", "ReplicaSet")
JOBS = ResourceType("batch", "v1", "jobs", "Job")
LEASES = ResourceType("coordination.k8s.io", "v1", "leases", "Lease")
NETWORK_POLICIES = ResourceType("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
POD_DISRUPTION_BUDGETS = ResourceType("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
CUSTOM_RESOURCE_DEFINITIONS = ResourceType(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)

ALL: tuple[ResourceType, ...] = tuple(value for value in list(globals().values()) if isinstance(value, ResourceType))
_BY_KIND = {(resource.api_version, resource.kind): resource for resource in ALL}


def of(manifest: Mapping[str, Any]) -> ResourceType:
    """The resource of a manifest, by its apiVersion and kind. Raises UnknownResourceError for any other."""
    key = (manifest.get("apiVersion"), manifest.get("kind"))
    try:
        return _BY_KIND[key]  # type: ignore[index]
    except KeyError:
        raise UnknownResourceError(f"no known resource has apiVersion {key[0]!r} and kind {key[1]!r}") from None
