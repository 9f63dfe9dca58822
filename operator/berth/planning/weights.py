"""Where the weights of a Model are found by its server, and how they come there."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from berth.api.base import canonical_quantity
from berth.api.model import ModelSpec, Source
from berth.backends.base import Backend, Weights, WeightsKind
from berth.planning import names
from berth.planning.artifacts import Artifact, artifact_of, file_name, ollama_reference, secret_of
from berth.planning.errors import InvalidSpecError
from berth.planning.model_figures import WeightsFormat
from berth.planning.render_settings import RenderSettings


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a ModelCache has an artifact."""

    cache: str
    claim: str
    path: str
    """Below the root of the volume."""
    file: str = ""
    """The GGUF file to load, below `path`; empty when there is none, or several."""
    reference: str = ""
    format: str = ""
    revision: str = ""
    one_node: bool = False
    """Whether all Pods that use the volume have to run on one node."""


@dataclass(frozen=True, slots=True)
class Located:
    """The weights as the server sees them, and what its Pod needs for that."""

    weights: Weights
    cache: str = ""
    """The ModelCache whose volume is mounted."""
    one_node: bool = False
    download: Artifact | None = None
    """What an init container downloads."""
    secret: str = ""
    """Secret for that download."""


def locate_weights(
    spec: ModelSpec, backend: Backend, settings: RenderSettings, stored: Stored | None = None
) -> Located:
    """The weights for a server; `stored` is where its ModelCache has them, None for a volume of the Pod's own.

    Raises InvalidSpecError when nothing can bring them there.
    """
    source = spec.source
    if source is None:
        return Located(Weights())
    scheme, _, rest = source.uri.partition("://")
    if scheme == "pvc":
        return Located(_on_claim(source, rest, backend))
    if scheme == "oci":
        return Located(_in_image(source, rest, settings))
    plain = source.to_json()
    artifact = artifact_of(plain)
    if artifact is None:
        raise InvalidSpecError("source.uri", f"Berth does not know {scheme}://: use hf://, https://, s3:// or pvc://")
    if stored is not None:
        return _in_cache(artifact, stored, backend)
    return _downloaded_before_start(artifact, secret_of(plain), backend, settings)


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


def _in_cache(artifact: Artifact, stored: Stored, backend: Backend) -> Located:
    path = stored.path
    if stored.file and (backend.loads is WeightsKind.FILE or _is_gguf_folder(stored, backend)):
        path = f"{path}/{stored.file}"
    volume = {"persistentVolumeClaim": {"claimName": stored.claim, "readOnly": True}}
    weights = Weights(path=_below(names.MODELS_PATH, path), reference=_reference(artifact, stored), volume=volume)
    return Located(weights, cache=stored.cache, one_node=stored.one_node)


def _is_gguf_folder(stored: Stored, backend: Backend) -> bool:
    """Whether a server that loads folders has to be pointed at a GGUF file all the same."""
    return backend.loads is WeightsKind.FOLDER and stored.format == WeightsFormat.GGUF


def _downloaded_before_start(artifact: Artifact, secret: str, backend: Backend, settings: RenderSettings) -> Located:
    """On a volume of the Pod's own, which an init container fills."""
    path = names.MODELS_PATH
    if backend.loads is WeightsKind.FILE:
        path = _below(path, file_name(artifact) or names.LINKED_FILE)
    volume = {"emptyDir": {"sizeLimit": canonical_quantity(settings.ephemeral_max)}}
    weights = Weights(path=path, reference=_reference(artifact, None), volume=volume)
    return Located(weights, download=artifact, secret=secret)


def _reference(artifact: Artifact, stored: Stored | None) -> str:
    """Name of the model in a store of Ollama."""
    if artifact.scheme != "ollama":
        return ""
    return (stored.reference if stored else "") or ollama_reference(artifact.uri)


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
