"""Objects as the API server shows them, for tests without one. Every argument has a plain default."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from berth.planning import names

Manifest = dict[str, Any]

NAMESPACE = "models"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MODEL_UID = "model-uid"


def ago(seconds: float = 0) -> str:
    """A time before NOW, as the API server writes it."""
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def metadata(kind: str, name: str, version: int, uid: str | None, **more: Any) -> Manifest:
    """What every object has."""
    return {
        "namespace": NAMESPACE,
        "name": name,
        "uid": uid or f"{kind.lower()}-{name}",
        "resourceVersion": str(version),
        "creationTimestamp": ago(60),
        **more,
    }


def spec(**changes: Any) -> Manifest:
    """The spec of a Model of backend custom: it needs no weights."""
    return {"backend": "custom", "serving": {"image": "server:1"}, "custom": {"port": 9000}, **changes}


def model(
    name: str = "m",
    *,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    generation: int = 1,
    version: int = 1,
    uid: str = MODEL_UID,
    deleting: bool = False,
    **more: Any,
) -> Manifest:
    """A Model; further arguments go into its metadata."""
    if deleting:
        more["deletionTimestamp"] = ago()
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Model",
        "metadata": metadata("Model", name, version, uid, generation=generation, **more),
        "spec": dict(spec if spec is not None else globals()["spec"]()),
        "status": dict(status if status is not None else {"observedGeneration": -1}),
    }


def container(
    name: str = names.SERVER_CONTAINER,
    *,
    waiting: str = "",
    message: str = "",
    running_for: float | None = None,
    started: bool = False,
    ready: bool = False,
    restarts: int = 0,
    terminated: Mapping[str, Any] | None = None,
    last: Mapping[str, Any] | None = None,
) -> Manifest:
    """The status of a container, running since `running_for` seconds before NOW."""
    state: Manifest = {}
    if waiting:
        state = {"waiting": {"reason": waiting, "message": message} if message else {"reason": waiting}}
    elif terminated is not None:
        state = {"terminated": dict(terminated)}
    elif running_for is not None:
        state = {"running": {"startedAt": ago(running_for)}}
    last_state = {"terminated": dict(last)} if last is not None else {}
    return {
        "name": name,
        "state": state,
        "lastState": last_state,
        "ready": ready,
        "started": started,
        "restartCount": restarts,
    }


def ended(
    code: int = 1, ran: float = 5, ended_before: float = 10, message: str = "", reason: str = "Error"
) -> Manifest:
    """How a container ended, `ended_before` seconds before NOW."""
    found = {
        "exitCode": code,
        "reason": reason,
        "startedAt": ago(ended_before + ran),
        "finishedAt": ago(ended_before),
    }
    return {**found, "message": message} if message else found


def pod(
    name: str = "p",
    *,
    model: str = "m",
    template: str = "t1",
    version: int = 1,
    uid: str | None = None,
    phase: str = "Pending",
    node: str = "",
    ready: bool = False,
    ready_changed: float = 60,
    scheduled_before: float = 60,
    unschedulable: str = "",
    containers: tuple[Manifest, ...] = (),
    init: tuple[Manifest, ...] = (),
    deleting: bool = False,
    reason: str = "",
    message: str = "",
    created: float = 60,
    labels: Mapping[str, str] | None = None,
) -> Manifest:
    """A server Pod. Times are seconds before NOW."""
    scheduled = {"type": "PodScheduled", "status": "True" if node else "False"}
    if node:
        scheduled["lastTransitionTime"] = ago(scheduled_before)
    elif unschedulable:
        scheduled |= {"reason": "Unschedulable", "message": unschedulable}
    readiness = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": ago(ready_changed)}
    status: Manifest = {"phase": phase, "conditions": [scheduled, readiness]}
    status |= {key: value for key, value in (("reason", reason), ("message", message)) if value}
    if containers:
        status["containerStatuses"] = list(containers)
    if init:
        status["initContainerStatuses"] = list(init)
    marks = names.child_labels(model, "custom") | {names.TEMPLATE_HASH_LABEL: template} | dict(labels or {})
    meta = metadata("Pod", name, version, uid, labels=marks, creationTimestamp=ago(created))
    if deleting:
        meta["deletionTimestamp"] = ago()
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"nodeName": node} if node else {},
        "status": status,
    }


def serving_pod(name: str = "p", **more: Any) -> Manifest:
    """A Pod whose server answers."""
    running = container(running_for=50, started=True, ready=True)
    return pod(name, **{"phase": "Running", "node": "n1", "ready": True, "containers": (running,), **more})


def owner(uid: str = MODEL_UID, kind: str = "Model", name: str = "m") -> Manifest:
    """The controller in ownerReferences."""
    return {"apiVersion": "berth.dev/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": True}


def child(
    kind: str = "Deployment",
    name: str = "m",
    *,
    version: int = 1,
    uid: str | None = None,
    owned_by: Manifest | None = None,
    ours: bool = True,
    deleting: bool = False,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A child of a Model: of ours unless told otherwise, without owner unless one is given."""
    marks = {**(names.child_labels(name, "custom") if ours else {}), **(labels or {})}
    meta = metadata(kind, name, version, uid, labels=marks)
    if annotations:
        meta["annotations"] = dict(annotations)
    if owned_by is not None:
        meta["ownerReferences"] = [owned_by]
    if deleting:
        meta["deletionTimestamp"] = ago()
    body = {"kind": kind, "metadata": meta, "spec": dict(spec or {"replicas": 1})}
    return {**body, "status": dict(status)} if status is not None else body
