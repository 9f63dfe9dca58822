"""The objects that a ModelCache consists of: its claim, the guard of its Pods, and the Jobs that work on the volume."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from berth.api.base import API_VERSION
from berth.api.model_cache import CacheStorage, ModelCacheSpec, ReclaimPolicy
from berth.planning import names
from berth.planning.artifacts import Artifact
from berth.planning.canonical import canonical_pod_template, content_hash, quantity
from berth.planning.children import watching_peers, with_applied_hash
from berth.planning.errors import InvalidSpecError
from berth.planning.nodes import HOSTNAME_LABEL
from berth.planning.pod_template import beside_the_cache
from berth.planning.pod_template_guard import ROOT, check_safety, check_shapes
from berth.planning.pod_template_merge import merge_partial
from berth.planning.provisioner_pod import (
    USER,
    VOLUME_PATH,
    download_arguments,
    provisioner_container,
    source_environment,
)
from berth.planning.render_settings import RenderSettings
from berth.planning.world import CLAIM, Subject

Manifest = dict[str, Any]

"""On nodes; some clouds give it another value than the name of the node."""
_BACKOFF_LIMIT = 3
"""Failures in a row within one Job; after that Berth itself decides when to try again."""
_FINAL_EXIT = 65
"""Exit code of the provisioner when a person has to change something."""
_MOUNTS = ("/etc/berth/", "/etc/ssl/", "/mnt/", "/run/secrets/", "/var/run/secrets/")
_PROGRAMS = (
    *("image", "command", "args", "workingDir", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"),
    "$patch",
)
"""Fields of a container that say what runs in it."""
_NO_VARIABLES = ("LD_", "PYTHON", "PATH")


@dataclass(frozen=True, slots=True)
class Volume:
    """The volume as Jobs mount it."""

    claim: str
    one_node: bool
    """Whether all Pods that use it have to run on one node."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a Job may run: where the Models that want its artifact may."""

    hosts: tuple[str, ...] = ()
    """The only nodes, by the label of their hostname; all when empty."""
    spec: Mapping[str, Any] | None = None
    """nodeSelector, affinity and tolerations, as a partial PodSpec."""


def render_claim(subject: Subject, storage: CacheStorage) -> Manifest:
    """The claim that Berth makes. It has an owner only when it is to go with the ModelCache.

    One without an owner is nobody's instance: tools that find what is theirs by that label would prune it.
    """
    spec: Manifest = {
        "accessModes": [mode.value for mode in storage.access_modes or ()] or ["ReadWriteOnce"],
        "resources": {"requests": {"storage": quantity("storage.size", storage.size or "0")}},
    }
    if storage.storage_class_name:
        spec["storageClassName"] = storage.storage_class_name
    owned = storage.reclaim is ReclaimPolicy.DELETE
    labels = names.cache_labels(subject.name)
    if not owned:
        del labels[names.INSTANCE_LABEL]
    return _owned(subject, "v1", CLAIM, names.cache_object(subject.name), {"spec": spec}, labels=labels, owned=owned)


def render_guard(subject: Subject, settings: RenderSettings) -> Manifest:
    """The NetworkPolicy of the Pods that download: only Berth and the scraper may ask how far they are."""
    port = {"port": names.PROGRESS_PORT, "protocol": "TCP"}
    selector = {names.CACHE_LABEL: subject.name, names.COMPONENT_LABEL: names.PROVISIONER_COMPONENT}
    spec = {
        "podSelector": {"matchLabels": selector},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": watching_peers(settings), "ports": [port]}],
    }
    body = {"spec": spec}
    return _owned(subject, "networking.k8s.io/v1", "NetworkPolicy", names.cache_object(subject.name), body)


def job_name(cache: str, task: str, about: str) -> str:
    """The name of the Job that does something about an artifact, the same whenever it is done.

    At most 63 characters: it becomes a label.
    """
    digest = content_hash([cache, task, about])[:8]
    readable = about.rpartition("-")[0] or cache
    return f"{task}-{readable[:40].strip('-')}-{digest}"


def render_download(
    subject: Subject,
    spec: ModelCacheSpec,
    artifact: Artifact,
    secret: str,
    demands: Sequence[Mapping[str, Any]],
    limit: int | None,
    volume: Volume,
    placement: Placement,
    settings: RenderSettings,
) -> Manifest:
    """The Job that brings an artifact into its folder.

    `demands` are those of the Models that want it, `limit` is in bytes. Raises InvalidSpecError.
    """
    arguments = download_arguments(artifact, f"{VOLUME_PATH}/{artifact.name}", demands, limit)
    environment = source_environment(artifact, secret)
    name = job_name(subject.name, "download", artifact.name)
    return _job(subject, spec, name, artifact.name, arguments, environment, volume, placement, settings)


def render_removal(
    subject: Subject, spec: ModelCacheSpec, artifact: str, path: str, volume: Volume, settings: RenderSettings
) -> Manifest:
    """The Job that removes an artifact's folder."""
    arguments = ["provision", "--remove", "--destination", f"{VOLUME_PATH}/{path}"]
    name = job_name(subject.name, "remove", artifact)
    return _job(subject, spec, name, artifact, arguments, [], volume, Placement(), settings)


def render_discovery(
    subject: Subject, spec: ModelCacheSpec, after: str, request: str, volume: Volume, settings: RenderSettings
) -> Manifest:
    """The Job that lists models which are on the volume already, from where the page before it ended."""
    arguments = ["discover", "--volume", VOLUME_PATH, *(("--after", after) if after else ())]
    name = job_name(subject.name, "discover", f"{subject.name}-{content_hash([after, request])}")
    return _job(subject, spec, name, "", arguments, [], volume, Placement(), settings, read_only=True)


def _job(
    subject: Subject,
    spec: ModelCacheSpec,
    name: str,
    artifact: str,
    arguments: Sequence[str],
    environment: Sequence[Manifest],
    volume: Volume,
    placement: Placement,
    settings: RenderSettings,
    *,
    read_only: bool = False,
) -> Manifest:
    labels = names.cache_labels(subject.name) | ({names.ARTIFACT_LABEL: artifact} if artifact else {})
    mounts: list[Manifest] = [{"name": names.MODELS_VOLUME, "mountPath": VOLUME_PATH}]
    if read_only:
        mounts[0]["readOnly"] = True
    pod: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [provisioner_container(settings, arguments, environment, mounts)],
        "volumes": [
            {"name": names.MODELS_VOLUME, "persistentVolumeClaim": {"claimName": volume.claim}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in settings.image_pull_secrets]
    template: Manifest = {"metadata": {"labels": labels}, "spec": pod}
    if volume.one_node:
        pod["affinity"] = beside_the_cache(subject.name)
    if placement.hosts:
        hosts = {"key": HOSTNAME_LABEL, "operator": "In", "values": list(placement.hosts)}
        terms = [{"matchExpressions": [hosts]}]
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
        pod.setdefault("affinity", {})["nodeAffinity"] = required
    if placement.spec:
        template = merge_partial(template, {"spec": dict(placement.spec)})
    if spec.pod_template:
        check_shapes(spec.pod_template)
        check_pod_template(spec.pod_template, allow_unsafe=settings.allow_unsafe_pod_template)
        template = merge_partial(template, spec.pod_template)
        template["metadata"]["labels"] = {**(template["metadata"].get("labels") or {}), **labels}
    body: Manifest = {
        "backoffLimit": _BACKOFF_LIMIT,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": names.PROVISIONER_CONTAINER,
                        "operator": "In",
                        "values": [_FINAL_EXIT],
                    },
                },
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": canonical_pod_template(template, ROOT),
    }
    return _owned(subject, "batch/v1", "Job", name, {"spec": body}, labels=labels)


# ---- what podTemplate may say -----------------------------------------------------------------------------------


def check_pod_template(partial: Mapping[str, Any], *, allow_unsafe: bool) -> None:
    """Refuse what would let somebody run another program than Berth's with a ServiceAccount of the namespace.

    A ServiceAccount itself is allowed: it is how clouds give Pods an identity. Raises InvalidSpecError.
    """
    if allow_unsafe:
        return
    spec = dict(partial.get("spec") or {})
    spec.pop("serviceAccountName", None)
    check_safety({**partial, "spec": spec})
    for path, why in _other_programs(spec):
        raise InvalidSpecError(f"{ROOT}.spec.{path}", why)


def _other_programs(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field in ("initContainers", "ephemeralContainers"):
        if spec.get(field):
            yield field, "Pods of a cache run nothing but Berth: remove it"
    if spec.get("automountServiceAccountToken"):
        yield "automountServiceAccountToken", "a download needs no rights in the cluster: remove it"
    for index, container in enumerate(spec.get("containers") or ()):
        for path, why in _other_program(container):
            yield f"containers[{index}].{path}", why


def _other_program(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if container.get("name") != names.PROVISIONER_CONTAINER:
        yield "name", f"Pods of a cache have one container: write {names.PROVISIONER_CONTAINER}"
    for field in _PROGRAMS:
        if field in container:
            yield field, "Pods of a cache run Berth's own program: remove it"
    if container.get("envFrom"):
        yield "envFrom", "may set what changes which program runs: name the variables in env"
    for number, variable in enumerate(container.get("env") or ()):
        if str(variable.get("name", "")).startswith(_NO_VARIABLES):
            yield f"env[{number}].name", "would change which program runs: remove it"
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        where = str(mount.get("mountPath", ""))
        if not f"{where}/".startswith(_MOUNTS) or ".." in where.split("/"):
            allowed = ", ".join(folder.rstrip("/") for folder in _MOUNTS)
            yield f"volumeMounts[{number}].mountPath", f"could hide Berth's own program: use {allowed}"


def _owned(
    subject: Subject,
    api_version: str,
    kind: str,
    name: str,
    body: Manifest,
    *,
    labels: Mapping[str, str] | None = None,
    owned: bool = True,
) -> Manifest:
    metadata: Manifest = {
        "name": name,
        "namespace": subject.namespace,
        "labels": dict(labels or names.cache_labels(subject.name)),
    }
    if owned:
        metadata["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": subject.kind,
                "name": subject.name,
                "uid": subject.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]
    return with_applied_hash({"apiVersion": api_version, "kind": kind, "metadata": metadata, **body})
