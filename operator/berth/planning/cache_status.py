"""The status of a ModelCache as it is written, and when writing it is worth it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from berth.api.base import quantity_value
from berth.api.model_cache import ModelCacheSpec
from berth.api.model_cache_status import CachePhase, DiscoveryState, StoredState
from berth.planning.cache_claim import ClaimFacts
from berth.planning.cache_space import used
from berth.planning.cache_world import CacheWorld
from berth.planning.conditions import stamp_all
from berth.planning.model_status import same
from berth.planning.plan import Plan
from berth.planning.policy import Policy
from berth.planning.progress_words import size
from berth.planning.reasons import Reason
from berth.planning.times import format_time

_NUMBERS = ("bytesDone", "percent", "bytesPerSecond", "etaSeconds", "filesDone", "message")


@dataclass(frozen=True, slots=True)
class Report:
    """What one look at a ModelCache found."""

    entries: Sequence[Mapping[str, Any]]
    discovery: Mapping[str, Any] | None = None
    claim: ClaimFacts | None = None
    invalid: tuple[str, str] | None = None
    """Reason and message of what only a person can mend."""
    refused: tuple[str, str] | None = None
    wanted: frozenset[str] = field(default_factory=frozenset)
    """Names of the artifacts that should be there, or be gone."""
    served: tuple[str, ...] = ()
    """Nodes whose Pods use the volume."""


@dataclass(frozen=True, slots=True)
class CacheVerdict:
    """The conditions of a ModelCache, before they are stamped with times."""

    phase: CachePhase
    reason: str
    message: str
    accepted: bool = True

    @property
    def conditions(self) -> list[tuple[str, bool, str, str]]:
        """Type, whether it holds, reason and message."""
        found = [("Ready", self.phase is CachePhase.READY, self.reason, self.message)]
        if self.phase in (CachePhase.PENDING, CachePhase.PROVISIONING):
            found.append(("Reconciling", True, self.reason, self.message))
        if self.phase is CachePhase.FAILED:
            found.append(("Stalled", True, self.reason, self.message))
        accepted = (Reason.VALID, "the spec can be carried out") if self.accepted else (self.reason, self.message)
        found.append(("Accepted", self.accepted, *accepted))
        return found


def assess_cache(told: Report) -> CacheVerdict:
    """The verdict: the first that applies wins."""
    if told.invalid is not None:
        reason, message = told.invalid
        return CacheVerdict(CachePhase.FAILED, reason, message, accepted=reason != Reason.INVALID_SPEC)
    if told.refused is not None:
        return CacheVerdict(CachePhase.PENDING, *told.refused)
    if told.claim is not None and told.claim.problem is not None:
        phase = CachePhase.FAILED if told.claim.final else CachePhase.PENDING
        return CacheVerdict(phase, *told.claim.problem)
    failed = [entry for entry in told.entries if entry["state"] == StoredState.FAILED]
    for entry in failed:
        if entry.get("declared"):
            what = entry.get("uri") or entry["name"]
            return CacheVerdict(CachePhase.FAILED, str(entry.get("reason")), f"{what}: {entry.get('message')}")
    if told.discovery is not None and told.discovery["state"] == DiscoveryState.FAILED:
        words = f"the search for models failed: {told.discovery.get('message')}"
        return CacheVerdict(CachePhase.FAILED, str(told.discovery.get("reason")), words)
    busy = [entry for entry in told.entries if _is_busy(entry, told.wanted)]
    if busy:
        return _busy(busy)
    if told.discovery is not None and told.discovery["state"] == DiscoveryState.RUNNING:
        words = f"the volume is searched for models; {told.discovery.get('found', 0)} found so far"
        return CacheVerdict(CachePhase.PROVISIONING, Reason.DISCOVERING, words)
    present = sum(entry["state"] == StoredState.PRESENT for entry in told.entries)
    words = f"{present} artifact{'' if present == 1 else 's'} on the volume"
    if failed:
        words += f"; {failed[0].get('uri')} could not be downloaded: {failed[0].get('message')}"
    return CacheVerdict(CachePhase.READY, Reason.AS_DECLARED, words)


def _is_busy(entry: Mapping[str, Any], wanted: frozenset[str]) -> bool:
    state = entry["state"]
    if state in (StoredState.DOWNLOADING, StoredState.REMOVING):
        return True
    return state == StoredState.PENDING and entry["name"] in wanted


def _busy(entries: Sequence[Mapping[str, Any]]) -> CacheVerdict:
    """The one that moves is shown before those that wait."""
    first = min(entries, key=lambda entry: (entry["state"] == StoredState.PENDING, entry["name"]))
    words = f"{first.get('uri') or first['name']}: {first.get('message') or first['state']}"
    if len(entries) > 1:
        words += f". {len(entries) - 1} more under way"
    return CacheVerdict(CachePhase.PROVISIONING, str(first.get("reason") or Reason.WAITING_FOR_DOWNLOAD), words)


def report(
    world: CacheWorld, spec: ModelCacheSpec | None, told: Report, plan: Plan, now: datetime, policy: Policy
) -> Plan:
    """The plan with the status to write, if it is worth a write now."""
    subject = world.subject
    verdict = assess_cache(told)
    status = _status(world, spec, told, verdict, now)
    if same(status, subject.status):
        return plan
    wait = _wait(world, status, now, policy)
    if wait is not None:
        looks = [wait, *([plan.look_again] if plan.look_again is not None else [])]
        return replace(plan, look_again=min(looks))
    before = subject.status.get("phase", CachePhase.PENDING.value)
    transition = (before, verdict.phase.value, verdict.reason) if before != verdict.phase.value else None
    return replace(plan, status=status, transition=transition)


def _status(
    world: CacheWorld, spec: ModelCacheSpec | None, told: Report, verdict: CacheVerdict, now: datetime
) -> dict[str, Any]:
    subject = world.subject
    previous = subject.status
    status: dict[str, Any] = {
        "observedGeneration": subject.generation,
        "phase": verdict.phase.value,
        "conditions": stamp_all(
            verdict.conditions, subject.generation, previous.get("conditions") or (), format_time(now)
        ),
    }
    if told.claim is None or spec is None:
        kept = ("claim", "accessMode", "nodes", "capacity", "usedBytes", "used", "present", "artifacts", "discovery")
        return status | {key: previous[key] for key in kept if key in previous}
    status["claim"] = told.claim.name
    total = used(told.entries)
    room = spec.limit or told.claim.capacity
    status["usedBytes"] = total
    status["used"] = size(total) + (f" of {size(int(quantity_value(room)))}" if room else "")
    present = sum(entry["state"] == StoredState.PRESENT for entry in told.entries)
    expected = present + sum(_is_missing(entry, told.wanted) for entry in told.entries)
    status["present"] = f"{present}/{expected}"
    optional = {
        "accessMode": told.claim.access_mode,
        "nodes": list(told.served),
        "capacity": told.claim.capacity,
        "artifacts": [dict(entry) for entry in told.entries],
        "discovery": dict(told.discovery) if told.discovery else None,
    }
    return status | {key: value for key, value in optional.items() if value}


def _is_missing(entry: Mapping[str, Any], wanted: frozenset[str]) -> bool:
    coming = entry["state"] in (StoredState.PENDING, StoredState.FAILED, StoredState.DOWNLOADING)
    return coming and entry["name"] in wanted


def _wait(world: CacheWorld, status: Mapping[str, Any], now: datetime, policy: Policy) -> float | None:
    """Seconds that a write of nothing but numbers may wait; None when it is due."""
    if world.status_written_at is None or _numberless(status) != _numberless(world.subject.status):
        return None
    since = (now - world.status_written_at).total_seconds()
    return policy.progress_interval - since if 0 <= since < policy.progress_interval else None


def _numberless(status: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in status.items() if key not in ("usedBytes", "used")}
    kept["conditions"] = {
        condition["type"]: {**condition, "message": ""} for condition in status.get("conditions") or ()
    }
    kept["artifacts"] = [
        {key: value for key, value in entry.items() if key not in _NUMBERS} for entry in status.get("artifacts") or ()
    ]
    return kept
