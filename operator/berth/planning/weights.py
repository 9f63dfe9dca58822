"""Where the weights of a Model are found by its server: decided from source.uri alone."""

from pathlib import PurePosixPath
from typing import Any

from berth.api.model import ModelSpec, Source
from berth.backends.base import Backend, Weights, WeightsKind
from berth.planning import names
from berth.planning.errors import InvalidSpecError
from berth.planning.render_settings import RenderSettings

TOKEN_KEY = "token"  # noqa: S105  # the name of the key, not a token
"""Key of source.secretRef that holds the Hugging Face token."""


def locate_weights(spec: ModelSpec, backend: Backend, settings: RenderSettings) -> Weights:
    """The weights as the server sees them. Raises InvalidSpecError when nothing can bring them there."""
    source = spec.source
    if source is None:
        return Weights()
    scheme, _, rest = source.uri.partition("://")
    if scheme == "pvc":
        return _on_claim(source, rest, backend)
    if scheme == "oci":
        return _in_image(source, rest, settings)
    if scheme == "hf" and scheme in backend.native_schemes:
        return _fetched_by_server(source, rest)
    raise InvalidSpecError(
        "source.uri",
        f"Berth cannot download {scheme}:// for backend {backend.name}: "
        "put the weights on a volume and use pvc://claim/path",
    )


def _on_claim(source: Source, rest: str, backend: Backend) -> Weights:
    where, _, reference = rest.partition("#")
    claim, _, path = where.partition("/")
    if reference and backend.loads is not WeightsKind.STORE:
        raise InvalidSpecError("source.uri", "'#' names a model in a store of Ollama: remove it and what follows")
    if source.files:
        path = f"{path}/{_single_file(source.files, backend)}"
    # readOnly of the claim, not only of the mount: the kubelet then leaves owner and mode of the files alone.
    volume = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return Weights(path=_below(names.MODELS_PATH, path), reference=reference, volume=volume)


def _in_image(source: Source, rest: str, settings: RenderSettings) -> Weights:
    if not settings.image_volumes:
        raise InvalidSpecError(
            "source.uri",
            "this cluster does not mount images as volumes: copy the weights to a claim and use pvc://",
        )
    image, _, path = rest.partition("#")
    return Weights(path=_below(names.MODELS_PATH, path), volume={"image": {"reference": image}})


def _fetched_by_server(source: Source, rest: str) -> Weights:
    repository, _, revision = rest.partition("@")
    for field in ("files", "cache"):
        if getattr(source, field):
            raise InvalidSpecError(
                f"source.{field}",
                "the server downloads this source by itself and takes everything: remove it",
            )
    env: tuple[dict[str, Any], ...] = ()
    if source.secret_ref:
        selector = {"name": source.secret_ref.name, "key": TOKEN_KEY}
        env = ({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": selector}},)
    return Weights(repository=repository, revision=revision, env=env)


def _single_file(files: list[str], backend: Backend) -> str:
    """The file that source.files selects on a claim, where nothing can look which files a pattern fits."""
    if backend.loads is not WeightsKind.FILE:
        raise InvalidSpecError(
            "source.files", f"backend {backend.name} loads all of a pvc:// source: remove source.files"
        )
    if len(files) != 1 or any(character in files[0] for character in "*?["):
        raise InvalidSpecError(
            "source.files",
            "a pvc:// source needs the name of one file, without wildcards: name it in source.uri",
        )
    return files[0]


def _below(root: str, path: str) -> str:
    """The path inside the container, never outside of `root`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidSpecError("source.uri", "the path leaves its volume: remove '..'")
    if "$(" in path:
        raise InvalidSpecError("source.uri", "'$(' would be expanded by Kubernetes: rename the folder")
    return str(PurePosixPath(root, *parts))
