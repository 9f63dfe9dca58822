"""Objects as the API server shows them, for tests without one. Every argument has a plain default."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from berth.planning import names
from berth.planning.artifacts import Artifact
from berth.planning.cache_objects import job_name

Manifest = dict[str, Any]

NAMESPACE = "models"
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MODEL_UID = "model-uid"
CACHE = "default"
CACHE_UID = "cache-uid"
GIB = 1024**3
URI = "hf://org/llama"


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
    address: str = "",
    port: int = 0,
    labels: Mapping[str, str] | None = None,
    disruption: str = "",
    disrupted_before: float = 10,
) -> Manifest:
    """A server Pod. Times are seconds before NOW; `port` is that of its server."""
    scheduled = {"type": "PodScheduled", "status": "True" if node else "False"}
    if node:
        scheduled["lastTransitionTime"] = ago(scheduled_before)
    elif unschedulable:
        scheduled |= {"reason": "Unschedulable", "message": unschedulable}
    readiness = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": ago(ready_changed)}
    status: Manifest = {"phase": phase, "conditions": [scheduled, readiness]}
    if disruption:
        since = ago(disrupted_before)
        target = {"type": "DisruptionTarget", "status": "True", "reason": disruption, "lastTransitionTime": since}
        status["conditions"].append(target)
    told = {"reason": reason, "message": message, "podIP": address}
    status |= {key: value for key, value in told.items() if value}
    if containers:
        status["containerStatuses"] = list(containers)
    if init:
        status["initContainerStatuses"] = list(init)
    marks = names.child_labels(model, "custom") | {names.TEMPLATE_HASH_LABEL: template} | dict(labels or {})
    meta = metadata("Pod", name, version, uid, labels=marks, creationTimestamp=ago(created))
    if deleting:
        meta["deletionTimestamp"] = ago()
    spec: Manifest = {"nodeName": node} if node else {}
    if port:
        spec["containers"] = [{"name": "server", "ports": [{"name": names.SERVER_PORT_NAME, "containerPort": port}]}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}


def serving_pod(name: str = "p", **more: Any) -> Manifest:
    """A Pod whose server answers."""
    running = container(running_for=50, started=True, ready=True)
    usual = {"phase": "Running", "node": "n1", "ready": True, "address": "10.0.0.1", "containers": (running,)}
    return pod(name, **{**usual, **more})


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


# ---- a ModelCache and what belongs to it -----------------------------------------------------------------------


def cache_spec(**changes: Any) -> Manifest:
    """The spec of a ModelCache that has a claim made."""
    return {"storage": {"size": "100Gi"}, **changes}


def model_cache(
    name: str = CACHE,
    *,
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    generation: int = 1,
    version: int = 1,
    uid: str = CACHE_UID,
    deleting: bool = False,
    **more: Any,
) -> Manifest:
    """A ModelCache; further arguments go into its metadata."""
    if deleting:
        more["deletionTimestamp"] = ago()
    return {
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "ModelCache",
        "metadata": metadata("ModelCache", name, version, uid, generation=generation, **more),
        "spec": dict(spec if spec is not None else cache_spec()),
        "status": dict(status if status is not None else {"observedGeneration": -1}),
    }


def cached_spec(uri: str = URI, **changes: Any) -> Manifest:
    """The spec of a Model without GPUs whose weights are downloaded."""
    return spec(**{"source": {"uri": uri}, "gpus": {"count": 0}, **changes})


def claim(
    name: str = f"modelcache-{CACHE}",
    *,
    modes: Iterable[str] = ("ReadWriteOnce",),
    phase: str = "Bound",
    capacity: str = "100Gi",
    cache: str = CACHE,
    version: int = 1,
    uid: str | None = None,
    deleting: bool = False,
) -> Manifest:
    """A PersistentVolumeClaim, made for a ModelCache; with `cache=""`, by a person."""
    meta = metadata("PersistentVolumeClaim", name, version, uid, labels=names.cache_labels(cache) if cache else {})
    if deleting:
        meta["deletionTimestamp"] = ago()
    status: Manifest = {"phase": phase}
    if phase == "Bound":
        status |= {"accessModes": list(modes), "capacity": {"storage": capacity}}
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": meta,
        "spec": {"accessModes": list(modes), "resources": {"requests": {"storage": capacity}}},
        "status": status,
    }


def node(
    name: str = "n1", *, gpus: int = 0, product: str = "", cordoned: bool = False, lost: bool = False, version: int = 1
) -> Manifest:
    """A Node."""
    labels = {"kubernetes.io/hostname": name} | ({"nvidia.com/gpu.product": product} if product else {})
    meta = {"name": name, "uid": f"node-{name}", "resourceVersion": str(version), "labels": labels}
    allocatable = {"cpu": "8"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {
        "kind": "Node",
        "metadata": meta,
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "Unknown"}] if lost else []},
    }


def job(
    artifact: str,
    *,
    task: str = "download",
    ended: str = "",
    message: str = "",
    name: str = "",
    uid: str = "",
    cache: str = CACHE,
    version: int = 1,
    deleting: bool = False,
) -> Manifest:
    """A Job about an artifact; `ended` is Complete or Failed, `message` what Kubernetes says of that."""
    labels = names.cache_labels(cache) | ({names.ARTIFACT_LABEL: artifact} if artifact else {})
    name = name or job_name(cache, task, artifact)
    meta = metadata("Job", name, version, uid or f"{task}-uid", labels=labels)
    meta["ownerReferences"] = [owner(CACHE_UID, "ModelCache", cache)]
    if deleting:
        meta["deletionTimestamp"] = ago()
    condition = {"type": ended, "status": "True"} | ({"message": message} if message else {})
    return {"kind": "Job", "metadata": meta, "spec": {}, "status": {"conditions": [condition]} if ended else {}}


def download_pod(
    name: str = "d",
    *,
    job_uid: str = "download-uid",
    running_for: float | None = None,
    said: str | None = None,
    code: int = 0,
    waiting: str = "",
    message: str = "",
    unschedulable: str = "",
    node: str = "n1",
    address: str = "",
    cache: str = CACHE,
    version: int = 1,
    created: float = 60,
    deleting: bool = False,
) -> Manifest:
    """The Pod of a Job: pending, running since `running_for` seconds, or ended with what it said."""
    ending = ended(code, message=said) if said is not None else None
    status = container(
        names.PROVISIONER_CONTAINER, running_for=running_for, waiting=waiting, message=message, terminated=ending
    )
    phase = "Running" if running_for is not None else "Pending"
    if ending is not None:
        phase = "Failed" if code else "Succeeded"
    node = "" if unschedulable else node
    found = pod(
        name,
        phase=phase,
        node=node,
        unschedulable=unschedulable,
        containers=(status,) if node else (),
        version=version,
        created=created,
        deleting=deleting,
    )
    found["metadata"]["labels"] = names.cache_labels(cache)
    found["metadata"]["ownerReferences"] = [owner(job_uid, "Job", "download")]
    if address:
        found["status"]["podIP"] = address
    return found


def said(**changes: Any) -> str:
    """The termination message of a download that succeeded."""
    return json.dumps(
        {
            "result": "Succeeded",
            "uri": URI,
            "revision": "abc",
            "bytesTotal": 10 * GIB,
            "bytesFetched": 10 * GIB,
            "bytesPresent": 10 * GIB,
            "filesTotal": 3,
            "verified": True,
            "seconds": 100.0,
            "retries": {},
        }
        | changes
    )


def said_failed(reason: str = "NotFound", message: str = "there is no such model", **changes: Any) -> str:
    """The termination message of a download that failed of something that a person has to mend."""
    failure = {"result": "Failed", "reason": reason, "message": message, "passing": False}
    return said(**{"verified": False, "bytesTotal": None, "bytesFetched": 0, "bytesPresent": 0, **failure, **changes})


def progress(percent: int = 50, total: int | None = 10 * GIB, **changes: Any) -> Manifest:
    """What a running download answers."""
    done = (total or 0) * percent // 100
    numbers = {"bytesTotal": total, "bytesDone": done, "percent": percent, "filesTotal": 3, "filesDone": 1}
    return {"uri": URI, "revision": "abc", "bytesPerSecond": GIB, "etaSeconds": 5, **numbers, **changes}


def entry(uri: str = URI, state: str = "Present", **changes: Any) -> Manifest:
    """What a ModelCache records of an artifact, by default of one that is there."""
    artifact = Artifact(uri)
    found: Manifest = {"name": artifact.name, "uri": uri, "state": state}
    if state == "Present":
        found |= {"bytes": 10 * GIB, "revision": "abc", "path": artifact.name, "filesTotal": 3, "verified": True}
    return found | changes
