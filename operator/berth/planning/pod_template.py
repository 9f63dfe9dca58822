"""The Pod template of a Model's servers, rendered from its spec alone."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from berth.api.base import canonical_quantity, quantity_value
from berth.api.model import ComputeResources, ModelSpec
from berth.backends.base import (
    Backend,
    Check,
    CommandCheck,
    HttpCheck,
    Server,
    ServerRequest,
    UnsupportedSpecError,
    Weights,
)
from berth.backends.registry import backend_for
from berth.planning import names
from berth.planning.artifacts import file_name
from berth.planning.canonical import content_hash, duration, resource_quantity
from berth.planning.drain_pod import Draining, render_draining, termination_grace
from berth.planning.errors import InvalidSpecError
from berth.planning.pod_template_merge import merge_pod_template
from berth.planning.provisioner_pod import download_arguments, provisioner_container, source_environment
from berth.planning.render_settings import RenderSettings
from berth.planning.weights import Located, Stored, locate_weights

PROBE_GRACE_SECONDS = 10
"""Grace for a server that a probe has found dead: nothing is left to drain."""
STARTUP_PERIOD_SECONDS = 2
"""Time between looks at a starting server: a connection costs nothing beside a loaded GPU that nobody uses."""
SHARED_MEMORY_PER_GPU_GIB = 2
NVIDIA_GPU = "nvidia.com/gpu"

_NOT_IN_TEMPLATE = frozenset({"replicas", "state", "priority", "idle", "rollout", "network"})


def template_inputs(spec: ModelSpec, stored: Stored | None = None, share: float | None = None) -> str:
    """Hash of what the Pod template is rendered from: a part of the spec, where a ModelCache has the weights, and the
    part of a GPU that is the servers' own.

    Defaults are left out, so that a field which a later version adds does not change the hash.
    """
    wishes = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(_NOT_IN_TEMPLATE))
    more: list[Any] = [] if stored is None else [{field: value for field, value in asdict(stored).items() if value}]
    more += [] if share is None else [share]
    return content_hash([wishes, *more] if more else wishes)


def render_pod_template(
    name: str,
    namespace: str,
    spec: ModelSpec,
    settings: RenderSettings,
    stored: Stored | None = None,
    share: float | None = None,
) -> dict[str, Any]:
    """The Pod template in the API server's canonical form; `stored` is where a ModelCache has the weights, `share` the
    part of each GPU's memory that the servers may use.

    The label with its own hash is not part of it: `children.render_deployment` adds that. Raises InvalidSpecError.
    """
    backend = backend_for(spec.backend)
    try:
        located = locate_weights(spec, backend, settings, stored)
        server = backend.server(ServerRequest(name, spec, located.weights, share))
        image = _image(spec, backend, settings)
        draining = render_draining(name, spec, backend, server, _resources(spec), settings)
    except UnsupportedSpecError as error:
        raise InvalidSpecError(error.field, error.message) from None
    template = {
        "metadata": {
            "labels": names.child_labels(name, spec.backend),
            "annotations": {"kubectl.kubernetes.io/default-container": names.SERVER_CONTAINER},
        },
        "spec": _pod_spec(spec, backend, server, located.weights, image, draining, settings),
    }
    if located.cache:
        template["metadata"]["labels"][names.CACHE_LABEL] = located.cache
        if located.one_node:
            template["spec"].setdefault("affinity", {}).update(beside_the_cache(located.cache))
    download = None if located.download is None else _download(name, spec, located, settings)
    if starters := [container for container in (download, draining.sidecar) if container is not None]:
        template["spec"]["initContainers"] = starters
    wishes = spec.pod_template
    if wishes and located.download is None:
        wishes = _without_download(wishes)
    if wishes:
        template = merge_pod_template(template, wishes, allow_unsafe=settings.allow_unsafe_pod_template)
    if spec.gpus.count and settings.gated:
        _gate(template["spec"])
    return template


def _gate(pod: dict[str, Any]) -> None:
    """Hold the Pod back until the capacity planner says where it may go, whatever podTemplate says of gates."""
    others = [gate for gate in pod.get("schedulingGates") or () if gate.get("name") != names.CAPACITY_GATE]
    pod["schedulingGates"] = [{"name": names.CAPACITY_GATE}, *others]


def _without_download(partial: dict[str, Any]) -> dict[str, Any]:
    """What a podTemplate says of the download has no meaning where a ModelCache brings the weights."""
    pod = partial.get("spec") if isinstance(partial, dict) else None
    containers = pod.get("initContainers") if isinstance(pod, dict) else None
    if not isinstance(pod, dict) or not isinstance(containers, list):
        return partial
    others = [one for one in containers if not isinstance(one, dict) or one.get("name") != names.PROVISIONER_CONTAINER]
    return {**partial, "spec": {**pod, "initContainers": others}}


def beside_the_cache(cache: str) -> dict[str, Any]:
    """Affinity to all other Pods that use the volume of a ModelCache: it can be used on one node at a time.

    The Pods match the term themselves, so the first one goes where the scheduler likes.
    """
    term = {"labelSelector": {"matchLabels": {names.CACHE_LABEL: cache}}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def demand(name: str, spec: ModelSpec) -> dict[str, Any]:
    """What a Model asks of its weights: whether its server can load them is looked at before the first byte."""
    serving = spec.serving
    return {
        "model": name,
        "backend": spec.backend.value,
        "gpus": spec.gpus.count,
        **({"quantization": serving.quantization} if serving and serving.quantization else {}),
        **({"ownImage": True} if serving and serving.image else {}),
    }


def _download(name: str, spec: ModelSpec, located: Located, settings: RenderSettings) -> dict[str, Any]:
    """The init container that brings the weights onto the Pod's own volume."""
    artifact = located.download
    assert artifact is not None
    limit = int(quantity_value(settings.ephemeral_max))
    arguments = download_arguments(artifact, names.MODELS_PATH, [demand(name, spec)], limit)
    if located.weights.path.endswith(f"/{names.LINKED_FILE}") and file_name(artifact) != names.LINKED_FILE:
        arguments += ["--link", names.LINKED_FILE]
    mounts = [{"name": names.MODELS_VOLUME, "mountPath": names.MODELS_PATH}]
    return provisioner_container(settings, arguments, source_environment(artifact, located.secret), mounts)


def _image(spec: ModelSpec, backend: Backend, settings: RenderSettings) -> str:
    """The person's image, else the one that the operator's flags name for the backend, else the pinned one."""
    chosen = spec.serving.image if spec.serving else None
    return chosen or settings.images.get(spec.backend) or backend.image(spec)


def _pod_spec(
    spec: ModelSpec,
    backend: Backend,
    server: Server,
    weights: Weights,
    image: str,
    draining: Draining,
    settings: RenderSettings,
) -> dict[str, Any]:
    volumes, mounts = _volumes(spec, server, weights)
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        # A Service called `vllm` would otherwise become VLLM_PORT=tcp://… and stop the server.
        "enableServiceLinks": False,
        "securityContext": _pod_security(backend),
        "terminationGracePeriodSeconds": termination_grace(spec),
        "containers": [_container(spec, backend, server, image, draining, mounts)],
        "volumes": volumes,
    }
    if settings.priority_class:
        pod["priorityClassName"] = settings.priority_class
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in settings.image_pull_secrets]
    if spec.gpus.count:
        pod["tolerations"] = gpu_tolerations(spec.gpus.resource)
    if spec.gpus.products:
        product = {"key": "nvidia.com/gpu.product", "operator": "In", "values": list(spec.gpus.products)}
        terms = [{"matchExpressions": [product]}]
        pod["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        }
    return pod


def _container(
    spec: ModelSpec,
    backend: Backend,
    server: Server,
    image: str,
    draining: Draining,
    mounts: list[dict[str, Any]],
) -> dict[str, Any]:
    serving = spec.serving
    container: dict[str, Any] = {
        "name": names.SERVER_CONTAINER,
        "image": image,
        "args": [*server.args, *((serving and serving.args) or ())],
        "ports": [{"name": names.SERVER_PORT_NAME, "containerPort": server.port, "protocol": "TCP"}],
        "env": _environment(spec, server),
        "resources": _resources(spec),
        "volumeMounts": mounts,
        **_probes(spec, server),
        "lifecycle": {"preStop": draining.pre_stop},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _container_security(backend),
    }
    if server.command:
        container["command"] = list(server.command)
    if server.working_dir:
        container["workingDir"] = server.working_dir
    if serving and serving.env_from:
        container["envFrom"] = [source.to_json() for source in serving.env_from]
    return {key: value for key, value in container.items() if value not in ([], {})}


def _environment(spec: ModelSpec, server: Server) -> list[dict[str, Any]]:
    """Ours, then the person's, which win where both name a variable."""
    env: dict[str, dict[str, Any]] = {"HOME": {"name": "HOME", "value": server.home}}
    env |= {name: {"name": name, "value": value} for name, value in server.env.items()}
    for variable in (spec.serving and spec.serving.env) or ():
        env[variable.name] = variable.to_json()
    return list(env.values())


def _resources(spec: ModelSpec) -> dict[str, Any]:
    limits = _quantities("limits", spec.limits)
    requests = _quantities("requests", spec.requests)
    for resource, least in requests.items():
        most = limits.get(resource)
        if most is not None and quantity_value(least) > quantity_value(most):
            raise InvalidSpecError(f"requests.{resource}", f"{least} is more than limits.{resource}, which is {most}")
    if spec.gpus.count:
        limits[spec.gpus.resource] = str(spec.gpus.count)
    resources = {"limits": limits, "requests": requests}
    return {key: value for key, value in resources.items() if value}


def _quantities(field: str, wanted: ComputeResources | None) -> dict[str, str]:
    if wanted is None:
        return {}
    given = {"cpu": wanted.cpu, "memory": wanted.memory, "ephemeral-storage": wanted.ephemeral_storage}
    return {
        resource: resource_quantity(f"{field}.{resource}", value)
        for resource, value in given.items()
        if value is not None
    }


def _volumes(spec: ModelSpec, server: Server, weights: Weights) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes: list[dict[str, Any]] = [{"name": "home", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [
        {"name": "home", "mountPath": server.home},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # in the container, on a volume of its own
    ]
    if spec.gpus.count > 1 or server.shared_memory:
        # NCCL and PyTorch pass tensors between processes here. Used pages count to the memory limit.
        size = f"{SHARED_MEMORY_PER_GPU_GIB * max(1, spec.gpus.count)}Gi"
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": canonical_quantity(size)}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    if weights.volume is not None:
        volumes.append({"name": names.MODELS_VOLUME, **weights.volume})
        mounts.append({"name": names.MODELS_VOLUME, "mountPath": names.MODELS_PATH, "readOnly": True})
    return volumes, mounts


def gpu_tolerations(resource: str) -> list[dict[str, Any]]:
    """Taints of GPU nodes carry the resource's name; nodes with MIG slices usually that of the whole GPU."""
    keys = [resource]
    if resource.startswith("nvidia.com/") and resource != NVIDIA_GPU:
        keys.append(NVIDIA_GPU)
    return [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]


# ---- security: the Pod Security standard `restricted` ----------------------------------------------------------


def _pod_security(backend: Backend) -> dict[str, Any]:
    profile = backend.security
    context: dict[str, Any] = {
        "runAsUser": profile.uid,
        "runAsGroup": profile.gid,
        "fsGroup": profile.uid,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if profile.restricted:
        context["runAsNonRoot"] = True
    return context


def _container_security(backend: Backend) -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": backend.security.read_only_root,
    }


# ---- probes --------------------------------------------------------------------------------------------------


def _probes(spec: ModelSpec, server: Server) -> dict[str, Any]:
    """health.path says when the server is ready; whether it is alive stays the backend's business."""
    health = spec.health
    timeout = max(1, math.ceil(duration("health.timeout", health.timeout)))
    period = max(1, math.ceil(duration("health.period", health.period)))
    startup = max(1, math.ceil(duration("health.startupTimeout", health.startup_timeout)))
    started, ready = server.started, server.ready
    if health.path:
        ready = HttpCheck(health.path)
        started = started if isinstance(started, CommandCheck) else ready
    if isinstance(started, CommandCheck):
        startup_timing = {"periodSeconds": period, "timeoutSeconds": startup, "failureThreshold": 1}
    else:
        every = min(period, STARTUP_PERIOD_SECONDS)
        startup_timing = {
            "periodSeconds": every,
            "timeoutSeconds": timeout,
            "failureThreshold": math.ceil(startup / every),
        }
    regular = {"periodSeconds": period, "timeoutSeconds": timeout}
    short = {"terminationGracePeriodSeconds": PROBE_GRACE_SECONDS}
    threshold = health.failure_threshold
    return {
        "startupProbe": {**_check(started), **startup_timing, **short},
        # Out of the Service before it is restarted.
        "readinessProbe": {**_check(ready), **regular, "failureThreshold": math.ceil(threshold / 2)},
        "livenessProbe": {**_check(server.alive), **regular, "failureThreshold": threshold, **short},
    }


def _check(check: Check) -> Mapping[str, Any]:
    if isinstance(check, HttpCheck):
        return {"httpGet": {"path": check.path, "port": names.SERVER_PORT_NAME}}
    if isinstance(check, CommandCheck):
        return {"exec": {"command": list(check.command)}}
    return {"tcpSocket": {"port": names.SERVER_PORT_NAME}}
