"""The World as the planner sees it: plain values that the watches have brought, nothing that can be asked anew."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from berth.planning import names
from berth.planning.capacity.decision import Decision
from berth.planning.capacity.world import Demand
from berth.planning.nodes import Node

if TYPE_CHECKING:
    from berth.planning.load_state import Load

Manifest = dict[str, Any]

CLAIM = "PersistentVolumeClaim"

_NO_NODE = ("Unschedulable", "SchedulingGated")
"""Reasons of the condition PodScheduled. Gates are how queues such as Kueue hold Pods back."""


def parse_time(text: str | None) -> datetime | None:
    """The time that the API server wrote, or None for None."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def format_time(moment: datetime) -> str:
    """A time as the API server writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container ended."""

    exit_code: int
    reason: str
    message: str
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def ran_seconds(self) -> float | None:
        """How long it ran; None when the kubelet does not say."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a Pod, init containers included."""

    name: str
    ready: bool
    started: bool
    restarts: int
    waiting_reason: str
    waiting_message: str
    running_since: datetime | None
    terminated: Termination | None
    """Ended, and not started again yet."""
    last_terminated: Termination | None
    """How the run before this one ended."""
    initial: bool = False
    """Whether it is an init container."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod of ours, of a server or of a download: what phases and failures are decided from."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    model: str
    template_hash: str
    cache: str
    """The ModelCache whose volume it uses; empty when it uses none."""
    owner_uid: str
    """uid of the controller: a ReplicaSet or a Job; empty when it has none."""
    address: str
    """Its own address; empty until it has one."""
    node: str
    phase: str
    reason: str
    message: str
    created_at: datetime | None
    deleting: bool
    grace: int | None
    """Seconds that it has for its end; None while it is not being deleted."""
    scheduled: bool
    scheduled_since: datetime | None
    unschedulable_message: str
    """The scheduler's own words; empty when it has said nothing."""
    ready: bool
    ready_since: datetime | None
    unready_since: datetime | None
    """Since when it is not ready: since it has a node, if it never was."""
    containers: tuple[Container, ...]
    gates: tuple[str, ...] = ()
    """Scheduling gates that hold it back."""
    held_affinity: bytes = b""
    """Of one that is held back: its affinity as JSON, which whoever lets it go adds to."""
    capacity_note: str = ""
    """What was written on it when it was told its nodes; empty until then."""
    leaves_first: bool = False
    """Whether it is marked to end before others when there are too many."""
    priority: int | None = None
    """The number of its PriorityClass."""
    unschedulable_since: datetime | None = None
    """Since when the scheduler says that no node takes it, or longer: the time that it was held back counts as well."""
    disruption: str = ""
    """Who ends it, if not a person: the reason of the condition DisruptionTarget."""
    disrupted_since: datetime | None = None
    port: int = 0
    """Where its server listens; 0 when its spec does not tell."""
    owner_kind: str = ""
    """Kind of the controller; empty when it has none."""

    @property
    def living(self) -> bool:
        """Whether it may still hold a GPU: neither finished nor failed."""
        return self.phase not in ("Succeeded", "Failed")

    @property
    def restarts(self) -> int:
        """Restarts of all its containers."""
        return sum(container.restarts for container in self.containers)

    @property
    def server(self) -> Container | None:
        """The container of the inference server; None until the kubelet has reported it."""
        return next((c for c in self.containers if c.name == names.SERVER_CONTAINER and not c.initial), None)

    @property
    def provisioner(self) -> Container | None:
        """The container that downloads, in a Pod of its own or before the server; None where there is none."""
        return next((c for c in self.containers if c.name == names.PROVISIONER_CONTAINER), None)


def _termination(state: Mapping[str, Any] | None) -> Termination | None:
    ended = (state or {}).get("terminated")
    if not ended:
        return None
    return Termination(
        exit_code=ended.get("exitCode", 0),
        reason=ended.get("reason", ""),
        message=ended.get("message", ""),
        started_at=parse_time(ended.get("startedAt")),
        finished_at=parse_time(ended.get("finishedAt")),
    )


def _container(status: Mapping[str, Any], initial: bool) -> Container:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    return Container(
        name=status["name"],
        ready=bool(status.get("ready")),
        started=bool(status.get("started")),
        restarts=status.get("restartCount", 0),
        waiting_reason=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        running_since=parse_time((state.get("running") or {}).get("startedAt")),
        terminated=_termination(state),
        last_terminated=_termination(status.get("lastState")),
        initial=initial,
    )


def _server_port(spec: Mapping[str, Any]) -> int:
    """The port of that name, of whichever container."""
    ports = (port for container in spec.get("containers") or () for port in container.get("ports") or ())
    return next((port["containerPort"] for port in ports if port.get("name") == names.SERVER_PORT_NAME), 0)


def _controller(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")), {})


def pod_from(manifest: Mapping[str, Any]) -> Pod:
    """The projection of a Pod as the API server shows it."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled, ready = conditions.get("PodScheduled", {}), conditions.get("Ready", {})
    is_ready = ready.get("status") == "True"
    spec, annotations = manifest.get("spec") or {}, metadata.get("annotations") or {}
    gates = tuple(gate["name"] for gate in spec.get("schedulingGates") or ())
    unschedulable = scheduled.get("reason") in _NO_NODE and gates != (names.CAPACITY_GATE,)
    disrupted = conditions.get("DisruptionTarget", {})
    if disrupted.get("status") != "True":
        disrupted = {}
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        model=labels.get(names.MODEL_LABEL, ""),
        template_hash=labels.get(names.TEMPLATE_HASH_LABEL, ""),
        cache=labels.get(names.CACHE_LABEL, ""),
        owner_uid=_controller(metadata).get("uid", ""),
        address=status.get("podIP", ""),
        node=spec.get("nodeName", ""),
        phase=status.get("phase", "Pending"),
        reason=status.get("reason", ""),
        message=status.get("message", ""),
        created_at=parse_time(metadata.get("creationTimestamp")),
        deleting="deletionTimestamp" in metadata,
        grace=metadata.get("deletionGracePeriodSeconds"),
        scheduled=scheduled.get("status") == "True" or bool(spec.get("nodeName")),
        scheduled_since=parse_time(scheduled.get("lastTransitionTime")) if scheduled.get("status") == "True" else None,
        unschedulable_message=scheduled.get("message", "") if unschedulable else "",
        ready=is_ready,
        ready_since=parse_time(ready.get("lastTransitionTime")) if is_ready else None,
        unready_since=None if is_ready else parse_time(ready.get("lastTransitionTime")),
        containers=(
            *(_container(c, initial=True) for c in status.get("initContainerStatuses") or ()),
            *(_container(c, initial=False) for c in status.get("containerStatuses") or ()),
        ),
        gates=gates,
        priority=spec.get("priority"),
        held_affinity=orjson.dumps(spec.get("affinity") or {}) if gates else b"",
        capacity_note=annotations.get(names.CAPACITY_ANNOTATION, ""),
        leaves_first=annotations.get(names.DELETION_COST_ANNOTATION) == names.LEAVES_FIRST,
        unschedulable_since=parse_time(scheduled.get("lastTransitionTime")) if unschedulable and not gates else None,
        disruption=disrupted.get("reason", ""),
        disrupted_since=parse_time(disrupted.get("lastTransitionTime")),
        port=_server_port(manifest.get("spec") or {}),
        owner_kind=_controller(metadata).get("kind", ""),
    )


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
    owner = _controller(metadata)
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

    load: "Load | None" = None
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


# ---- what a plan is made of ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply a manifest server-side. The manifest carries the resourceVersion that the decision rests on, if any."""

    manifest: Manifest
    force: bool
    """Only for objects that were seen with our ownerReference."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object of ours, in exactly the version that was seen."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class Hurry:
    """Delete a Pod with hardly any time for its end, whether it is being deleted already or not."""

    namespace: str
    name: str
    uid: str
    grace: int
    """Seconds that are left to it."""
    order: str
    """URL by which its drain sidecar is told to wait no longer; empty when it has none."""


@dataclass(frozen=True, slots=True)
class PodPatch:
    """Change a Pod of ours, in exactly the version that was seen."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    body: Manifest
    """A JSON merge patch, without what says which version it is for."""


@dataclass(frozen=True, slots=True)
class Note:
    """An Event to tell: transitions only."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DownloadEnd:
    """How a download ended, for metrics."""

    reason: str
    """Empty when it succeeded."""
    bytes_fetched: int = 0
    seconds: float = 0.0
    retries: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartTimes:
    """How long a Model took from its wish to run until it answered, for metrics. Seconds."""

    whole: float
    parts: Mapping[str, float]
    """Those of provisioning, queued, creating and loading that it went through."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about one Model or ModelCache, as plain data."""

    changes: tuple[Apply | Delete, ...] = ()
    status: Mapping[str, Any] | None = None
    """The whole status to write; None when it is right as it is."""
    hurries: tuple[Hurry, ...] = ()
    notes: tuple[Note, ...] = ()
    transition: tuple[str, str, str] | None = None
    """Phase before, phase after, reason: one log line."""
    phase_seconds: float | None = None
    """How long the phase before that transition lasted; None where that is not known."""
    start: StartTimes | None = None
    """A start whose end this plan records for the first time: counted once the status is written."""
    downloads: tuple["DownloadEnd", ...] = ()
    """Downloads whose end this plan records for the first time: counted once the status is written."""
    marks: tuple[PodPatch, ...] = ()
    """Changes of Pods that come before all else: which of them end first."""
    tells: tuple[PodPatch, ...] = ()
    """Changes of Pods that come after all else: they may go to a node now."""
    demand: Demand | None = None
    """What the Model asks of the capacity planner; None when nothing."""
    template_hash: str = ""
    """Hash of the Pod template that its servers have or are to have; empty when there is none."""
    look_again: float | None = None
    """Seconds until time alone may change the plan; None when only an event can."""
