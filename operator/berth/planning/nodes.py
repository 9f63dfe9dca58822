"""Nodes, as far as decisions about Models and ModelCaches depend on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HOSTNAME_LABEL = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class Node:
    """What decides whether a Pod may go to a node."""

    name: str
    uid: str
    allocatable: Mapping[str, str]
    labels: Mapping[str, str]
    schedulable: bool
    lost: bool = False
    """Whether its kubelet is silent, or says that it can run no Pods."""

    @property
    def host(self) -> str:
        """What Pods name it by in their affinity."""
        return self.labels.get(HOSTNAME_LABEL, self.name)


def node_from(manifest: Mapping[str, Any]) -> Node:
    """The projection of a Node. One whose kubelet has said nothing yet is not lost."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    ready = next((c["status"] for c in status.get("conditions") or () if c["type"] == "Ready"), "True")
    return Node(
        name=metadata["name"],
        uid=metadata["uid"],
        allocatable=status.get("allocatable") or {},
        labels=metadata.get("labels") or {},
        schedulable=not (manifest.get("spec") or {}).get("unschedulable"),
        lost=ready != "True",
    )
