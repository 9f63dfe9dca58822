"""The part of a Pod template that lets running requests finish: preStop, and the drain sidecar where that is needed."""

import math
from dataclasses import dataclass
from typing import Any

from berth.api.model import ModelSpec
from berth.backends.base import Backend, DrainMethod, LoadMetrics, Server, UnloadRequest
from berth.planning import names
from berth.planning.canonical import duration
from berth.planning.provisioner_pod import USER
from berth.planning.render_settings import RenderSettings

Manifest = dict[str, Any]

PRE_STOP_SECONDS = 5
"""Time for kube-proxy and gateways to take a leaving Pod out before the server is told to end."""
DRAIN_PATH = "/drain"
LOAD_PATH = "/load"
SKIP_PATH = "/skip"
_SMALL = {"cpu": "10m", "memory": "32Mi"}
_BOUND = {"cpu": "100m", "memory": "64Mi"}


@dataclass(frozen=True, slots=True)
class Draining:
    """How the requests of one server Pod finish."""

    pre_stop: Manifest
    """The hook of the server's container: SIGTERM comes when it has ended."""
    sidecar: Manifest | None
    """Who answers the hook; None when the server drains by itself, or when there is nothing to ask it for."""


def termination_grace(spec: ModelSpec) -> int:
    """Seconds from the deletion of a server Pod to SIGKILL."""
    return PRE_STOP_SECONDS + math.ceil(_drain_seconds(spec) + _grace_seconds(spec))


def render_draining(
    model: str, spec: ModelSpec, backend: Backend, server: Server, resources: Manifest, settings: RenderSettings
) -> Draining:
    """The hook and the sidecar; `resources` are those of the server's container. Raises InvalidSpecError."""
    if backend.drain is DrainMethod.SERVER:
        return Draining(_sleep(PRE_STOP_SECONDS), None)
    metrics, unload = backend.load(spec), backend.unload(model, spec)
    if metrics is None and unload is None:
        # All that a sidecar could do is wait.
        return Draining(_sleep(PRE_STOP_SECONDS + math.ceil(_drain_seconds(spec))), None)
    port = drain_port(server.port)
    sidecar: Manifest = {
        "name": names.DRAIN_CONTAINER,
        "image": settings.provisioner_image,
        "args": _arguments(spec, backend, server, metrics, unload),
        # An init container that is never waited for: it starts before the server, and ends after it.
        "restartPolicy": "Always",
        # The server may listen at the address of its Pod alone.
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "resources": _resources(resources),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
        },
    }
    if metrics is not None and metrics.needs_key:
        sidecar = _with_key(sidecar, spec, backend.api_key_env)
    return Draining({"httpGet": {"path": DRAIN_PATH, "port": port}}, sidecar)


def drain_port(server_port: int | None) -> int:
    """Where the sidecar listens: always the same port, unless that is the server's own."""
    return names.DRAIN_PORT if server_port != names.DRAIN_PORT else names.DRAIN_PORT - 1


def has_sidecar(pod_template: Manifest) -> bool:
    """Whether Pods of this template have one."""
    starters = pod_template["spec"].get("initContainers") or ()
    return any(container["name"] == names.DRAIN_CONTAINER for container in starters)


def _sleep(seconds: int) -> Manifest:
    return {"sleep": {"seconds": seconds}}


def _drain_seconds(spec: ModelSpec) -> float:
    return duration("shutdown.drainTimeout", spec.shutdown.drain_timeout)


def _grace_seconds(spec: ModelSpec) -> float:
    return duration("shutdown.gracePeriod", spec.shutdown.grace_period)


def _arguments(
    spec: ModelSpec, backend: Backend, server: Server, metrics: LoadMetrics | None, unload: UnloadRequest | None
) -> list[str]:
    flags: dict[str, Any] = {
        "--port": drain_port(server.port),
        "--server-port": server.port,
        "--routing-time": PRE_STOP_SECONDS,
        "--drain-timeout": f"{_drain_seconds(spec):g}",
        "--grace-period": f"{_grace_seconds(spec):g}",
    }
    if metrics is not None:
        flags |= {"--metrics": metrics.path, "--running": metrics.running, "--waiting": metrics.waiting}
        flags |= {"--worked": metrics.worked, "--loading-status": metrics.loading_status}
        flags |= {"--key-env": backend.api_key_env if metrics.needs_key else ""}
    if unload is not None:
        flags |= {"--unload-method": unload.method, "--unload-path": unload.path, "--unload-body": unload.body}
    return ["drain", *(f"{flag}={value}" for flag, value in flags.items() if value not in (None, ""))]


def _resources(server: Manifest) -> Manifest:
    """Next to nothing; but a Pod that has all it may use stays one, with what that means for CPUs and eviction."""
    limits = server.get("limits") or {}
    requests = {**limits, **(server.get("requests") or {})}
    if {"cpu", "memory"} <= limits.keys() and all(requests[one] == limits[one] for one in ("cpu", "memory")):
        return {"limits": dict(_BOUND), "requests": dict(_BOUND)}
    return {"limits": {"memory": _BOUND["memory"]}, "requests": dict(_SMALL)}


def _with_key(sidecar: Manifest, spec: ModelSpec, variable: str) -> Manifest:
    """With the API key from where the server has it: the one variable, or else all that comes in envFrom."""
    serving = spec.serving
    named = [one.to_json() for one in (serving and serving.env) or () if one.name == variable]
    if named:
        return {**sidecar, "env": [*sidecar["env"], *named]}
    sources = [source.to_json() for source in (serving and serving.env_from) or ()]
    return {**sidecar, "envFrom": sources} if sources else sidecar
