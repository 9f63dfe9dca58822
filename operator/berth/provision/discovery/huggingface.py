"""A repository in a cache of Hugging Face: `models--org--name/{refs,snapshots/<commit>,blobs}`.

The layout: huggingface.co/docs/hub/local-cache, and huggingface_hub 2.4.0, utils/_cache_manager.py
(_scan_cached_repo) and utils/_shared_blobs.py. Files of a snapshot are links to `../../blobs/<etag>`, and those may be
links to `../../blobs/<2 digits>/<hash>` beside all repositories; where a file system has no links they are files.
"""

import re
from collections.abc import Iterator, Sequence

from berth.planning.discovered import MOST_REFS, Kind, as_word
from berth.provision.discovery.candidate import Candidate, described
from berth.provision.discovery.grouping import group
from berth.provision.discovery.tree import Entry, File, Tree, below

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DEEPEST_FILE = 4
"""Folders within a snapshot."""
_MOST_REFS = 200
_LONGEST_REF = 64
_MAIN = "main"


class _NotWholeError(Exception):
    """A snapshot lacks a file."""


def is_repository(entries: Sequence[Entry]) -> bool:
    """Whether a folder with these entries is a repository of a cache."""
    return {"blobs", "snapshots"} <= {entry.name for entry in entries if entry.is_folder}


def candidates(tree: Tree, folder: str, entries: Sequence[Entry]) -> Iterator[Candidate]:
    """The models of every snapshot that is whole."""
    repository = _repository(folder.rpartition("/")[2])
    has_refs = any(entry.name == "refs" and entry.is_folder for entry in entries)  # none when fetched by commit
    refs = _refs(tree, below(folder, "refs")) if has_refs else {}
    for snapshot in tree.entries(below(folder, "snapshots")):
        if not snapshot.is_folder or not _COMMIT.fullmatch(snapshot.name):
            continue
        try:
            models = group(_files(tree, snapshot.path, "", 0), tree.content)
        except _NotWholeError as missing:
            tree.skip(snapshot.path, str(missing))
            continue
        for name in models.broken:
            tree.skip(below(snapshot.path, name), "parts of the model are missing")
        for model in models.whole:
            yield from described(
                tree,
                snapshot.path,
                model.weights,
                model.config,
                kind=Kind.HUGGING_FACE,
                uri=f"{repository}@{snapshot.name}" if repository else None,
                file=model.entry or None,
                bytes=model.bytes,
                files=model.files,
                revision=snapshot.name,
                refs=refs.get(snapshot.name, ()),
                format=model.format,
            )


def _repository(name: str) -> str | None:
    """The uri of the repository; None where it has no organisation, which no hf:// uri can say, or another name."""
    kind, *parts = name.split("--")
    return f"hf://{'/'.join(parts)}" if kind == "models" and len(parts) == 2 and all(parts) else None


def _files(tree: Tree, folder: str, within: str, depth: int) -> dict[str, File]:
    """The files of a snapshot by their path in it. Raises _NotWholeError."""
    files: dict[str, File] = {}
    for entry in tree.entries(folder):
        name = f"{within}{entry.name}"
        if entry.is_folder:
            if depth < _DEEPEST_FILE:
                files |= _files(tree, entry.path, f"{name}/", depth + 1)
            continue
        file = tree.file(entry.path, links=True)
        if file is None:
            raise _NotWholeError(f"the link {name!r} leads nowhere, or out of the volume")
        files[name] = file
    return files


def _refs(tree: Tree, folder: str) -> dict[str, tuple[str, ...]]:
    """The branches and tags that were at each commit, `main` first."""
    found: dict[str, list[str]] = {}
    pending, left = [folder], _MOST_REFS
    while pending and left > 0:
        for entry in tree.entries(pending.pop(0)):
            left -= 1
            if entry.is_folder:
                pending.append(entry.path)
                continue
            name = as_word(entry.path.removeprefix(f"{folder}/"))
            commit = (tree.content(tree.file(entry.path), _LONGEST_REF) or b"").decode("ascii", "replace").strip()
            if name and _COMMIT.fullmatch(commit):
                found.setdefault(commit, []).append(name)
    return {
        commit: tuple(sorted(names, key=lambda name: (name != _MAIN, name))[:MOST_REFS])
        for commit, names in found.items()
    }
