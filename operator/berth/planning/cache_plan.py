"""ModelCache + World -> Plan: every decision about one ModelCache starts here."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from berth.api.base import quantity_value
from berth.api.model_cache import Eviction, ModelCacheSpec
from berth.api.model_cache_status import StoredState
from berth.planning.cache_artifact import Seen, Step, advance, due, label_of
from berth.planning.cache_claim import ClaimFacts, look_at_claim
from berth.planning.cache_demand import Wanted, placement_of, wanted_artifacts
from berth.planning.cache_discovery import discover
from berth.planning.cache_objects import job_name, render_claim, render_download, render_guard, render_removal
from berth.planning.cache_space import choose_victims, room_for, used
from berth.planning.cache_status import Report, report
from berth.planning.cache_world import CacheWorld
from berth.planning.canonical import content_hash
from berth.planning.changes import Changes, plan_changes
from berth.planning.download_reasons import DownloadReason
from berth.planning.errors import InvalidSpecError, first_error
from berth.planning.policy import Policy
from berth.planning.progress_words import size
from berth.planning.reasons import Reason
from berth.planning.world import CLAIM, Apply, Child, Delete, DownloadEnd, Manifest, Note, Plan, format_time

Entry = dict[str, Any]


@dataclass(slots=True)
class _Draft:
    """What one pass has decided so far."""

    entries: dict[str, Entry] = field(default_factory=dict)
    discovery: Entry | None = None
    jobs: list[Manifest] = field(default_factory=list)
    """Jobs to make."""
    ended: list[Child] = field(default_factory=list)
    """Jobs to delete."""
    notes: list[Note] = field(default_factory=list)
    downloads: list[DownloadEnd] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    """Names of the artifacts whose downloads are under way."""


def decide_cache(world: CacheWorld, now: datetime, policy: Policy) -> Plan:
    """The Plan for one ModelCache. Pure: the same arguments give the same Plan."""
    subject = world.subject
    if subject.deleting:
        return Plan()  # the garbage collector removes what it owns, with or without an operator
    try:
        spec = ModelCacheSpec.model_validate(subject.spec)
        return _decide(world, spec, now, policy)
    except ValidationError as error:
        problem = first_error(error)
    except InvalidSpecError as error:
        problem = (error.field, error.message)
    entries = list(subject.status.get("artifacts") or ())
    invalid = (Reason.INVALID_SPEC, f"{problem[0]}: {problem[1]}")
    return report(world, None, Report(entries, subject.status.get("discovery"), invalid=invalid), Plan(), now, policy)


def _decide(world: CacheWorld, spec: ModelCacheSpec, now: datetime, policy: Policy) -> Plan:
    claim = look_at_claim(world.subject.name, spec, world.claim)
    # Mistakes in podTemplate are told at once, and not only while there is something to download.
    render_removal(world.subject, spec, "", "", claim.volume, policy.render)
    changes = _own_objects(world, spec, policy, now)
    pass_ = _Pass(world, spec, claim, policy, now)
    draft = pass_.run()
    writes = (
        *changes.writes,
        *(Apply(job, force=False) for job in draft.jobs),
        *(_delete(job) for job in draft.ended if not job.deleting),
    )
    waits = [*draft.waits, *([changes.look_again] if changes.look_again is not None else [])]
    if world.claim is None and changes.writes:
        waits.append(0.0)  # what is written is known at once, and no watch tells it again
    plan = Plan(
        changes=writes,
        notes=tuple(draft.notes),
        downloads=tuple(draft.downloads),
        look_again=min(waits, default=None),
    )
    entries = sorted(draft.entries.values(), key=lambda entry: (entry.get("uri") or "", entry["name"]))
    told = Report(
        entries,
        draft.discovery,
        claim,
        changes.invalid,
        changes.refused,
        wanted=pass_.active,
        served=pass_.served_nodes(),
    )
    return report(world, spec, told, plan, now, policy)


def _own_objects(world: CacheWorld, spec: ModelCacheSpec, policy: Policy, now: datetime) -> Changes:
    subject, observed = world.subject, world.owned
    desired = [render_guard(subject, policy.render)]
    if spec.storage.claim is None:
        desired.insert(0, render_claim(subject, spec.storage))
    else:
        observed.pop(CLAIM, None)  # even one that Berth made once: a claim is never deleted
    refusals = {refusal.kind: refusal for refusal in world.refusals if refusal.kind != "Job"}
    return plan_changes(subject, desired, observed, refusals, world.stubborn, policy, now)


def _delete(job: Child) -> Delete:
    return Delete(job.kind, job.namespace, job.name, job.uid, job.resource_version)


class _Pass:
    """One look at all artifacts of a cache."""

    def __init__(
        self, world: CacheWorld, spec: ModelCacheSpec, claim: ClaimFacts, policy: Policy, now: datetime
    ) -> None:
        self.world, self.spec, self.claim, self.policy, self.now = world, spec, claim, policy, now
        self.draft = _Draft()
        self.jobs = {job.name: job for job in world.jobs}
        self.worked_on = {label_of(job) for job in world.jobs} - {""}
        """Artifacts that have a Job. Another one waits until it is gone: its end might be told once more."""
        self.limit = int(quantity_value(spec.limit)) if spec.limit else None
        recorded = world.subject.status.get("artifacts") or ()
        entries = [dict(entry) for entry in recorded if spec.adopt or not entry.get("adopted")]
        self.before = {entry["name"]: entry for entry in entries}
        self.wanted, self.served = wanted_artifacts(spec, world.models, entries, world.subject.created_at)
        self.active = frozenset(name for name, wanted in self.wanted.items() if wanted.active or wanted.absent)

    def served_nodes(self) -> tuple[str, ...]:
        """Nodes whose Pods use the volume."""
        return tuple(sorted({pod.node for pod in self.world.pods if pod.node and (pod.living or pod.deleting)}))

    def run(self) -> _Draft:
        """All decisions of this look."""
        for name in sorted(self.before.keys() | self.wanted.keys() | self.worked_on):
            self._advance(name)
        self._remove_what_should_be_absent()
        self._start_downloads()
        self._start_removals()
        found = discover(self.world, self.spec, self.claim, self.draft.entries, self.policy, self.now)
        self.draft.discovery = found.discovery
        self.draft.entries = found.entries
        self.draft.jobs += found.jobs
        self.draft.ended += found.ended
        self.draft.notes += found.notes
        self.draft.waits += found.waits
        return self.draft

    def _advance(self, name: str) -> None:
        wanted = self.wanted.get(name)
        entry = self.before.get(name) or {"name": name, "state": StoredState.PENDING.value}
        entry = self._described(entry, wanted)
        seen = Seen(
            self.jobs.get(job_name(self.world.subject.name, "download", name)),
            self.jobs.get(job_name(self.world.subject.name, "remove", name)),
            self.world.pods,
            self.world.progress,
        )
        step = advance(entry, wanted, seen, self._inputs(wanted), self.policy, self.now)
        self._take_over(name, step)

    def _take_over(self, name: str, step: Step) -> None:
        draft = self.draft
        if step.entry is not None:
            draft.entries[name] = step.entry
        draft.ended += step.ended_jobs
        draft.notes += step.notes
        draft.downloads += step.downloads
        if step.running:
            draft.running.add(name)
        if step.look_again is not None:
            draft.waits.append(step.look_again)

    def _described(self, entry: Entry, wanted: Wanted | None) -> Entry:
        """The entry with what is known without looking at any Job: who refers to it, and when somebody did last."""
        gone = ("models", "declared", *(("reason", "message") if entry.get("reason") == Reason.IN_USE else ()))
        entry = {key: value for key, value in entry.items() if key not in gone}
        models = self.served.get(entry["name"], ()) if wanted is None else wanted.models
        if wanted is not None:
            entry["uri"] = wanted.artifact.shown_uri
            if wanted.artifact.files:
                entry["files"] = list(wanted.artifact.files)
            if wanted.declared:
                entry["declared"] = True
        if models:
            entry["models"] = list(models[:1000])
            entry.pop("lastUsedAt", None)
        elif "lastUsedAt" not in entry:
            entry["lastUsedAt"] = format_time(self.now)
        return entry

    def _inputs(self, wanted: Wanted | None) -> str:
        if wanted is None:
            return ""
        artifact = wanted.artifact
        return content_hash(
            [
                [artifact.uri, artifact.files, artifact.sha256, wanted.secret, wanted.demands],
                [self.spec.limit, self.spec.pod_template, self.claim.name, self.policy.render.provisioner_image],
            ]
        )

    # ---- what comes ---------------------------------------------------------------------------------------------

    def _start_downloads(self) -> None:
        """The most important first, then the oldest."""
        todo = [name for name, wanted in self.wanted.items() if wanted.active and self._may_come(name)]
        for name in sorted(todo, key=self._turn):
            self._consider(name, self.wanted[name])

    def _may_come(self, name: str) -> bool:
        state = self.draft.entries[name]["state"]
        free = name not in self.worked_on
        return free and state in (StoredState.PENDING, StoredState.FAILED, StoredState.ABSENT)

    def _turn(self, name: str) -> tuple[int, float, str]:
        wanted = self.wanted[name]
        return (-wanted.priority, wanted.since.timestamp() if wanted.since else 0.0, name)

    def _consider(self, name: str, wanted: Wanted) -> None:
        """Start the download, or say what it waits for."""
        entry, draft = self.draft.entries[name], self.draft
        if self.claim.problem is not None:
            self._wait(entry, *self.claim.problem)
            return
        room = room_for(name, draft.entries.values(), draft.running, self.limit)
        needed = entry.get("bytes")
        too_large = needed is not None and room.allowed is not None and needed > room.allowed
        no_space = entry.get("reason") == DownloadReason.NO_SPACE or self._room_is_being_made(entry)
        if (too_large or no_space) and self._make_room(entry, room.allowed):
            return
        if too_large:
            self._refuse(entry, needed or 0, room.allowed or 0)
            return
        waiting = due(entry, self.now)
        if waiting > 0 and entry.get("inputs") == self._inputs(wanted):
            draft.waits.append(waiting)
            return
        if not room.certain:
            self._wait(
                entry, Reason.WAITING_FOR_SPACE, "another download has not said its size yet, and spec.limit is shared"
            )
            return
        if len(draft.running) >= self.spec.max_parallel_downloads:
            words = f"{len(draft.running)} downloads run, and spec.maxParallelDownloads allows no more"
            self._wait(entry, Reason.WAITING_FOR_SLOT, words)
            return
        self._start(name, wanted, entry, room.allowed)

    def _start(self, name: str, wanted: Wanted, entry: Entry, allowed: int | None) -> None:
        volume = self.claim.volume
        placement = placement_of(wanted, self.world.nodes, one_node=volume.one_node, bound=self.claim.bound)
        if placement is None:
            resource = wanted.specs[0].gpus.resource
            words = f"no node offers enough {resource} yet, and the volume must not be made where no server can follow"
            self._wait(entry, Reason.WAITING_FOR_NODE, words)
            return
        job = render_download(
            self.world.subject,
            self.spec,
            wanted.artifact,
            wanted.secret,
            wanted.demands,
            allowed,
            volume,
            placement,
            self.policy.render,
        )
        if self._refused(job, entry):
            return
        self.draft.jobs.append(job)
        self.draft.running.add(name)
        entry["inputs"] = self._inputs(wanted)
        entry.pop("retryAt", None)
        if entry["state"] != StoredState.FAILED:
            entry |= {
                "state": StoredState.DOWNLOADING.value,
                "reason": Reason.DOWNLOADING,
                "message": "the download is starting",
            }

    def _refused(self, job: Manifest, entry: Entry) -> bool:
        """Whether the API server has refused the Job a moment ago."""
        refusal = next((r for r in self.world.refusals if r.kind == "Job" and r.name == job["metadata"]["name"]), None)
        if refusal is None:
            return False
        age = (self.now - refusal.at).total_seconds()
        if not 0 <= age < self.policy.refusal_interval:
            return False
        self._wait(entry, refusal.reason, refusal.message)
        self.draft.waits.append(self.policy.refusal_interval - age)
        return True

    @staticmethod
    def _wait(entry: Entry, reason: str, message: str) -> None:
        if entry["state"] == StoredState.FAILED:
            return  # what is wrong is worth more than what it waits for
        state = StoredState.REMOVING if entry["state"] == StoredState.REMOVING else StoredState.PENDING
        entry |= {"state": state.value, "reason": str(reason), "message": message}

    def _refuse(self, entry: Entry, needed: int, allowed: int) -> None:
        words = (
            f"the files have {size(needed)}, and spec.limit leaves {size(allowed)}: raise spec.limit, "
            "remove other artifacts, or take fewer files with files"
        )
        if self.spec.eviction is Eviction.NONE:
            words += "; spec.eviction LRU would remove what nobody refers to"
        entry.pop("retryAt", None)  # it goes on as soon as there is room
        entry |= {
            "state": StoredState.FAILED.value,
            "reason": DownloadReason.LIMIT_EXCEEDED.value,
            "message": words,
        }

    def _make_room(self, entry: Entry, allowed: int | None) -> bool:
        """Evict what is enough, if there is enough; whether something is on its way out."""
        if self.spec.eviction is not Eviction.LRU:
            return False
        going = [other for other in self.draft.entries.values() if other["state"] == StoredState.REMOVING]
        if not going:
            missing = int(entry.get("bytes") or 0) - int(entry.get("bytesDone") or 0)
            if allowed is not None and entry.get("reason") != DownloadReason.NO_SPACE:
                missing = int(entry.get("bytes") or 0) - allowed
            for name in choose_victims((e for e in self.draft.entries.values() if e is not entry), missing):
                victim = self.draft.entries[name]
                self._remove(victim, "it makes room: no Model refers to it")
                going.append(victim)
                what = victim.get("uri") or name
                self.draft.notes.append(Note("Normal", "Evicted", f"{what} makes room for {entry.get('uri')}"))
        if not going:
            return False
        entry |= {
            "state": StoredState.PENDING.value,
            "reason": str(Reason.WAITING_FOR_SPACE),
            "message": f"room is being made: {', '.join(one.get('uri') or one['name'] for one in going)} goes",
        }
        entry.pop("retryAt", None)
        return True

    def _room_is_being_made(self, entry: Entry) -> bool:
        going = any(other["state"] == StoredState.REMOVING for other in self.draft.entries.values())
        return going and entry.get("reason") == Reason.WAITING_FOR_SPACE

    # ---- what goes ----------------------------------------------------------------------------------------------

    def _remove_what_should_be_absent(self) -> None:
        for name, wanted in self.wanted.items():
            entry = self.draft.entries.get(name)
            if entry is None or not wanted.absent:
                continue
            if wanted.models:
                self._keep(entry, wanted)
            elif entry["state"] == StoredState.PENDING and not (
                entry.get("attempt") or used([entry]) or name in self.worked_on
            ):
                entry["state"] = StoredState.ABSENT.value
            elif entry["state"] != StoredState.ABSENT:
                self._remove(entry, "spec.artifacts says Absent")

    @staticmethod
    def _keep(entry: Entry, wanted: Wanted) -> None:
        """Say why it is not removed, unless there is something else to say of it."""
        if entry["state"] == StoredState.PRESENT or (entry["state"] == StoredState.PENDING and not wanted.active):
            users = ", ".join(wanted.models[:5])
            words = f"spec.artifacts says Absent, but it is used by {users}: give them another source first"
            entry |= {"reason": str(Reason.IN_USE), "message": words}

    @staticmethod
    def _remove(entry: Entry, why: str) -> None:
        if entry["state"] != StoredState.REMOVING:
            entry.pop("retryAt", None)
            entry |= {"state": StoredState.REMOVING.value, "reason": str(Reason.REMOVING), "message": why}

    def _start_removals(self) -> None:
        for name, entry in self.draft.entries.items():
            if entry["state"] != StoredState.REMOVING or name in self.worked_on or self.claim.problem is not None:
                continue
            if (waiting := due(entry, self.now)) > 0:
                self.draft.waits.append(waiting)
                continue
            path = entry.get("path") or name
            job = render_removal(self.world.subject, self.spec, name, path, self.claim.volume, self.policy.render)
            if not self._refused(job, entry):
                self.draft.jobs.append(job)
