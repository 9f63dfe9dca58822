"""Walks the volume and tells what looks like a whole model, in an order that stays."""

from collections.abc import Iterator, Sequence

from berth.planning.discovered import Kind
from berth.planning.model_figures import WeightsFormat
from berth.provision.discovery import artifacts, huggingface, ollama
from berth.provision.discovery.candidate import Candidate, described
from berth.provision.discovery.grouping import group, is_weights
from berth.provision.discovery.tree import Entry, Tree, below

_MOST_CANDIDATES = 10_000
_VOLUME = "."
_NO_MODELS = frozenset({".git", ".locks", ".no_exist"})
"""Folders of git and of the cache of Hugging Face that hold no models under names that say so."""
_OTHER_REPOSITORIES = ("datasets--", "spaces--")


def scan(tree: Tree) -> list[Candidate]:
    """All candidates by their cursors, which are unique."""
    found: dict[str, Candidate] = {}
    for candidate in _folder(tree, _VOLUME, 0):
        if len(found) >= _MOST_CANDIDATES:
            tree.skip(candidate.found.path, f"there are {_MOST_CANDIDATES} models before it")
            break
        found.setdefault(candidate.found.cursor, candidate)
    return [found[cursor] for cursor in sorted(found)]


def _folder(tree: Tree, folder: str, depth: int) -> Iterator[Candidate]:
    entries = tree.entries(folder)
    if depth == 1:
        manifest = artifacts.manifest_of(tree, entries)
        if artifacts.is_artifact(manifest, entries):
            yield from artifacts.candidates(tree, folder, manifest)
            return
    if huggingface.is_repository(entries):
        yield from huggingface.candidates(tree, folder, entries)
        return
    is_store = ollama.is_store(entries)
    if is_store:
        yield from ollama.candidates(tree, folder, entries)
    yield from _loose(tree, folder, entries)
    for entry in entries:
        own = is_store and ollama.belongs(entry.name)
        other = entry.name in _NO_MODELS or entry.name.startswith(_OTHER_REPOSITORIES)
        if entry.is_folder and not own and not other:
            yield from _folder(tree, entry.path, depth + 1)


def _loose(tree: Tree, folder: str, entries: Sequence[Entry]) -> Iterator[Candidate]:
    """Models that lie in a folder as they are. Links are left alone: what they lead to is found where it is."""
    if not any(is_weights(entry.name) for entry in entries if not entry.is_folder):
        return
    files = {}
    for entry in entries:
        if entry.is_link and is_weights(entry.name) and tree.file(entry.path, links=True) is None:
            tree.skip(entry.path, "the link leads nowhere, or out of the volume")
        elif not entry.is_link and not entry.is_folder and (file := tree.file(entry.path)):
            files[entry.name] = file
    models = group(files, tree.content)
    for name in models.broken:
        tree.skip(below(folder, name), "parts of the model are missing")
    for model in models.whole:
        gguf = model.format is WeightsFormat.GGUF
        yield from described(
            tree,
            below(folder, model.entry) if gguf else folder,
            model.weights,
            model.config,
            kind=Kind.GGUF if gguf else Kind.SAFETENSORS,
            bytes=model.bytes,
            files=model.files,
            format=model.format,
        )
