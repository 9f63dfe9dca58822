"""Nodes that a Model's Pods avoid, by required node affinity in their template.

They are no part of what a template is rendered from, and do not change its hash: a Pod that was made without them is
no outdated one.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from berth.api.base import quantity_value
from berth.planning import names
from berth.planning.nodes import HOSTNAME_LABEL, Node
from berth.planning.policy import Policy
from berth.planning.world import ModelWorld


def may_exclude(world: ModelWorld, nodes: Iterable[str], policy: Policy) -> bool:
    """Whether all of these nodes may be avoided: few enough, and never all that there are for the Model."""
    avoided = set(nodes)
    if world.cache is not None and world.cache.status.get("accessMode") == "ReadWriteOnce":
        return False  # the weights are on one node
    others = [node for node in world.nodes if node.name not in avoided and _serves(node, world.subject.spec)]
    return len(avoided) <= policy.most_excluded and bool(others)


def _serves(node: Node, spec: Mapping[str, Any]) -> bool:
    """Whether a Pod of the Model could go there, as far as that is easily told.

    What else its podTemplate may ask for is told by the scheduler, see `Policy.elsewhere_patience`.
    """
    if node.lost or not node.schedulable:
        return False
    gpus = spec.get("gpus") or {}
    number = gpus.get("count", 1)
    if not number:
        return True
    offered = node.allocatable.get(gpus.get("resource", "nvidia.com/gpu"), "0")
    products = gpus.get("products")
    fits = not products or node.labels.get("nvidia.com/gpu.product") in products
    return fits and quantity_value(offered) >= number


def hosts_of(world: ModelWorld, nodes: Iterable[str]) -> tuple[str, ...]:
    """What Pods name these nodes by."""
    hosts = {node.name: node.host for node in world.nodes}
    return tuple(sorted(hosts.get(name, name) for name in nodes))


def applied_exclusions(world: ModelWorld) -> tuple[str, ...]:
    """The hosts that the observed Deployment avoids."""
    deployment = world.child("Deployment")
    if deployment is None:
        return ()
    annotations = deployment.manifest()["metadata"].get("annotations") or {}
    written = annotations.get(names.EXCLUDED_NODES_ANNOTATION, "")
    return tuple(sorted(name for name in written.split(",") if name))


def avoid(template: dict[str, Any], hosts: Sequence[str]) -> dict[str, Any]:
    """The Pod template whose Pods go to none of these hosts. Terms are alternatives, so each of them says so."""
    if not hosts:
        return template
    template = deepcopy(template)
    selector = (
        template["spec"]
        .setdefault("affinity", {})
        .setdefault("nodeAffinity", {})
        .setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    )
    elsewhere = {"key": HOSTNAME_LABEL, "operator": "NotIn", "values": list(hosts)}
    terms = selector.get("nodeSelectorTerms") or [{}]
    selector["nodeSelectorTerms"] = [
        {**term, "matchExpressions": [*(term.get("matchExpressions") or ()), elsewhere]} for term in terms
    ]
    return template
