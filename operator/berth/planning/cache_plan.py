"""ModelCache + World -> Plan: every decision about one ModelCache starts here."""

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from berth.api.model_cache import ModelCacheSpec
from berth.planning.cache_arrivals import start_downloads
from berth.planning.cache_claim import look_at_claim
from berth.planning.cache_departures import remove_what_should_be_absent, start_removals
from berth.planning.cache_discovery import discover
from berth.planning.cache_look import Draft, Look
from berth.planning.cache_objects import render_claim, render_guard, render_removal
from berth.planning.cache_status import Report, report
from berth.planning.cache_world import CacheWorld
from berth.planning.changes import Changes, plan_changes
from berth.planning.errors import InvalidSpecError, first_error
from berth.planning.plan import Apply, Delete, Plan
from berth.planning.policy import Policy
from berth.planning.reasons import Reason
from berth.planning.world import CLAIM, Child

Entry = dict[str, Any]


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
    look = Look(world, spec, claim, policy, now)
    draft = _decide_artifacts(look)
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
        wanted=look.active,
        served=look.served_nodes(),
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


def _decide_artifacts(look: Look) -> Draft:
    """All decisions about artifacts: what has become of them, what goes, what comes, what is found."""
    look.advance_all()
    remove_what_should_be_absent(look)
    start_downloads(look)
    start_removals(look)
    draft = look.draft
    found = discover(look.world, look.spec, look.claim, draft.entries, look.policy, look.now)
    draft.discovery, draft.entries = found.discovery, found.entries
    draft.jobs += found.jobs
    draft.ended += found.ended
    draft.notes += found.notes
    draft.waits += found.waits
    return draft
