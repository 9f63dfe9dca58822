"""Which Nodes get a GPUNode: the object that the agent of a Node writes its GPUs into. The agent itself makes none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from berth.api.base import API_VERSION
from berth.planning import names
from berth.planning.children import with_applied_hash
from berth.planning.equality import differences
from berth.planning.nodes import Node
from berth.planning.plan import Apply, Plan
from berth.planning.world import Child, Refusal

GPU_NODE = "GPUNode"
_RESOURCES = "nvidia.com/"
_PRESENT = "nvidia.com/gpu.present"
"""Label of GPU feature discovery, which is there before the device plugin offers anything."""


@dataclass(frozen=True, slots=True)
class GpuNodeWorld:
    """All that a decision about one Node rests on."""

    node: Node
    gpu_node: Child | None = None
    refusals: tuple[Refusal, ...] = ()


def decide_gpu_node(world: GpuNodeWorld) -> Plan:
    """The Plan for one Node. Its GPUNode goes with it: the garbage collector sees to that."""
    node, observed = world.node, world.gpu_node
    if not has_gpus(node) or (observed is not None and observed.deleting):
        return Plan()
    manifest = render_gpu_node(node)
    if observed is None:
        return Plan(changes=(Apply(manifest, force=False),))
    if not differences(manifest, observed.manifest()):
        return Plan()
    version = {"uid": observed.uid, "resourceVersion": observed.resource_version}
    versioned = {**manifest, "metadata": {**manifest["metadata"], **version}}
    return Plan(changes=(Apply(versioned, force=False),))


def has_gpus(node: Node) -> bool:
    """Whether a Node offers GPUs that an agent can look at, or is about to."""
    offered = (name for name, amount in node.allocatable.items() if amount not in ("", "0"))
    return any(name.startswith(_RESOURCES) for name in offered) or node.labels.get(_PRESENT) == "true"


def render_gpu_node(node: Node) -> dict[str, Any]:
    """The GPUNode of a Node, without a status."""
    owner: Mapping[str, Any] = {
        "apiVersion": "v1",
        "kind": "Node",
        "name": node.name,
        "uid": node.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    metadata = {
        "name": node.name,
        "labels": {"app.kubernetes.io/part-of": "berth", names.MANAGED_BY_LABEL: names.MANAGED_BY},
        "ownerReferences": [owner],
    }
    return with_applied_hash({"apiVersion": API_VERSION, "kind": GPU_NODE, "metadata": metadata})
