"""The World as the planner sees it: plain values that the watches have brought, nothing that can be asked anew."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson

from berth.planning import names
from berth.planning.capacity.decision import Decision
from berth.planning.load_state import Load
from berth.planning.nodes import Node
from berth.planning.pods import Pod, controller_of
from berth.planning.times import parse_time

Manifest = dict[str, Any]

CLAIM = "PersistentVolumeClaim"


@dataclass(frozen=True, slots=True)
class Subject:
    """The Model or ModelCache that a plan is about, as the API server shows it."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created_at: datetime | None
    deleting: bool
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    kind: str = "Model"


@dataclass(frozen=True, slots=True)
class Child:
    """An object that belongs, or might belong, to a Model or a ModelCache.

    The body is kept as JSON: 1,000 of them fit into 5 MB.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    deleting: bool
    owner_uid: str
    """uid of the controller; empty when it has none."""
    owner_kind: str
    model: str
    """The Model that its labels name; empty when it is none of ours."""
    body: bytes
    cache: str = ""
    """The ModelCache that its labels name; empty when it is none of ours."""
    created_at: datetime | None = None

    def manifest(self) -> Manifest:
        """The whole object, to be read and not to be changed: a plan asks for the same one several times."""
        return _parse(self.body)


@lru_cache(maxsize=64)
def _parse(body: bytes) -> Manifest:
    parsed: Manifest = orjson.loads(body)
    return parsed


def child_from(manifest: Mapping[str, Any]) -> Child:
    """The projection of an object that a Model or ModelCache consists of.

    Of foreign objects only the identity is kept, except for claims: a ModelCache may use one that a person made.
    """
    metadata = manifest["metadata"]
    labels = metadata.get("labels") or {}
    owner = controller_of(metadata)
    ours = labels.get(names.MANAGED_BY_LABEL) == names.MANAGED_BY
    kept: Mapping[str, Any] = {}
    if ours or manifest["kind"] == CLAIM:
        kept = {**manifest, "metadata": {k: v for k, v in metadata.items() if k != "managedFields"}}
    return Child(
        kind=manifest["kind"],
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        deleting="deletionTimestamp" in metadata,
        owner_uid=owner.get("uid", ""),
        owner_kind=owner.get("kind", ""),
        model=labels.get(names.MODEL_LABEL, "") if ours else "",
        cache=labels.get(names.CACHE_LABEL, "") if ours else "",
        created_at=parse_time(metadata.get("creationTimestamp")),
        body=orjson.dumps(kept),
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API server refused when a plan was carried out; fed back so that the next plan can say so."""

    kind: str
    name: str
    reason: str
    """A reason for status: NameConflict, InvalidSpec, QuotaExceeded or Forbidden."""
    message: str
    applied_hash: str
    """Hash of the manifest that was refused."""
    at: datetime


@dataclass(frozen=True, slots=True)
class ModelWorld:
    """All that a decision about one Model rests on."""

    subject: Subject
    children: tuple[Child, ...] = ()
    pods: tuple[Pod, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    status_written_at: datetime | None = None
    """When this process last wrote the status; None when it has not."""
    stubborn: Mapping[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    """By kind: the hash that was applied and the leaf paths that the API server kept different all the same."""
    cache: Subject | None = None
    """The ModelCache that keeps its weights; None when it needs none or there is none."""
    progress: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name of a Pod: what its download says of itself."""
    sick_gpus: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with a GPU that one of its Pods holds, by uid of the Pod."""
    decision: Decision | None = None
    """What the capacity worker decided about it last; None when it has not, or has nothing to decide."""
    nodes: tuple[Node, ...] = ()
    """Every Node of the cluster; none where Berth may not see them."""

    @property
    def lost_nodes(self) -> frozenset[str]:
        """Names of the Nodes that do not answer."""
        return frozenset(node.name for node in self.nodes if node.lost)

    load: Load | None = None
    """What its servers say of their requests; None while this process has not asked them."""
    routed: bool = False
    """Whether a ModelRoute points at it. There are none yet."""
    uninstalling: bool | None = False
    """Whether Berth is uninstalled and all servers are to stop; None while nothing says so or otherwise."""

    def child(self, kind: str) -> Child | None:
        """The child of that kind with the Model's name."""
        return next((c for c in self.children if c.kind == kind and c.name == self.subject.name), None)


def subject_from(manifest: Mapping[str, Any]) -> Subject:
    """The projection of a Model or ModelCache."""
    metadata = manifest["metadata"]
    return Subject(
        kind=manifest["kind"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata["resourceVersion"],
        created_at=parse_time(metadata.get("creationTimestamp")),
        deleting="deletionTimestamp" in metadata,
        annotations=metadata.get("annotations") or {},
        spec=manifest.get("spec") or {},
        status=manifest.get("status") or {},
    )
