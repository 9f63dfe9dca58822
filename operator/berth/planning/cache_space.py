"""Room on a volume: what takes it, what may still come, and what goes when there is not enough."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from berth.api.model_cache_status import StoredState

Entry = Mapping[str, Any]


def used(entries: Iterable[Entry]) -> int:
    """Bytes that are on the volume now."""
    return sum(map(_here, entries))


def _here(entry: Entry) -> int:
    known, done = entry.get("bytes") or 0, entry.get("bytesDone")
    whole = entry["state"] == StoredState.PRESENT or (entry["state"] == StoredState.REMOVING and done is None)
    return int(known if whole else done or 0)


@dataclass(frozen=True, slots=True)
class Room:
    """What a limit leaves for one artifact."""

    allowed: int | None
    """Most bytes that it may have; None without a limit."""
    certain: bool
    """False while a download of unknown size runs: it may still take the room."""


def room_for(name: str, entries: Iterable[Entry], running: Container[str], limit: int | None) -> Room:
    """The room for the artifact of that name beside all others, of which those in `running` are being downloaded.

    A download takes what it is going to have. Its state does not always say that it runs: a new attempt goes on
    showing why the last one failed.
    """
    if limit is None:
        return Room(None, certain=True)
    others = [entry for entry in entries if entry["name"] != name]
    coming = [entry for entry in others if entry["name"] in running]
    growth = sum(max(0, int(entry.get("bytes") or 0) - _here(entry)) for entry in coming)
    certain = all(entry.get("bytes") is not None for entry in coming)
    return Room(max(0, limit - used(others) - growth), certain)


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
