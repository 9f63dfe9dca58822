"""Room on a volume: what takes it, what may still come, and what goes when there is not enough."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from berth.api.model_cache_status import StoredState

Entry = Mapping[str, Any]


def taken(entry: Entry) -> int:
    """Bytes that an artifact takes or, while it is downloaded, is going to take."""
    known, done = int(entry.get("bytes") or 0), int(entry.get("bytesDone") or 0)
    if entry["state"] == StoredState.PRESENT:
        return known
    return max(known, done) if entry["state"] == StoredState.DOWNLOADING else done


def used(entries: Iterable[Entry]) -> int:
    """Bytes that are on the volume now."""
    return sum(
        int(entry.get("bytes" if entry["state"] == StoredState.PRESENT else "bytesDone") or 0) for entry in entries
    )


@dataclass(frozen=True, slots=True)
class Room:
    """What a limit leaves for one artifact."""

    allowed: int | None
    """Most bytes that it may have; None without a limit."""
    certain: bool
    """False while a download of unknown size runs: it may still take the room."""


def room_for(name: str, entries: Iterable[Entry], limit: int | None) -> Room:
    """The room for the artifact of that name beside all others."""
    if limit is None:
        return Room(None, certain=True)
    others = [entry for entry in entries if entry["name"] != name]
    certain = all(entry.get("bytes") is not None for entry in others if entry["state"] == StoredState.DOWNLOADING)
    return Room(max(0, limit - sum(map(taken, others))), certain)


def choose_victims(entries: Iterable[Entry], missing: int) -> list[str]:
    """Names of the artifacts to evict so that `missing` bytes become free; none when even all would not do.

    Only downloads that no Model refers to and nobody declared go, longest unused first. What was found on the volume
    is somebody else's and stays.
    """
    candidates = [
        entry
        for entry in entries
        if entry["state"] in (StoredState.PRESENT, StoredState.PENDING, StoredState.FAILED)
        and used([entry])
        and not (entry.get("models") or entry.get("declared") or entry.get("adopted"))
    ]
    victims: list[str] = []
    for entry in sorted(candidates, key=lambda entry: (entry.get("lastUsedAt") or "", entry["name"])):
        if missing <= 0:
            break
        victims.append(entry["name"])
        missing -= used([entry])
    return victims if missing <= 0 else []
