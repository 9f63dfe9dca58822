"""How Argo CD, Flux and Helm apply manifests, and what they write on them to find them again."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from support.kube import Cluster
from support.models import Manifest

LABELS = {
    "app.kubernetes.io/instance": "team-a-models",
    "app.kubernetes.io/managed-by": "Helm",
    "argocd.argoproj.io/instance": "team-a-models",
    "helm.sh/chart": "models-1.2.3",
    "helm.toolkit.fluxcd.io/name": "models",
    "helm.toolkit.fluxcd.io/namespace": "flux-system",
    "kustomize.toolkit.fluxcd.io/name": "models",
    "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
}
ANNOTATIONS = {
    "argocd.argoproj.io/sync-options": "Prune=confirm",
    "argocd.argoproj.io/sync-wave": "1",
    "argocd.argoproj.io/tracking-id": "team-a-models:berth.dev/Model:team-a/qwen",
    "config.kubernetes.io/origin": "path: models/qwen.yaml",
    "helm.sh/resource-policy": "keep",
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
    "meta.helm.sh/release-name": "models",
    "meta.helm.sh/release-namespace": "team-a",
    "reconcile.fluxcd.io/requestedAt": "2026-01-01T00:00:00Z",
}
PREFIXES = (
    *("argocd.argoproj.io/", "helm.sh/", "helm.toolkit.fluxcd.io/", "kustomize.toolkit.fluxcd.io/", "meta.helm.sh/"),
    *("kubectl.kubernetes.io/last-applied-configuration", "reconcile.fluxcd.io/", "config.kubernetes.io/"),
)
"""Keys of labels and annotations by which one of these tools takes an object for its own."""


@dataclass(frozen=True)
class Way:
    """How a tool applies manifests: flags of kubectl, and the field manager that it is then."""

    name: str
    flags: tuple[str, ...]
    manager: str

    def __str__(self) -> str:
        return self.name

    def kubectl(
        self, cluster: Cluster, namespace: str, verb: str, *manifests: Manifest, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`kubectl apply` or `kubectl diff` in this way."""
        text = yaml.safe_dump_all(manifests)
        return cluster.kubectl("-n", namespace, verb, *self.flags, "-f", "-", input=text, check=check)


WAYS = (
    Way("client-side", (), "kubectl-client-side-apply"),
    Way("argocd", ("--server-side", "--force-conflicts", "--field-manager=argocd-controller"), "argocd-controller"),
)
"""Argo CD and Helm 3 apply as `kubectl apply` does, unless told otherwise; Flux and Helm 4 on the server's side."""


def tracked(manifest: Manifest) -> Manifest:
    """The manifest with everything that tools put on it."""
    metadata = manifest["metadata"]
    labels = {**metadata.get("labels", {}), **LABELS}
    annotations = {**metadata.get("annotations", {}), **ANNOTATIONS}
    return {**manifest, "metadata": {**metadata, "labels": labels, "annotations": annotations}}


def without_bookkeeping(live: Mapping[str, Any]) -> dict[str, Any]:
    """The object as a comparison sees it: without what the API server counts and notes."""
    noted = ("managedFields", "resourceVersion", "generation")
    return {**live, "metadata": {key: value for key, value in live["metadata"].items() if key not in noted}}
