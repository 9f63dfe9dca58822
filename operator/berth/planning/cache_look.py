"""One look at a ModelCache: what is known of its artifacts, and what has been decided of them so far."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from berth.api.base import quantity_value
from berth.api.model_cache import ModelCacheSpec
from berth.api.model_cache_status import StoredState
from berth.planning.cache_artifact import Seen, Step, advance, label_of
from berth.planning.cache_claim import ClaimFacts
from berth.planning.cache_demand import Wanted, wanted_artifacts
from berth.planning.cache_objects import job_name
from berth.planning.cache_world import CacheWorld
from berth.planning.canonical import content_hash
from berth.planning.plan import DownloadEnd, Note
from berth.planning.policy import Policy
from berth.planning.reasons import Reason
from berth.planning.times import format_time
from berth.planning.world import Child, Manifest

Entry = dict[str, Any]


@dataclass(slots=True)
class Draft:
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


class Look:
    """What one look starts from, and its draft."""

    def __init__(
        self, world: CacheWorld, spec: ModelCacheSpec, claim: ClaimFacts, policy: Policy, now: datetime
    ) -> None:
        self.world, self.spec, self.claim, self.policy, self.now = world, spec, claim, policy, now
        self.draft = Draft()
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

    def advance_all(self) -> None:
        """From what is recorded and what Jobs say to what is recorded next."""
        for name in sorted(self.before.keys() | self.wanted.keys() | self.worked_on):
            self._advance(name)

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
        step = advance(entry, wanted, seen, self.inputs(wanted), self.policy, self.now)
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

    def inputs(self, wanted: Wanted | None) -> str:
        """Hash of what a download that began now would be made from."""
        if wanted is None:
            return ""
        artifact = wanted.artifact
        return content_hash(
            [
                [artifact.uri, artifact.files, artifact.sha256, wanted.secret, wanted.demands],
                [self.spec.limit, self.spec.pod_template, self.claim.name, self.policy.render.provisioner_image],
            ]
        )

    def refused(self, job: Manifest, entry: Entry) -> bool:
        """Whether the API server has refused the Job a moment ago."""
        refusal = next((r for r in self.world.refusals if r.kind == "Job" and r.name == job["metadata"]["name"]), None)
        if refusal is None:
            return False
        age = (self.now - refusal.at).total_seconds()
        if not 0 <= age < self.policy.refusal_interval:
            return False
        wait(entry, refusal.reason, refusal.message)
        self.draft.waits.append(self.policy.refusal_interval - age)
        return True


def wait(entry: Entry, reason: str, message: str) -> None:
    """Say what an artifact waits for, unless something is wrong with it: that is worth more."""
    if entry["state"] == StoredState.FAILED:
        return
    state = StoredState.REMOVING if entry["state"] == StoredState.REMOVING else StoredState.PENDING
    entry |= {"state": state.value, "reason": str(reason), "message": message}
