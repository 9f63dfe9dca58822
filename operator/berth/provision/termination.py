"""What a download says when it ends: JSON that fits into a container's termination message."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from berth.planning.figures_document import to_document
from berth.planning.model_figures import ModelFigures, Subject, Unknown
from berth.provision.errors import Reason

LONGEST = 4096
"""Bytes that the kubelet takes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a download ended."""

    uri: str
    reason: Reason | None = None
    """None when it succeeded."""
    message: str = ""
    passing: bool = False
    """Whether another run may succeed without anybody's doing."""
    revision: str | None = None
    licence: str | None = None
    file: str | None = None
    """The file that a server of single files loads, below the destination."""
    figures: ModelFigures | None = None
    bytes_total: int | None = None
    bytes_fetched: int = 0
    bytes_present: int = 0
    """Bytes of this artifact on the volume now, unfinished files included."""
    bytes_missing: int | None = None
    files_total: int | None = None
    files_done: int = 0
    verified: bool = False
    attempt: int = 1
    retries: Mapping[str, int] = field(default_factory=dict)
    """Requests made again, by what went wrong."""
    volume_free: int | None = None
    volume_capacity: int | None = None
    seconds: float = 0.0


def termination_message(outcome: Outcome) -> bytes:
    """The outcome in at most 4 KiB. Figures go first, the least important of them before the others; numbers never."""
    for longest, figures in _cuts(outcome):
        document = {
            "result": "Succeeded" if outcome.reason is None else "Failed",
            "reason": outcome.reason,
            "message": _cut(outcome.message, longest),
            "passing": outcome.passing,
            "uri": _cut(outcome.uri, min(longest, 1024)),
            "revision": outcome.revision and _cut(outcome.revision, 128),
            "licence": outcome.licence and _cut(outcome.licence, 128),
            "file": outcome.file if outcome.file and len(outcome.file) <= longest else None,
            "figures": figures,
            "bytesTotal": outcome.bytes_total,
            "bytesFetched": outcome.bytes_fetched,
            "bytesPresent": outcome.bytes_present,
            "bytesMissing": outcome.bytes_missing,
            "filesTotal": outcome.files_total,
            "filesDone": outcome.files_done,
            "verified": outcome.verified,
            "attempt": outcome.attempt,
            "retries": outcome.retries,
            "volumeFree": outcome.volume_free,
            "volumeCapacity": outcome.volume_capacity,
            "seconds": round(outcome.seconds, 1),
        }
        content = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        if len(content) <= LONGEST:
            return content
    return content


def _cuts(outcome: Outcome) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """How long texts may be, and what stays of the figures. What is left out becomes unknown, never something else."""
    if outcome.figures is not None:
        figures = outcome.figures
        yield 3000, to_document(figures)
        figures = replace(figures, unknowns=tuple(replace(one, why=_cut(one.why, 60)) for one in figures.unknowns))
        yield 3000, to_document(figures)
        unknown = Unknown(Subject.CACHE, "the message had no room for its layers")
        yield 3000, to_document(replace(figures, attention=None, unknowns=(*figures.unknowns, unknown)))
    for longest in (3000, 1000, 300, 100):
        yield longest, None


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
