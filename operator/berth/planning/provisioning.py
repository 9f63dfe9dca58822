"""How the weights of one Model come to its servers: mounted, kept by a ModelCache, or downloaded before each start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from berth.api.model import ModelSpec
from berth.api.model_cache_status import CachePhase, StoredState
from berth.backends.base import WeightsKind
from berth.backends.registry import backend_for
from berth.planning import compatibility, names
from berth.planning.artifacts import Artifact, artifact_of, found_for
from berth.planning.download_reasons import DownloadReason
from berth.planning.figures_document import from_document
from berth.planning.model_figures import ModelFigures
from berth.planning.own_download import SHOWN, shown_download
from berth.planning.reasons import Reason
from berth.planning.weights import Stored
from berth.planning.world import ModelWorld, Subject


class Way(StrEnum):
    """Who brings the weights."""

    MOUNTED = "Mounted"
    """Nobody has to: a claim, an image, or no source at all."""
    CACHE = "Cache"
    """A ModelCache keeps them."""
    EPHEMERAL = "Ephemeral"
    """An init container, onto a volume of the Pod's own."""


@dataclass(frozen=True, slots=True)
class Provisioning:
    """Where the weights of one Model are, and what there is to say about it."""

    way: Way
    stored: Stored | None = None
    """Where its ModelCache has them; None until it has."""
    waiting: tuple[str, str] | None = None
    """Reason and sentence while they are not there."""
    failed: tuple[str, str] | None = None
    """Reason and sentence when a person is needed."""
    shown: Mapping[str, Any] | None = None
    """status.provisioning."""
    figures: ModelFigures | None = None
    """What its ModelCache knows of the model; None while it knows nothing."""

    @property
    def there(self) -> bool:
        """Whether servers can be started: a download of their own is a part of their start."""
        return self.waiting is None and self.failed is None


def provision(world: ModelWorld, spec: ModelSpec) -> Provisioning:
    """How the weights of the Model stand."""
    source = world.subject.spec.get("source")
    artifact = artifact_of(source)
    if artifact is None or source is None:
        return Provisioning(Way.MOUNTED)
    if world.cache is not None:
        return _in_cache(world, spec, artifact, world.cache)
    if source.get("cache"):
        words = f"ModelCache {source['cache']} does not exist: create it, or remove source.cache"
        return Provisioning(Way.CACHE, waiting=(Reason.CACHE_NOT_FOUND, words), shown={"uri": artifact.shown_uri})
    shown = shown_download(
        world.pods, world.progress, artifact.shown_uri, world.subject.status.get("provisioning") or {}
    )
    return Provisioning(Way.EPHEMERAL, shown=shown)


# ---- kept by a ModelCache ---------------------------------------------------------------------------------------


def _in_cache(world: ModelWorld, spec: ModelSpec, artifact: Artifact, cache: Subject) -> Provisioning:
    entries: Sequence[Mapping[str, Any]] = cache.status.get("artifacts") or ()
    entry, ambiguous = _entry_for(artifact, entries)
    shown = {"uri": artifact.shown_uri, "cache": cache.name, **_numbers(entry or {})}
    if ambiguous:
        return Provisioning(Way.CACHE, failed=(DownloadReason.INCOMPATIBLE, ambiguous), shown=shown)
    if entry is None or entry["state"] != StoredState.PRESENT:
        return _not_there(cache, entry, shown)
    unfit = _unfit(spec, entry)
    if unfit is not None:
        return Provisioning(Way.CACHE, failed=(DownloadReason.INCOMPATIBLE, unfit), shown=shown)
    claim = cache.status.get("claim") or names.cache_object(cache.name)
    stored = Stored(
        cache=cache.name,
        claim=claim,
        path=entry.get("path") or entry["name"],
        file=entry.get("file") or "",
        reference=entry.get("reference") or "",
        format=(entry.get("figures") or {}).get("format") or "",
        revision=entry.get("revision") or "",
        one_node=cache.status.get("accessMode", "") != "ReadWriteMany",
    )
    figures = from_document(entry.get("figures") or {})
    return Provisioning(Way.CACHE, stored=stored, shown=shown, figures=figures)


def _entry_for(artifact: Artifact, entries: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any] | None, str]:
    """The entry of the artifact, and a sentence when several that were found could be meant."""
    own = next((entry for entry in entries if entry["name"] == artifact.name), None)
    if own is not None:
        return own, ""
    found = found_for(artifact, entries)
    if len(found) > 1:
        shown = ", ".join(str(entry.get("file") or entry.get("revision")) for entry in found[:8])
        return None, f"the volume has several models of this name ({shown}): choose one with source.files or @revision"
    return (found[0], "") if found else (None, "")


def _numbers(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The part of status.provisioning that an entry knows."""
    numbers = {key: entry[key] for key in SHOWN if entry.get(key) is not None}
    if entry.get("bytes") is not None:
        numbers["bytesTotal"] = entry["bytes"]
    if entry.get("attempt"):
        numbers["attempt"] = entry["attempt"] + 1
        numbers["lastError"] = f"{entry.get('reason')}: {entry.get('message')}"
    state = entry.get("state")
    if state == StoredState.PRESENT:
        numbers |= {"bytesDone": entry.get("bytes") or 0, "percent": 100, "filesDone": entry.get("filesTotal") or 0}
    elif state == StoredState.DOWNLOADING and entry.get("percent") is not None:
        numbers["progress"] = f"{entry['percent']}%"
    return numbers


def _not_there(cache: Subject, entry: Mapping[str, Any] | None, shown: Mapping[str, Any]) -> Provisioning:
    state = entry["state"] if entry else None
    if entry is not None and state == StoredState.FAILED:
        reason, message = str(entry.get("reason")), str(entry.get("message"))
        return Provisioning(Way.CACHE, failed=(reason, message), shown=shown)
    if cache.status.get("phase") == CachePhase.FAILED and not _is_about_artifacts(cache):
        words = f"ModelCache {cache.name} cannot be used: {_why(cache)}"
        return Provisioning(Way.CACHE, failed=(Reason.CACHE_FAILED, words), shown=shown)
    if entry is None:
        words = f"ModelCache {cache.name} is about to download the weights"
        return Provisioning(Way.CACHE, waiting=(Reason.WAITING_FOR_DOWNLOAD, words), shown=shown)
    reason = str(entry.get("reason") or Reason.WAITING_FOR_DOWNLOAD)
    message = str(entry.get("message") or f"ModelCache {cache.name} is about to download the weights")
    return Provisioning(Way.CACHE, waiting=(reason, message), shown=shown)


def _is_about_artifacts(cache: Subject) -> bool:
    """Whether what is wrong with the cache is one of its artifacts: the others may come all the same."""
    return any(entry["state"] == StoredState.FAILED for entry in cache.status.get("artifacts") or ())


def _why(cache: Subject) -> str:
    conditions = {condition["type"]: condition for condition in cache.status.get("conditions") or ()}
    return str(conditions.get("Ready", {}).get("message", "see its status"))


def _unfit(spec: ModelSpec, entry: Mapping[str, Any]) -> str | None:
    """Why the server cannot load what is there; None when nothing speaks against it."""
    figures = from_document(entry.get("figures") or {})
    if figures is not None:
        own_image = bool(spec.serving and spec.serving.image)
        quantization = spec.serving.quantization if spec.serving else None
        refusal = compatibility.check(
            figures, spec.backend, spec.gpus.count, quantization=quantization, own_image=own_image
        )
        if refusal is not None:
            return refusal.message
    if backend_for(spec.backend).loads is WeightsKind.FILE and not entry.get("file"):
        return (
            f"backend {spec.backend} loads one GGUF file, and the source has none, or several: "
            "name one with source.files, for example '*Q4_K_M.gguf'"
        )
    return None
