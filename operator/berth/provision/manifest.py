"""The manifest: written last, so that its presence means that every file is there and as it should be."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from berth.planning.figures_document import from_document, to_document
from berth.planning.model_figures import ModelFigures


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be on the volume."""

    uri: str
    include: tuple[str, ...] = ()
    sha256: str | None = None

    @property
    def key(self) -> str:
        """Names the request in files on the volume, where the uri itself is not written: a signed one is a secret."""
        return hashlib.sha256(json.dumps([self.uri, sorted(self.include), self.sha256]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A complete file."""

    path: str
    size: int
    sha256: str
    verified: bool
    """Whether a published digest was compared."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that is on the volume for a request."""

    request: str
    """Key of the request."""
    uri: str
    """For people: without what may be secret."""
    revision: str | None
    licence: str | None
    created_at: str
    files: tuple[StoredFile, ...]
    file: str | None = None
    """The one that a server of single files loads."""
    figures: ModelFigures | None = None
    """What the model says of itself; missing in older manifests."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def verified(self) -> bool:
        """Whether a published digest was compared for every file."""
        return all(file.verified for file in self.files)


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """A line of the ledger: a file that an unfinished download has completed, and how to know it again."""

    path: str
    size: int
    sha256: str
    identity: str | None
    verified: bool
    modified_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Resolution:
    """What an unfinished download decided when it was first begun."""

    request: str
    """Key of the request."""
    revision: str | None
    attempt: int


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest as it is stored."""
    document = {
        "version": 1,
        "request": manifest.request,
        "uri": manifest.uri,
        "revision": manifest.revision,
        "licence": manifest.licence,
        "createdAt": manifest.created_at,
        "bytes": manifest.size,
        "verified": manifest.verified,
        "file": manifest.file,
        "figures": to_document(manifest.figures) if manifest.figures else None,
        "files": [asdict(file) for file in manifest.files],
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def read_manifest(content: bytes) -> Manifest | None:
    """The manifest, or None when it is none that this version understands."""
    document = _object(content)
    try:
        if document["version"] != 1:
            return None
        files = tuple(
            StoredFile(str(file["path"]), int(file["size"]), str(file["sha256"]), bool(file["verified"]))
            for file in document["files"]
        )
        return Manifest(
            str(document["request"]),
            str(document["uri"]),
            document["revision"],
            document["licence"],
            str(document["createdAt"]),
            files,
            document.get("file"),
            from_document(document.get("figures")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def write_ledger_line(file: FinishedFile) -> bytes:
    """One line of the ledger."""
    return json.dumps(asdict(file)).encode() + b"\n"


def read_ledger(content: bytes) -> dict[str, FinishedFile]:
    """The finished files by path. A line that was cut off is left out; the file is then hashed anew."""
    finished = {}
    for line in content.splitlines():
        try:
            file = FinishedFile(**json.loads(line))
            finished[file.path] = file
        except (TypeError, ValueError):
            continue
    return finished


def write_resolution(resolution: Resolution) -> bytes:
    """The resolution as it is stored."""
    return json.dumps(asdict(resolution)).encode() + b"\n"


def read_resolution(content: bytes) -> Resolution | None:
    """The resolution, or None when it cannot be read."""
    document = _object(content)
    try:
        return Resolution(str(document["request"]), document["revision"], int(document["attempt"]))
    except (KeyError, TypeError, ValueError):
        return None


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
