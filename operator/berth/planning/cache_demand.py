"""What a ModelCache should hold: what its spec declares, and what Models refer to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from berth.api.model import ModelSpec
from berth.api.model_cache import ArtifactState, ModelCacheSpec
from berth.api.model_lifecycle import DesiredState
from berth.planning.artifacts import Artifact, artifact_of, found_for, secret_of
from berth.planning.cache_objects import Placement
from berth.planning.errors import InvalidSpecError
from berth.planning.nodes import Node
from berth.planning.pod_template import demand, gpu_tolerations
from berth.planning.pod_template_guard import check_shapes
from berth.planning.world import Subject

Entry = Mapping[str, Any]

_LOWEST = -1
"""Priority of what only spec.artifacts asks for: Models wait for the others."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One artifact that somebody refers to."""

    artifact: Artifact
    secret: str = ""
    declared: bool = False
    """Whether spec.artifacts says Present."""
    absent: bool = False
    """Whether spec.artifacts says Absent."""
    models: tuple[str, ...] = ()
    """All Models that refer to it, stopped ones too."""
    demands: tuple[Mapping[str, Any], ...] = ()
    """Of the Models that want to load it."""
    priority: int = _LOWEST
    since: datetime | None = None
    specs: tuple[ModelSpec, ...] = field(default=(), repr=False)
    """The Models that want to load it: they say where its download may run."""

    @property
    def kept(self) -> bool:
        """Whether it may not be removed."""
        return self.declared or bool(self.models)

    @property
    def active(self) -> bool:
        """Whether it should be there now."""
        return self.declared or bool(self.demands)


def wanted_artifacts(
    spec: ModelCacheSpec, models: Sequence[Subject], entries: Sequence[Entry], created_at: datetime | None
) -> tuple[dict[str, Wanted], dict[str, tuple[str, ...]]]:
    """What should be there by name, and by name of a found entry the Models that it serves without a download."""
    wanted: dict[str, Wanted] = {}
    for declared in spec.artifacts or ():
        plain = declared.to_json()
        artifact = artifact_of(plain)
        if artifact is not None:
            present = declared.state is ArtifactState.PRESENT
            wanted[artifact.name] = Wanted(
                artifact, secret_of(plain), declared=present, absent=not present, since=created_at
            )
    served: dict[str, tuple[str, ...]] = {}
    for model in sorted(models, key=_age):
        artifact = artifact_of(model.spec.get("source"))
        if artifact is None or model.deleting:
            continue
        found = [] if artifact.name in {entry["name"] for entry in entries} else found_for(artifact, entries)
        for entry in found:
            served[entry["name"]] = (*served.get(entry["name"], ()), model.name)
        if not found:
            wanted[artifact.name] = _with_model(wanted.get(artifact.name) or Wanted(artifact), model)
    return wanted, served


def _age(model: Subject) -> tuple[float, str]:
    return (model.created_at.timestamp() if model.created_at else math.inf, model.name)


def _with_model(wanted: Wanted, model: Subject) -> Wanted:
    secret = wanted.secret or secret_of(model.spec["source"])
    wanted = replace(wanted, secret=secret, models=(*wanted.models, model.name))
    try:
        spec = ModelSpec.model_validate(model.spec)
    except ValidationError:
        return wanted  # its own status says what is wrong with it
    if spec.state is DesiredState.STOPPED:
        return wanted
    times = [moment for moment in (wanted.since, model.created_at) if moment is not None]
    return replace(
        wanted,
        demands=(*wanted.demands, demand(model.name, spec)),
        specs=(*wanted.specs, spec),
        priority=max(wanted.priority, spec.priority),
        since=min(times, default=None),
    )


def placement_of(wanted: Wanted, nodes: Sequence[Node], *, one_node: bool, bound: bool) -> Placement | None:
    """Where its download may run; None when no node fits yet and the volume must not be bound elsewhere.

    The volume of a claim that waits for its first consumer is made where the first Pod runs, and a ReadWriteOnce
    volume keeps everybody on one node: both have to be where the Model can run, although a download needs no GPU.
    """
    if not wanted.specs:
        return Placement()
    model = wanted.specs[0]
    placement = _placement_spec(model)
    if not model.gpus.count or not one_node or not nodes:
        return Placement(spec=placement)
    hosts = tuple(sorted(node.host for node in nodes if _fits(node, model)))
    if not hosts and not bound:
        return None
    return Placement(hosts, placement)


def _placement_spec(model: ModelSpec) -> Mapping[str, Any]:
    """What the Model's podTemplate says of nodes, and the tolerations that its GPUs bring.

    A podTemplate that makes no sense says nothing: the Model's own status tells that, and others use the cache, too.
    """
    try:
        check_shapes(model.pod_template or {})
    except InvalidSpecError:
        own: Mapping[str, Any] = {}
    else:
        own = (model.pod_template or {}).get("spec") or {}
    spec = {name: own[name] for name in ("nodeSelector", "affinity") if own.get(name)}
    tolerations = [*(gpu_tolerations(model.gpus.resource) if model.gpus.count else ()), *(own.get("tolerations") or ())]
    return {**spec, **({"tolerations": tolerations} if tolerations else {})}


def _fits(node: Node, model: ModelSpec) -> bool:
    offered = node.allocatable.get(model.gpus.resource, "0")
    enough = offered.isdigit() and int(offered) >= model.gpus.count
    products = model.gpus.products
    return enough and node.schedulable and (not products or node.labels.get("nvidia.com/gpu.product") in products)
