"""Pods of ours: what phases and failures are decided from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from berth.planning import names
from berth.planning.times import parse_time

_NO_NODE = ("Unschedulable", "SchedulingGated")
"""Reasons of the condition PodScheduled. Gates are how queues such as Kueue hold Pods back."""


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


def controller_of(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ownerReference of the controller; empty when it has none."""
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
        owner_uid=controller_of(metadata).get("uid", ""),
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
        owner_kind=controller_of(metadata).get("kind", ""),
    )
