"""What comes onto the volume of a ModelCache: which downloads begin now, and what the others wait for."""

from typing import Any

from berth.api.model_cache import Eviction
from berth.api.model_cache_status import StoredState
from berth.planning.cache_artifact import due
from berth.planning.cache_demand import Wanted, placement_of
from berth.planning.cache_departures import make_room, room_is_being_made
from berth.planning.cache_look import Look, wait
from berth.planning.cache_objects import render_download
from berth.planning.cache_space import room_for
from berth.planning.download_reasons import DownloadReason
from berth.planning.progress_words import size
from berth.planning.reasons import Reason

Entry = dict[str, Any]


def start_downloads(look: Look) -> None:
    """The most important first, then the oldest."""
    todo = [name for name, wanted in look.wanted.items() if wanted.active and _may_come(look, name)]
    for name in sorted(todo, key=lambda name: _turn(look, name)):
        _consider(look, name, look.wanted[name])


def _may_come(look: Look, name: str) -> bool:
    state = look.draft.entries[name]["state"]
    free = name not in look.worked_on
    return free and state in (StoredState.PENDING, StoredState.FAILED, StoredState.ABSENT)


def _turn(look: Look, name: str) -> tuple[int, float, str]:
    wanted = look.wanted[name]
    return (-wanted.priority, wanted.since.timestamp() if wanted.since else 0.0, name)


def _consider(look: Look, name: str, wanted: Wanted) -> None:
    """Start the download, or say what it waits for."""
    entry, draft = look.draft.entries[name], look.draft
    if look.claim.problem is not None:
        wait(entry, *look.claim.problem)
        return
    room = room_for(name, draft.entries.values(), draft.running, look.limit)
    needed = entry.get("bytes")
    too_large = needed is not None and room.allowed is not None and needed > room.allowed
    no_space = entry.get("reason") == DownloadReason.NO_SPACE or room_is_being_made(look, entry)
    if (too_large or no_space) and make_room(look, entry, room.allowed):
        return
    if too_large:
        _refuse(look, entry, needed or 0, room.allowed or 0)
        return
    waiting = due(entry, look.now)
    if waiting > 0 and entry.get("inputs") == look.inputs(wanted):
        draft.waits.append(waiting)
        return
    if not room.certain:
        wait(entry, Reason.WAITING_FOR_SPACE, "another download has not said its size yet, and spec.limit is shared")
        return
    if len(draft.running) >= look.spec.max_parallel_downloads:
        words = f"{len(draft.running)} downloads run, and spec.maxParallelDownloads allows no more"
        wait(entry, Reason.WAITING_FOR_SLOT, words)
        return
    _start(look, name, wanted, entry, room.allowed)


def _start(look: Look, name: str, wanted: Wanted, entry: Entry, allowed: int | None) -> None:
    volume = look.claim.volume
    placement = placement_of(wanted, look.world.nodes, one_node=volume.one_node, bound=look.claim.bound)
    if placement is None:
        resource = wanted.specs[0].gpus.resource
        words = f"no node offers enough {resource} yet, and the volume must not be made where no server can follow"
        wait(entry, Reason.WAITING_FOR_NODE, words)
        return
    job = render_download(
        look.world.subject,
        look.spec,
        wanted.artifact,
        wanted.secret,
        wanted.demands,
        allowed,
        volume,
        placement,
        look.policy.render,
    )
    if look.refused(job, entry):
        return
    look.draft.jobs.append(job)
    look.draft.running.add(name)
    entry["inputs"] = look.inputs(wanted)
    entry.pop("retryAt", None)
    if entry["state"] != StoredState.FAILED:
        entry |= {
            "state": StoredState.DOWNLOADING.value,
            "reason": Reason.DOWNLOADING,
            "message": "the download is starting",
        }


def _refuse(look: Look, entry: Entry, needed: int, allowed: int) -> None:
    words = (
        f"the files have {size(needed)}, and spec.limit leaves {size(allowed)}: raise spec.limit, "
        "remove other artifacts, or take fewer files with files"
    )
    if look.spec.eviction is Eviction.NONE:
        words += "; spec.eviction LRU would remove what nobody refers to"
    entry.pop("retryAt", None)  # it goes on as soon as there is room
    entry |= {
        "state": StoredState.FAILED.value,
        "reason": DownloadReason.LIMIT_EXCEEDED.value,
        "message": words,
    }
