"""What an artifact is: its identity, its name on a volume, and which ModelCache a source belongs to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote, urlsplit

from berth.planning.canonical import content_hash

DEFAULT_CACHE = "default"
"""The ModelCache of sources that name none."""
DOWNLOADED = ("hf", "https", "s3", "ollama")
"""Schemes whose weights Berth downloads; the others are mounted."""

_LONGEST_SLUG = 36
_NO_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A source and which of its files are taken: the same for everybody who writes the same."""

    uri: str
    files: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def scheme(self) -> str:
        """The scheme of the uri."""
        return self.uri.partition("://")[0]

    @property
    def name(self) -> str:
        """Its folder on the volume: readable, and different for different artifacts. At most 45 characters."""
        digest = content_hash([self.uri, sorted(self.files), self.sha256])[:8]
        return f"{_slug(self.uri)}-{digest}"

    @property
    def shown_uri(self) -> str:
        """The uri for people: without a query, which may be a signature."""
        return self.uri.partition("?")[0] if self.scheme == "https" else self.uri


def artifact_of(source: Mapping[str, Any] | None) -> Artifact | None:
    """The artifact of a source as it stands in a spec; None when there is nothing to download."""
    uri = (source or {}).get("uri") or ""
    if source is None or uri.partition("://")[0] not in DOWNLOADED:
        return None
    return Artifact(uri, tuple(sorted(source.get("files") or ())), source.get("sha256") or "")


def cache_of(spec: Mapping[str, Any]) -> str | None:
    """Name of the ModelCache that a Model's weights belong to, if there is one; None when it needs none."""
    source = spec.get("source")
    if artifact_of(source) is None or source is None:
        return None
    return source.get("cache") or DEFAULT_CACHE


def secret_of(source: Mapping[str, Any]) -> str:
    """Name of the Secret with the token or keys; empty when the source names none."""
    return (source.get("secretRef") or {}).get("name") or ""


def file_name(artifact: Artifact) -> str:
    """Name of the only file, where the source itself says it; empty when only the download can tell."""
    if artifact.scheme == "https":
        return unquote(urlsplit(artifact.uri).path.rpartition("/")[2])
    if artifact.scheme == "s3" and artifact.uri.lower().endswith(".gguf"):
        return artifact.uri.rpartition("/")[2]
    if len(artifact.files) == 1 and not any(character in artifact.files[0] for character in "*?["):
        return artifact.files[0]
    return ""


def found_for(artifact: Artifact, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The entries of a cache, found on its volume, that are this artifact by its hub name.

    A found revision is a commit; a source without one takes whichever is there. Globs choose among GGUF files as they
    choose what is downloaded.
    """
    if artifact.scheme not in ("hf", "ollama"):
        return []
    fitting = []
    for entry in entries:
        uri = entry.get("uri") or ""
        if not entry.get("adopted") or not _same_origin(artifact, uri):
            continue
        file = entry.get("file") or ""
        if artifact.files and file and not any(fnmatchcase(file, pattern) for pattern in artifact.files):
            continue
        fitting.append(entry)
    return fitting


def _same_origin(artifact: Artifact, uri: str) -> bool:
    if artifact.scheme == "ollama":
        return _with_tag(artifact.uri) == _with_tag(uri)
    wanted, _, revision = artifact.uri.partition("@")
    found, _, commit = uri.partition("@")
    return wanted == found and (not revision or revision in (commit, "main"))


def _with_tag(uri: str) -> str:
    name = uri.removeprefix("ollama://")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def ollama_reference(uri: str) -> str:
    """The name that a store of Ollama has for an `ollama://` uri."""
    return _with_tag(uri)


def _slug(uri: str) -> str:
    rest = uri.partition("://")[2].partition("?")[0].partition("@")[0].rstrip("/")
    last = _NO_SLUG.sub("-", rest.rpartition("/")[2].lower().removesuffix(".gguf")).strip("-")
    return last[:_LONGEST_SLUG].strip("-") or "artifact"
