"""The search for models that are on a volume already: page by page, each page a Job, each finding an entry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from berth.api.model_cache import ModelCacheSpec
from berth.api.model_cache_status import DiscoveryState, StoredState
from berth.planning.cache_artifact import due, retry_wait
from berth.planning.cache_claim import ClaimFacts
from berth.planning.cache_objects import render_discovery
from berth.planning.cache_world import CacheWorld, JobEnd, job_end
from berth.planning.canonical import content_hash
from berth.planning.discovered import Discovered, Kind, proposals
from berth.planning.download_reasons import PASSING
from berth.planning.failures import shown
from berth.planning.plan import Note
from berth.planning.policy import Policy
from berth.planning.reasons import Reason
from berth.planning.times import format_time
from berth.planning.world import Child, Manifest

DISCOVER_ANNOTATION = "berth.dev/discover"
"""A new value searches the volume once more."""
_MOST_ENTRIES = 1000

Entry = dict[str, Any]


@dataclass(slots=True)
class Found:
    """What becomes of the search."""

    discovery: Entry | None
    entries: dict[str, Entry]
    jobs: list[Manifest] = field(default_factory=list)
    ended: list[Child] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


def discover(
    world: CacheWorld,
    spec: ModelCacheSpec,
    claim: ClaimFacts,
    entries: Mapping[str, Entry],
    policy: Policy,
    now: datetime,
) -> Found:
    """The next step of the search; `entries` are the artifacts by name, as they are known so far."""
    previous = world.subject.status.get("discovery")
    found = Found(dict(previous) if previous else None, dict(entries))
    if not spec.adopt:
        return _without_search(found, world)
    request = world.subject.annotations.get(DISCOVER_ANNOTATION, "")
    if found.discovery is None or found.discovery.get("request", "") != request:
        found.discovery = {"state": DiscoveryState.RUNNING.value, "found": 0}
        if request:
            found.discovery["request"] = request
    if claim.problem is not None:
        return found
    job = render_discovery(world.subject, spec, found.discovery.get("after", ""), request, claim.volume, policy.render)
    pages = [one for one in world.jobs if one.name.startswith("discover-")]
    current = next((one for one in pages if one.name == job["metadata"]["name"]), None)
    found.ended += [one for one in pages if one is not current]
    if current is not None:
        _look_at_page(found, current, world, claim, policy, now)
    elif found.discovery["state"] != DiscoveryState.DONE:
        waiting = due(found.discovery, now)
        if waiting > 0:
            found.waits.append(waiting)
        else:
            found.jobs.append(job)
    return found


def _without_search(found: Found, world: CacheWorld) -> Found:
    """The search is forgotten, as what it found is in cache_plan; the files stay."""
    found.discovery = None
    found.ended = [job for job in world.jobs if job.name.startswith("discover-")]
    return found


def _look_at_page(
    found: Found, job: Child, world: CacheWorld, claim: ClaimFacts, policy: Policy, now: datetime
) -> None:
    assert found.discovery is not None
    end = job_end(job, world.pods)
    if end is None:
        return
    if found.discovery.get("job") == job.uid:
        found.ended.append(job)
        return
    found.discovery["job"] = job.uid
    found.waits.append(0.0)  # the Job goes once its end is recorded
    if end.succeeded and end.message is not None and end.message["result"] == "Succeeded":
        _record_page(found, end.message, claim, now)
    else:
        _record_failure(found, end, policy, now)


def _record_page(found: Found, message: Mapping[str, Any], claim: ClaimFacts, now: datetime) -> None:
    discovery = found.discovery
    assert discovery is not None
    for key in ("reason", "message", "attempt", "retryAt"):
        discovery.pop(key, None)
    findings = [Discovered.from_document(one) for one in message.get("found", ())]
    known = [one for one in findings if one is not None]
    for finding in known:
        entry = _entry(finding, now)
        before = found.entries.get(entry["name"])
        if len(found.entries) < _MOST_ENTRIES and (before is None or before["state"] != StoredState.PRESENT):
            found.entries[entry["name"]] = {**(before or {}), **entry}
    discovery["found"] = int(discovery.get("found") or 0) + len(known)
    if message.get("more") and message.get("after"):
        discovery["after"] = message["after"]
        return
    discovery.pop("after", None)
    discovery["state"] = DiscoveryState.DONE.value
    _propose(found.entries, claim.name)
    found.notes.append(Note("Normal", "Discovered", f"{discovery['found']} models are on the volume already"))


def _record_failure(found: Found, end: JobEnd, policy: Policy, now: datetime) -> None:
    discovery, message = found.discovery, end.message or {}
    assert discovery is not None
    attempt = int(discovery.get("attempt") or 0) + 1
    reason = str(message.get("reason") or Reason.PROVISIONER_FAILED)
    final = reason != Reason.PROVISIONER_FAILED and reason not in PASSING
    discovery |= {
        "state": (DiscoveryState.FAILED if final else DiscoveryState.RUNNING).value,
        "reason": reason,
        "message": shown(str(message.get("message") or end.words or "the search ended without a message")),
        "attempt": attempt,
        "retryAt": format_time(now + timedelta(seconds=retry_wait(attempt, not final, policy))),
    }


def _entry(finding: Discovered, now: datetime) -> Entry:
    """The entry of a finding. A download of Berth's own gets its old name, so that it is known again."""
    own = finding.kind is Kind.BERTH
    folder, _, file = finding.path.rpartition("/")
    loose = finding.kind is Kind.GGUF and not finding.file
    entry: Entry = {
        "name": finding.path if own else f"found-{content_hash(finding.cursor)[:12]}",
        "state": StoredState.PRESENT.value,
        "uri": finding.uri,
        "revision": finding.revision,
        "bytes": finding.bytes,
        "filesTotal": finding.files,
        "path": folder or "." if loose else finding.path,
        "file": file if loose else finding.file,
        "reference": finding.reference,
        "adopted": None if own else True,
        "lastUsedAt": format_time(now),
        "figures": _figures(finding),
    }
    return {key: value for key, value in entry.items() if value is not None}


def _figures(finding: Discovered) -> Entry | None:
    if finding.format is None:
        return None
    figures = {
        "format": finding.format.value,
        "architecture": finding.architecture,
        "quantization": finding.quantization,
        "parameters": finding.parameters,
        "contextLength": finding.context_length,
    }
    return {key: value for key, value in figures.items() if value is not None}


def _propose(entries: dict[str, Entry], claim: str) -> None:
    """A Model for each finding, under a name that no other proposal has."""
    found = [entry for entry in entries.values() if entry.get("adopted")]
    findings = [_finding(entry) for entry in found]
    both = [(entry, finding) for entry, finding in zip(found, findings, strict=True) if finding is not None]
    for (entry, _), proposed in zip(both, proposals([finding for _, finding in both], claim), strict=True):
        entry["proposedModel"] = {"name": proposed.name, "backend": proposed.backend.value, "uri": proposed.uri}
        if proposed.files:
            entry["proposedModel"]["files"] = list(proposed.files)


def _finding(entry: Entry) -> Discovered | None:
    """The finding that an entry was made from."""
    figures = entry.get("figures") or {}
    gguf, reference = figures.get("format") == "gguf", entry.get("reference")
    kind = (
        Kind.OLLAMA if reference else Kind.HUGGING_FACE if entry.get("uri") else Kind.GGUF if gguf else Kind.SAFETENSORS
    )
    document = {
        "kind": kind.value,
        "path": entry["path"],
        "file": entry.get("file"),
        "bytes": entry.get("bytes") or 0,
        "files": entry.get("filesTotal") or 0,
        "uri": entry.get("uri"),
        "reference": reference,
        "revision": entry.get("revision"),
        **figures,
    }
    return Discovered.from_document({key: value for key, value in document.items() if value is not None})
