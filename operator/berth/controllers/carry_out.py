"""Carries out a Plan: apply what differs, delete what is unwanted, write the status once, tell the Events.

It decides nothing. What the API server refuses is handed to the store, so that the next plan can say so.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from berth.api.base import API_VERSION
from berth.cluster import resources
from berth.cluster.errors import (
    ApiError,
    FieldManagerConflictError,
    ForbiddenError,
    InvalidObjectError,
    NotFoundError,
    ResourceVersionConflictError,
)
from berth.cluster.gateway import Gateway
from berth.controllers.events import EventRecorder
from berth.controllers.hurrying import end_now
from berth.controllers.metrics import Metrics
from berth.controllers.store import Key, Store
from berth.controllers.sweep import WATCHED
from berth.planning import names
from berth.planning.cache_world import CacheWorld
from berth.planning.equality import differences
from berth.planning.gpu_nodes import GpuNodeWorld
from berth.planning.plan import Apply, Delete, Plan, PodPatch
from berth.planning.reasons import Reason
from berth.planning.redaction import redact
from berth.planning.world import ModelWorld, Refusal

logger = logging.getLogger(__name__)

_IN_TEMPLATE = re.compile(r"(?:\.|\b)spec\.template\.")


class StaleDecisionError(Exception):
    """The decision rested on an outdated object: it is dropped and planned anew."""


class Executor:
    """Carries out plans against one cluster."""

    def __init__(
        self,
        gateway: Gateway,
        store: Store,
        recorder: EventRecorder,
        metrics: Metrics,
        clock: Callable[[], datetime],
        enqueue: Callable[[Key], None],
    ) -> None:
        """`enqueue` has a Model or ModelCache looked at soon: what is written for one may concern others."""
        self._gateway, self._store, self._recorder, self._metrics = gateway, store, recorder, metrics
        self._clock, self._enqueue = clock, enqueue

    async def carry_out(self, key: Key, world: ModelWorld | CacheWorld | GpuNodeWorld, plan: Plan) -> bool:
        """Carry out the plan; False when a refusal came or went, so that the key has to be planned again at once.

        Raises StaleDecisionError when the decision was outdated, ApiError when the API server failed.
        """
        applies = [change for change in plan.changes if isinstance(change, Apply)]
        deletes = [change for change in plan.changes if isinstance(change, Delete)]
        await asyncio.gather(*(end_now(self._gateway, hurry) for hurry in plan.hurries))
        for patch in plan.marks:
            await self._patch(key, patch)
        outcomes = await asyncio.gather(*(self._apply(key, apply) for apply in applies), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        refused_before = {(refusal.kind, refusal.name) for refusal in world.refusals}
        applied = {(apply.manifest["kind"], apply.manifest["metadata"]["name"]) for apply in applies}
        if not all(outcomes) or applied & refused_before:
            return False
        for delete in deletes:
            await self._delete(delete)
        for patch in plan.tells:
            await self._patch(key, patch)
            self._store.capacity.told(key)
        if isinstance(world, GpuNodeWorld):
            return True  # its status is the agent's
        if plan.status is not None:
            await self._write_status(key, world, plan)
        for note in plan.notes:
            await self._recorder.record(world.subject, note)
        return True

    async def _apply(self, key: Key, change: Apply) -> bool:
        kind, metadata = change.manifest["kind"], change.manifest["metadata"]
        digest = metadata["annotations"][names.APPLIED_ANNOTATION]
        try:
            applied = await self._gateway.apply(change.manifest, force=change.force)
        except ResourceVersionConflictError as error:
            raise StaleDecisionError(str(error)) from error
        except (FieldManagerConflictError, InvalidObjectError, ForbiddenError) as error:
            reason = self._refusal_reason(change, error)
            if reason is None:
                raise
            self._store.memories.refuse(
                key,
                Refusal(
                    kind,
                    metadata["name"],
                    reason,
                    self._refusal_message(change, error, reason),
                    digest,
                    self._clock(),
                ),
            )
            return False
        self._take_in(key, applied)
        unequal = frozenset(self._unequal(change, applied))
        if unequal:
            self._metrics.unequal_applies.labels(kind=kind).inc()
            logger.warning("applied %s differs from what was wanted at %s", key, ", ".join(sorted(unequal)))
        self._store.memories.accept(key, kind, metadata["name"], digest, unequal)
        return True

    def _take_in(self, key: Key, written: dict[str, Any]) -> None:
        """What was written is known at once; the watch brings nothing new then, so others are told here."""
        for other in self._store.observe(written):
            if other != key:
                self._enqueue(other)

    @staticmethod
    def _unequal(change: Apply, applied: dict[str, object]) -> list[str]:
        """Differences after an apply; the resourceVersion of the decision is outdated by the write itself."""
        metadata = {k: v for k, v in change.manifest["metadata"].items() if k not in ("resourceVersion", "uid")}
        return differences({**change.manifest, "metadata": metadata}, applied)

    @staticmethod
    def _refusal_reason(change: Apply, error: ApiError) -> Reason | None:
        """The status reason for a refusal; None when trying again is all that can be done."""
        if isinstance(error, FieldManagerConflictError):
            return Reason.NAME_CONFLICT
        if isinstance(error, ForbiddenError):
            if error.namespace_is_terminating:
                return None
            return Reason.QUOTA_EXCEEDED if error.is_quota else Reason.FORBIDDEN
        if "resourceVersion" not in change.manifest["metadata"] and "immutable" in error.message:
            return Reason.NAME_CONFLICT
        return Reason.INVALID_SPEC

    @staticmethod
    def _refusal_message(change: Apply, error: ApiError, reason: Reason) -> str:
        kind, name = change.manifest["kind"], change.manifest["metadata"]["name"]
        if reason is Reason.NAME_CONFLICT:
            return (
                f"{kind} {name} exists already and is not made by Berth; Berth leaves it alone. "
                f"Choose another metadata.name or remove that {kind}"
            )
        message = _IN_TEMPLATE.sub("spec.podTemplate.", redact(error.message))
        return f"the API server refuses {kind} {name}: {message}"

    async def _patch(self, key: Key, change: PodPatch) -> None:
        version = {"uid": change.uid, "resourceVersion": change.resource_version}
        body = {**change.body, "metadata": {**(change.body.get("metadata") or {}), **version}}
        try:
            patched = await self._gateway.merge_patch(resources.PODS, change.namespace, change.name, body)
        except NotFoundError:
            return
        except ResourceVersionConflictError as error:
            raise StaleDecisionError(str(error)) from error
        self._take_in(key, patched)

    async def _delete(self, change: Delete) -> None:
        try:
            await self._gateway.delete(
                WATCHED[change.kind][0],
                change.namespace,
                change.name,
                uid=change.uid,
                resource_version=change.resource_version,
            )
        except ResourceVersionConflictError as error:
            raise StaleDecisionError(str(error)) from error

    async def _write_status(self, key: Key, world: ModelWorld | CacheWorld, plan: Plan) -> None:
        subject = world.subject
        manifest = {
            "apiVersion": API_VERSION,
            "kind": subject.kind,
            "metadata": {
                "name": subject.name,
                "namespace": subject.namespace,
                "uid": subject.uid,
                "resourceVersion": subject.resource_version,
            },
            "status": dict(plan.status or {}),
        }
        try:
            written = await self._gateway.apply(manifest, force=True, subresource="status")
        except ResourceVersionConflictError as error:
            raise StaleDecisionError(str(error)) from error
        self._take_in(key, written)
        self._store.memories.status_written(key, self._clock())
        for end in plan.downloads:
            self._metrics.count_download(end)
        if plan.start is not None:
            self._metrics.observe_start(plan.start)
        if plan.transition is not None:
            self._log_transition(key, *plan.transition, plan.phase_seconds)

    def _log_transition(self, key: Key, before: str, after: str, reason: str, seconds: float | None) -> None:
        """One line; what programs look for in it is in fields of its own."""
        what = key.kind.lower()
        if key.kind == "Model":
            self._metrics.transitions.labels(from_phase=before, to_phase=after).inc()
        extra: dict[str, object] = {what: key.name, "namespace": key.namespace}
        extra |= {"from": before, "to": after, "reason": reason}
        lasted = ""
        if seconds is not None:
            extra["seconds"] = seconds
            lasted = f" after {seconds:.1f} s"
        logger.info(
            "%s %s/%s: %s -> %s (%s)%s", what, key.namespace, key.name, before, after, reason, lasted, extra=extra
        )
