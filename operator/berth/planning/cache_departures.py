"""What goes from the volume of a ModelCache: what should be absent, and what makes room for others."""

from typing import Any

from berth.api.model_cache import Eviction
from berth.api.model_cache_status import StoredState
from berth.planning.cache_artifact import due
from berth.planning.cache_demand import Wanted
from berth.planning.cache_look import Look
from berth.planning.cache_objects import render_removal
from berth.planning.cache_space import choose_victims, used
from berth.planning.download_reasons import DownloadReason
from berth.planning.plan import Note
from berth.planning.reasons import Reason

Entry = dict[str, Any]


def remove_what_should_be_absent(look: Look) -> None:
    """Begin to remove what spec.artifacts calls Absent, or say who uses it still."""
    for name, wanted in look.wanted.items():
        entry = look.draft.entries.get(name)
        if entry is None or not wanted.absent:
            continue
        if wanted.models:
            _keep(entry, wanted)
        elif entry["state"] == StoredState.PENDING and not (
            entry.get("attempt") or used([entry]) or name in look.worked_on
        ):
            entry["state"] = StoredState.ABSENT.value
        elif entry["state"] != StoredState.ABSENT:
            _remove(entry, "spec.artifacts says Absent")


def make_room(look: Look, entry: Entry, allowed: int | None) -> bool:
    """Evict what is enough, if there is enough; whether something is on its way out."""
    if look.spec.eviction is not Eviction.LRU:
        return False
    going = [other for other in look.draft.entries.values() if other["state"] == StoredState.REMOVING]
    if not going:
        missing = int(entry.get("bytes") or 0) - int(entry.get("bytesDone") or 0)
        if allowed is not None and entry.get("reason") != DownloadReason.NO_SPACE:
            missing = int(entry.get("bytes") or 0) - allowed
        for name in choose_victims((e for e in look.draft.entries.values() if e is not entry), missing):
            victim = look.draft.entries[name]
            _remove(victim, "it makes room: no Model refers to it")
            going.append(victim)
            what = victim.get("uri") or name
            look.draft.notes.append(Note("Normal", "Evicted", f"{what} makes room for {entry.get('uri')}"))
    if not going:
        return False
    entry |= {
        "state": StoredState.PENDING.value,
        "reason": str(Reason.WAITING_FOR_SPACE),
        "message": f"room is being made: {', '.join(one.get('uri') or one['name'] for one in going)} goes",
    }
    entry.pop("retryAt", None)
    return True


def room_is_being_made(look: Look, entry: Entry) -> bool:
    """Whether the artifact waits for something that is on its way out."""
    going = any(other["state"] == StoredState.REMOVING for other in look.draft.entries.values())
    return going and entry.get("reason") == Reason.WAITING_FOR_SPACE


def start_removals(look: Look) -> None:
    """Make the Jobs of removals that have begun and have none."""
    for name, entry in look.draft.entries.items():
        if entry["state"] != StoredState.REMOVING or name in look.worked_on or look.claim.problem is not None:
            continue
        if (waiting := due(entry, look.now)) > 0:
            look.draft.waits.append(waiting)
            continue
        path = entry.get("path") or name
        job = render_removal(look.world.subject, look.spec, name, path, look.claim.volume, look.policy.render)
        if not look.refused(job, entry):
            look.draft.jobs.append(job)


def _keep(entry: Entry, wanted: Wanted) -> None:
    """Say why it is not removed, unless there is something else to say of it."""
    if entry["state"] == StoredState.PRESENT or (entry["state"] == StoredState.PENDING and not wanted.active):
        users = ", ".join(wanted.models[:5])
        words = f"spec.artifacts says Absent, but it is used by {users}: give them another source first"
        entry |= {"reason": str(Reason.IN_USE), "message": words}


def _remove(entry: Entry, why: str) -> None:
    if entry["state"] != StoredState.REMOVING:
        entry.pop("retryAt", None)
        entry |= {"state": StoredState.REMOVING.value, "reason": str(Reason.REMOVING), "message": why}
