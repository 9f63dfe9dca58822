"""A store of Ollama: `manifests/<host>/<namespace>/<model>/<tag>` and `blobs/sha256-<digest>`.

The layout: ollama, manifest/paths.go and manifest/manifest.go. Newer versions keep names in `manifests-v2`, as links
into the blobs, and look there first; a manifest may be a list with one manifest for each kind of runner. Blobs whose
download has not ended are called `sha256-<digest>-partial`.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from berth.planning.discovered import Kind
from berth.planning.model_figures import WeightsFormat
from berth.provision.discovery.candidate import Candidate, described
from berth.provision.discovery.tree import Entry, File, Tree, below

_ROOTS = ("manifests-v2", "manifests")
_PUBLIC = "registry.ollama.ai"
_LIBRARY = "library"
_LEVELS = 3
"""Folders of host, namespace and model; below them are the tags."""
_MAX_MANIFEST = 4 * 2**20
_MOST_LAYERS = 20_000
_MODEL_LAYER = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_RUNNERS = ("ollama", "llamacpp", "mlx")
"""In the order that the server prefers them on Linux (runnerPreferences)."""

Json = Mapping[str, Any]


def is_store(entries: Sequence[Entry]) -> bool:
    """Whether a folder with these entries is a store."""
    folders = {entry.name for entry in entries if entry.is_folder}
    return "blobs" in folders and not folders.isdisjoint(_ROOTS)


def belongs(name: str) -> bool:
    """Whether a folder of a store is its own."""
    return name in ("blobs", *_ROOTS)


def candidates(tree: Tree, folder: str, entries: Sequence[Entry]) -> Iterator[Candidate]:
    """The models whose blobs are all there."""
    seen: set[str] = set()
    for root in _ROOTS:
        if not any(entry.name == root and entry.is_folder for entry in entries):
            continue
        for entry in _tags(tree, below(folder, root), _LEVELS):
            reference = _reference(entry.path.split("/")[-4:])
            if reference not in seen:
                seen.add(reference)
                yield from _model(tree, folder, entry, reference)


def _tags(tree: Tree, folder: str, levels: int) -> Iterator[Entry]:
    for entry in tree.entries(folder):
        if entry.name.startswith("."):
            continue
        if levels and entry.is_folder:
            yield from _tags(tree, entry.path, levels - 1)
        elif not levels and not entry.is_folder:
            yield entry


def _reference(parts: Sequence[str]) -> str:
    """The name by which the server knows a model, as short as it says it itself."""
    host, namespace, model, tag = parts
    name = f"{model}:{tag}"
    if host != _PUBLIC:
        return f"{host}/{namespace}/{name}"
    return name if namespace == _LIBRARY else f"{namespace}/{name}"


def _model(tree: Tree, store: str, entry: Entry, reference: str) -> Iterator[Candidate]:
    content = tree.content(tree.file(entry.path, links=True), _MAX_MANIFEST)
    manifest = _selected(tree, store, _parsed(content))
    blobs = _blobs(tree, store, manifest) if manifest else None
    if content is None or manifest is None or blobs is None:
        tree.skip(entry.path, "its manifest cannot be read, or blobs of it are missing")
        return
    models = tuple(blob for kind, blob in blobs if kind == _MODEL_LAYER)
    sizes = {blob.path: blob.size for _, blob in blobs}
    yield from described(
        tree,
        store,
        models[:1],
        kind=Kind.OLLAMA,
        uri=f"ollama://{reference}",
        reference=reference,
        bytes=sum(sizes.values()),
        files=len(sizes),
        revision=f"sha256:{hashlib.sha256(content).hexdigest()}",
        format=WeightsFormat.GGUF if models else None,
    )


def _parsed(content: bytes | None) -> Json | None:
    try:
        document = json.loads(content or b"")
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _selected(tree: Tree, store: str, manifest: Json | None) -> Json | None:
    """The manifest itself, or the one of a list that the server would take."""
    children = manifest.get("manifests") if manifest else None
    if not isinstance(children, list):
        return manifest
    runners = {str(child.get("runner")).lower(): child for child in children if isinstance(child, dict)}
    child: Json | None = next((runners[name] for name in _RUNNERS if name in runners), None)
    if child and not child.get("layers"):
        return _parsed(tree.content(_blob(tree, store, child.get("digest")), _MAX_MANIFEST))
    return child


def _blobs(tree: Tree, store: str, manifest: Json) -> list[tuple[str, File]] | None:
    """The blobs that a manifest names with the kind of each; None unless all are there with their sizes."""
    layers, config = manifest.get("layers"), manifest.get("config")
    if not isinstance(layers, list) or not 0 < len(layers) <= _MOST_LAYERS:
        return None
    blobs = []
    for layer in (*layers, *([config] if config else [])):
        if not isinstance(layer, dict):
            return None
        blob = _blob(tree, store, layer.get("digest"))
        if blob is None or blob.size != layer.get("size"):
            return None
        blobs.append((str(layer.get("mediaType")), blob))
    return blobs


def _blob(tree: Tree, store: str, digest: object) -> File | None:
    found = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    return tree.file(below(store, f"blobs/sha256-{found[1]}"), links=True) if found else None
