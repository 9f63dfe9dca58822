"""Berth's own artifacts: a folder of the volume with the manifest that a download wrote last."""

from collections.abc import Iterator, Sequence

from berth.planning.discovered import Kind, as_word
from berth.planning.model_figures import WeightsFormat
from berth.provision import paths
from berth.provision.discovery.candidate import Candidate, described
from berth.provision.discovery.grouping import Group, group
from berth.provision.discovery.tree import Entry, File, Tree, below
from berth.provision.manifest import Manifest, read_manifest

_MAX_MANIFEST = 4 * 2**20
"""A thousand files take a quarter of a mebibyte."""
_STORE = "manifests/"


def manifest_of(tree: Tree, entries: Sequence[Entry]) -> Manifest | None:
    """The manifest in a folder with these entries."""
    found = next((entry for entry in entries if entry.name == paths.MANIFEST), None)
    content = tree.content(tree.file(found.path), _MAX_MANIFEST) if found else None
    try:
        return read_manifest(content or b"")
    except (RecursionError, OverflowError):  # JSON that is nested deeply, or a size that is Infinity
        return None


def is_artifact(manifest: Manifest | None, entries: Sequence[Entry]) -> bool:
    """Whether a folder is an artifact, finished or not."""
    return manifest is not None or any(entry.name == paths.CONTROL and entry.is_folder for entry in entries)


def candidates(tree: Tree, folder: str, manifest: Manifest | None) -> Iterator[Candidate]:
    """The artifact as one finding, when it is finished. Figures only where it holds one model and no more."""
    if manifest is None:
        tree.skip(folder, "its download has not ended")
        return
    files = {stored.path: tree.file(below(folder, stored.path)) for stored in manifest.files}
    whole: dict[str, File] = {path: file for path, file in files.items() if file is not None}
    if not whole or any(path not in whole or whole[path].size != size for path, size in _sizes(manifest)):
        tree.skip(folder, "it is not as its manifest says")
        return
    models = group(whole, tree.content).whole
    model = models[0] if len(models) == 1 else None
    yield from described(
        tree,
        folder,
        model.weights if model else (),
        model.config if model else None,
        kind=Kind.BERTH,
        uri=manifest.uri,
        request=manifest.request,
        revision=as_word(manifest.revision),
        bytes=manifest.size,
        files=len(manifest.files),
        reference=_reference(manifest),
        file=(model.entry or None) if model else None,
        format=_format(models),
    )


def _sizes(manifest: Manifest) -> Iterator[tuple[str, int]]:
    for stored in manifest.files:
        yield stored.path, stored.size


def _reference(manifest: Manifest) -> str | None:
    """The model's name in an artifact that is a store of Ollama."""
    is_store = any(stored.path.startswith(_STORE) for stored in manifest.files)
    scheme, _, name = manifest.uri.partition("://")
    return name if is_store and scheme == "ollama" else None


def _format(models: Sequence[Group]) -> WeightsFormat | None:
    formats = {model.format for model in models}
    return formats.pop() if len(formats) == 1 else None
