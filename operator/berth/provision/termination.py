"""What a download says when it ends: JSON that fits into a container's termination message."""

import json
from dataclasses import dataclass

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
    bytes_total: int | None = None
    bytes_fetched: int = 0
    files_total: int | None = None
    verified: bool = False
    attempt: int = 1
    seconds: float = 0.0


def termination_message(outcome: Outcome) -> bytes:
    """The outcome in at most 4 KiB; long texts are cut, numbers never."""
    for longest in (3000, 1000, 300, 100):
        document = {
            "result": "Succeeded" if outcome.reason is None else "Failed",
            "reason": outcome.reason,
            "message": _cut(outcome.message, longest),
            "passing": outcome.passing,
            "uri": _cut(outcome.uri, min(longest, 1024)),
            "revision": outcome.revision and _cut(outcome.revision, 128),
            "licence": outcome.licence and _cut(outcome.licence, 128),
            "bytesTotal": outcome.bytes_total,
            "bytesFetched": outcome.bytes_fetched,
            "filesTotal": outcome.files_total,
            "verified": outcome.verified,
            "attempt": outcome.attempt,
            "seconds": round(outcome.seconds, 1),
        }
        content = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        if len(content) <= LONGEST:
            return content
    return content


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
