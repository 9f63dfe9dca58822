"""The container that downloads: the same in a Job of a ModelCache and before a server with a volume of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from berth.planning import names
from berth.planning.artifacts import Artifact
from berth.planning.canonical import canonical_json
from berth.planning.render_settings import RenderSettings

Manifest = dict[str, Any]

USER = 65532
TOKEN_KEY = "token"  # noqa: S105  # the name of a key, not a token
"""Key of the Secret in secretRef that holds the token of hf://, https:// and ollama:// sources."""
_TOKEN_VARIABLE = {"hf": "HF_TOKEN", "https": "BERTH_SOURCE_TOKEN", "ollama": "BERTH_SOURCE_TOKEN"}
_S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_S3_OPTIONAL_KEYS = ("AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL")
"""Keys of the Secret in secretRef of s3:// sources; they are the variables that every S3 client knows."""

VOLUME_PATH = "/cache"
"""Where Jobs of a ModelCache mount its volume."""


def download_arguments(
    artifact: Artifact, destination: str, demands: Sequence[Mapping[str, Any]], limit: int | None
) -> list[str]:
    """The command line of a download. `demands` says which Models want it, for the check before the first byte."""
    arguments = ["provision", "--uri", artifact.uri, "--destination", destination]
    for pattern in artifact.files:
        arguments += ["--include", pattern]
    if artifact.sha256:
        arguments += ["--sha256", artifact.sha256]
    if limit is not None:
        arguments += ["--limit", str(max(0, limit))]
    for demand in demands:
        arguments += ["--for", canonical_json(demand)]
    return [*arguments, "--port", str(names.PROGRESS_PORT)]


def source_environment(artifact: Artifact, secret: str) -> list[Manifest]:
    """Variables from the Secret of the source. A key that is missing is told by the kubelet, and so by the status."""
    if not secret:
        return []
    if artifact.scheme == "s3":
        return [
            *(_from_secret(key, secret, key) for key in _S3_KEYS),
            *(_from_secret(key, secret, key, optional=True) for key in _S3_OPTIONAL_KEYS),
        ]
    return [_from_secret(_TOKEN_VARIABLE[artifact.scheme], secret, TOKEN_KEY)]


def _from_secret(variable: str, secret: str, key: str, *, optional: bool = False) -> Manifest:
    selector: Manifest = {"name": secret, "key": key}
    if optional:
        selector["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": selector}}


def provisioner_container(
    settings: RenderSettings,
    arguments: Sequence[str],
    environment: Sequence[Manifest],
    mounts: Sequence[Manifest],
    user: Mapping[str, Any] | None = None,
) -> Manifest:
    """A container of Berth's own image, as restricted as Pods can be. `user` is merged into its security context."""
    return {
        "name": names.PROVISIONER_CONTAINER,
        "image": settings.provisioner_image,
        "args": list(arguments),
        "env": [{"name": "HOME", "value": "/tmp"}, *environment],  # noqa: S108  # a volume of its own
        "ports": [{"name": names.PROGRESS_PORT_NAME, "containerPort": names.PROGRESS_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            **(user or {}),
        },
    }
