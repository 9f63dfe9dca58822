"""Looks for what is left behind after each sweep: tells it once, counts it, and deletes it where that is wanted."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from berth.cluster import resources
from berth.cluster.errors import ApiError, FencedError, ForbiddenError, ResourceVersionConflictError
from berth.cluster.gateway import Gateway
from berth.controllers.events import EventRecorder
from berth.controllers.metrics import Metrics
from berth.controllers.store import Store
from berth.controllers.sweep import WATCHED
from berth.planning.gpu_nodes import GPU_NODE
from berth.planning.names import MANAGED_SELECTOR
from berth.planning.orphan_processes import pod_uids, reported_pods
from berth.planning.orphans import REPLICA_SET, Orphan, OrphanWorld, Thing, find_orphans
from berth.planning.plan import Note
from berth.planning.pods import Pod
from berth.planning.policy import Policy
from berth.planning.reasons import Reason
from berth.planning.world import Child, child_from

logger = logging.getLogger(__name__)

_RESOURCES = {kind: resource for kind, (resource, _) in WATCHED.items()} | {REPLICA_SET: resources.REPLICA_SETS}


class OrphanHunt:
    """Remembers since when something has looked like an orphan; another leader begins anew."""

    def __init__(
        self,
        store: Store,
        gateway: Gateway,
        namespace: str | None,
        kinds: frozenset[str],
        policy: Policy,
        recorder: EventRecorder,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        """`kinds` are those that the store knows, `namespace` the only one that is served."""
        self._store, self._gateway, self._namespace, self._kinds = store, gateway, namespace, kinds
        self._policy, self._recorder, self._metrics, self._clock = policy, recorder, metrics, clock
        self._since: dict[str, datetime] = {}
        self._told: set[str] = set()

    async def look(self) -> None:
        """One look. Raises ApiError when ReplicaSets or Pods cannot be listed for now."""
        unknown = frozenset(WATCHED) - self._kinds
        # ReplicaSets are of no use to any plan: nothing but the question whose a Pod is asks for them.
        replica_sets = await self._replica_sets()
        if replica_sets is None:
            unknown |= {REPLICA_SET}
        things: tuple[Thing, ...] = (*self._store.everything(), *(replica_sets or ()))
        world = OrphanWorld(things, unknown, await self._living_pods(things), self._namespace)
        # In a thread: it takes a quarter of a second with 70,000 objects, and all of it is unchangeable.
        findings = await asyncio.to_thread(find_orphans, world, self._since, self._clock(), self._policy)
        self._since = dict(findings.since)
        self._told &= self._since.keys()
        self._metrics.count_orphans(findings.counts())
        for orphan in findings.orphans:
            await self._tell(orphan)
            if orphan.deletes:
                await self._delete(orphan)

    async def _replica_sets(self) -> list[Child] | None:
        """Those with our labels; None when they may not be listed."""
        try:
            listed, _ = await self._gateway.list(
                resources.REPLICA_SETS,
                namespace=self._namespace,
                label_selector=MANAGED_SELECTOR,
                metadata_only=True,
            )
        except ForbiddenError:
            return None
        return [child_from({**manifest, "kind": REPLICA_SET}) for manifest in listed]

    async def _living_pods(self, things: tuple[Thing, ...]) -> frozenset[str] | None:
        """uids of all Pods, asked for only if GPUs have processes of others than ours; None when not known."""
        own = frozenset(thing.uid for thing in things if isinstance(thing, Pod))
        gpu_nodes = [thing for thing in things if isinstance(thing, Child) and thing.kind == GPU_NODE]
        if reported_pods((node.manifest() for node in gpu_nodes), self._namespace) <= own:
            return own
        try:
            listed, _ = await self._gateway.list(resources.PODS, namespace=self._namespace, metadata_only=True)
        except ForbiddenError:
            return None
        return own | pod_uids(listed)

    async def _tell(self, orphan: Orphan) -> None:
        if orphan.key in self._told:
            return
        self._told.add(orphan.key)
        place = f"{orphan.namespace}/{orphan.name}" if orphan.namespace else orphan.name
        level = logging.INFO if orphan.kept_on_purpose else logging.WARNING
        logger.log(level, "left behind: %s %s %s", orphan.what, place, orphan.message)
        reason = Reason.ORPHANED if orphan.what == orphan.kind else Reason.ORPHANED_PROCESS
        note = Note("Normal" if orphan.kept_on_purpose else "Warning", reason, orphan.message)
        await self._recorder.record(orphan, note, _RESOURCES[orphan.kind].api_version)

    async def _delete(self, orphan: Orphan) -> None:
        """In exactly the version that was seen: what has been adopted or changed meanwhile is looked at anew."""
        try:
            await self._gateway.delete(
                _RESOURCES[orphan.kind],
                orphan.namespace or None,
                orphan.name,
                uid=orphan.uid,
                resource_version=orphan.resource_version,
            )
        except ResourceVersionConflictError:
            logger.info("%s %s/%s has changed and stays for now", orphan.kind, orphan.namespace, orphan.name)
        except (ApiError, FencedError) as error:
            logger.warning("%s %s/%s was not deleted: %s", orphan.kind, orphan.namespace, orphan.name, error)
        else:
            logger.info("deleted the orphan %s %s/%s", orphan.kind, orphan.namespace, orphan.name)
