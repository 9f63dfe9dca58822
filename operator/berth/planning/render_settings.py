"""The operator's settings that rendered objects depend on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from berth import __version__

PUBLISHED_IMAGE = f"ghcr.io/berth/berth:{__version__}"
"""Berth's own image of this version."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Pods of one namespace that may always reach the servers."""

    namespace: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """Set by flags of the operator; the same for every Model."""

    operator: Peer = field(default_factory=lambda: Peer("berth-system", {"app.kubernetes.io/name": "berth"}))
    """The operator's own Pods: they read the load of servers."""
    scraper: Peer | None = None
    """The Pods that scrape metrics for people, such as Prometheus."""
    priority_class: str = ""
    """PriorityClass of server Pods, with `preemptionPolicy: Never`; empty leaves the cluster's default."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Image of each backend's servers by its name, where the pinned one is not wanted: a mirror, for example."""
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets in the Models' namespaces for pulling server images."""
    provisioner_image: str = PUBLISHED_IMAGE
    """Berth's own image, in which downloads run."""
    ephemeral_max: str = "20Gi"
    """Most bytes that weights on a Pod's own volume may have; more needs a ModelCache."""
    gated: bool = False
    """Whether server Pods with GPUs are held back until the capacity planner says where they may go."""
    image_volumes: bool = True
    """Whether the cluster mounts images as volumes, which oci:// sources need."""
    allow_unsafe_pod_template: bool = False
    """Whether podTemplate may set host access, privileges, service accounts and nodes."""
