"""What to fetch, what to keep and what to remove, from the listing and what is on the volume."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from berth.provision import paths
from berth.provision.listing import Listing, RemoteFile
from berth.provision.manifest import FinishedFile, Manifest, Request, StoredFile


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file on the volume."""

    size: int
    modified_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one download."""

    keep: tuple[StoredFile, ...]
    """Known to be complete."""
    rehash: tuple[RemoteFile, ...]
    """There with the right size, and nothing says whether they are right: read them."""
    fetch: tuple[RemoteFile, ...]
    stale: tuple[str, ...]
    """Partials and journals of files that are not wanted any more: removed before the download."""
    obsolete: tuple[str, ...]
    """Files of an older manifest that are not wanted any more: removed after the download."""

    @property
    def bytes_total(self) -> int:
        """Bytes of all files whose size is known."""
        return (
            sum(file.size for file in self.keep)
            + sum(file.size or 0 for file in self.rehash)
            + sum(file.size or 0 for file in self.fetch)
        )


def complete(manifest: Manifest | None, request: Request, found: Mapping[str, FoundFile]) -> bool:
    """Whether the volume already holds all that is asked for. The manifest's revision counts, not the newest."""
    if manifest is None or manifest.request != request.key:
        return False
    return all(file.path in found and found[file.path].size == file.size for file in manifest.files)


def make_plan(
    listing: Listing,
    found: Mapping[str, FoundFile],
    ledger: Mapping[str, FinishedFile],
    manifest: Manifest | None,
) -> Plan:
    """The steps that turn what is found into what is listed. `found` has every regular file on the volume."""
    known = {file.path: file for file in manifest.files} if manifest else {}
    keep: list[StoredFile] = []
    rehash: list[RemoteFile] = []
    fetch: list[RemoteFile] = []
    for file in listing.files:
        there = found.get(file.path)
        finished = ledger.get(file.path)
        if there is None or (file.size is not None and there.size != file.size):
            fetch.append(file)
        elif finished is not None and _same(file, there, finished):
            keep.append(StoredFile(file.path, finished.size, finished.sha256, finished.verified))
        elif file.path in known and file.sha256 == known[file.path].sha256 and there.size == known[file.path].size:
            keep.append(known[file.path])
        elif file.verifiable and file.size is not None:
            rehash.append(file)
        else:
            fetch.append(file)
    wanted = {file.path for file in listing.files} | set(listing.inline)
    return Plan(
        keep=tuple(keep),
        rehash=tuple(rehash),
        fetch=tuple(fetch),
        stale=tuple(sorted(_stale(found, {file.path for file in (*fetch, *rehash)}))),
        obsolete=tuple(sorted(path for path in known if path in found and path not in wanted)),
    )


def _same(file: RemoteFile, there: FoundFile, finished: FinishedFile) -> bool:
    return (
        finished.identity is not None
        and finished.identity == file.identity
        and (there.size, there.modified_ns, there.inode) == (finished.size, finished.modified_ns, finished.inode)
    )


def _stale(found: Iterable[str], fetched: set[str]) -> Iterable[str]:
    for path in found:
        for ending in (paths.STATE, paths.PARTIAL):
            if path.endswith(ending):
                if path.removesuffix(ending) not in fetched:
                    yield path
                break
