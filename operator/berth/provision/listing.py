"""What a source offers: its files, and which of them are wanted."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from berth.provision import paths
from berth.provision.errors import ProvisionError, Reason

_LARGEST = 1 << 50
"""A size beyond this is a mistake, and its journal would not fit into memory."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that can be fetched."""

    path: str
    """Below the destination."""
    url: str
    size: int | None = None
    sha256: str | None = None
    git_oid: str | None = None
    """SHA-1 of the git blob, where a hub publishes no sha256."""
    validator: str | None = None
    """A strong ETag: tells whether the file changed when nobody publishes a digest."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> str | None:
        """Names these very bytes; None when nothing does, and then nothing is resumed by another process."""
        digest = self.sha256 or self.git_oid or self.validator
        if digest is None or self.size is None:
            return None
        return hashlib.sha256(f"{self.size} {digest}".encode()).hexdigest()

    @property
    def verifiable(self) -> bool:
        """Whether a published digest can be compared."""
        return bool(self.sha256 or (self.git_oid and self.size is not None))


@dataclass(frozen=True, slots=True)
class Listing:
    """All that a source offers at one revision."""

    files: tuple[RemoteFile, ...]
    revision: str | None = None
    """The exact revision: a commit, or the digest of a manifest."""
    licence: str | None = None
    inline: Mapping[str, bytes] = field(default_factory=dict)
    """Small files that came with the listing, by path. They are written last: they refer to the others."""
    known_gguf: tuple[str, ...] = ()
    """Files that the source calls GGUF models, where names do not tell."""

    def __post_init__(self) -> None:
        every = [file.path for file in self.files] + list(self.inline)
        for path in every:
            paths.safe_path(path)
        paths.check_together(every)
        for file in self.files:
            if file.size is not None and not 0 <= file.size < _LARGEST:
                raise ProvisionError(Reason.UNEXPECTED_CONTENT, f"{file.path} cannot have {file.size} bytes")


def select(names: Sequence[str], include: Sequence[str]) -> list[str]:
    """The names that a pattern fits, in their order; all without patterns. `*` crosses slashes, as on the hub."""
    if not include:
        return list(names)
    patterns = [pattern + "*" if pattern.endswith("/") else pattern for pattern in include]
    chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        some = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        wanted = ", ".join(include)
        raise ProvisionError(
            Reason.NO_FILE_MATCHES, f"no file fits source.files ({wanted}); the source has: {some or 'no files'}"
        )
    return chosen
