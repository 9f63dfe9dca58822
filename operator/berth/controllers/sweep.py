"""Fills the store at the start, and finds later what the watches missed.

A relist of a watch brings no deletions: an object that vanished meanwhile would stay in the store for ever. The
sweep lists names and versions only, and asks for whole objects just where the store differs.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from berth.cluster import resources
from berth.cluster.errors import ForbiddenError, NotFoundError
from berth.cluster.gateway import Gateway
from berth.cluster.resources import ResourceType
from berth.controllers.metrics import Metrics
from berth.controllers.store import Key, Keys, Store, version_number
from berth.planning.names import MANAGED_BY, MANAGED_BY_LABEL, MANAGED_SELECTOR

logger = logging.getLogger(__name__)
_FIRST_SWEEP = 30.0

WATCHED: dict[str, tuple[ResourceType, str | None]] = {
    "Model": (resources.MODELS, None),
    "Deployment": (resources.DEPLOYMENTS, MANAGED_SELECTOR),
    # All Services: a Model may be named like one that somebody else made, and must leave that one alone.
    "Service": (resources.SERVICES, None),
    "NetworkPolicy": (resources.NETWORK_POLICIES, MANAGED_SELECTOR),
    "PodDisruptionBudget": (resources.POD_DISRUPTION_BUDGETS, MANAGED_SELECTOR),
    # All Pods: those of others hold GPUs, too.
    "Pod": (resources.PODS, None),
    "ModelCache": (resources.MODEL_CACHES, None),
    # All claims: a cache may use one that a person made.
    "PersistentVolumeClaim": (resources.PERSISTENT_VOLUME_CLAIMS, None),
    "Job": (resources.JOBS, MANAGED_SELECTOR),
    "Node": (resources.NODES, None),
    "GPUNode": (resources.GPU_NODES, None),
    # Volumes say on which nodes they can be used.
    "PersistentVolume": (resources.PERSISTENT_VOLUMES, None),
}
"""What is watched, and by which label selector."""


OPTIONAL = frozenset({"Node", "GPUNode", "PersistentVolume"})
"""What Berth can do without: rights in one namespace do not reach to them."""


async def fill(store: Store, gateway: Gateway, namespace: str | None) -> frozenset[str]:
    """Bring everything into the store; returns the kinds that may be seen, and so watched.

    Nothing is planned before: a missing child would look like one to make. Raises ApiError when a kind cannot be listed
    that Berth cannot do without.
    """
    seen = set()
    for kind, (resource, selector) in WATCHED.items():
        where = namespace if resource.namespaced else None
        try:
            listed, _ = await gateway.list(resource, namespace=where, label_selector=selector)
        except (ForbiddenError, NotFoundError):
            if kind not in OPTIONAL:
                raise
            logger.warning("%ss may not be listed, or are not served: Berth does without them", kind)
            continue
        seen.add(kind)
        for manifest in listed:
            manifest.setdefault("kind", kind)
            store.observe(manifest)
    return frozenset(seen)


class Sweeper:
    """Compares the store with the API server now and then."""

    def __init__(
        self,
        store: Store,
        gateway: Gateway,
        namespace: str | None,
        enqueue: Callable[[Key], None],
        metrics: Metrics,
        kinds: frozenset[str],
        interval: float,
        afterwards: Callable[[], Awaitable[None]],
        settle: float = 5.0,
    ) -> None:
        """`interval` and `settle` in seconds; the watches get `settle` to deliver what they are about to.

        `afterwards` is called after each complete sweep: the store knows then what the API server has.
        """
        self._store, self._gateway, self._namespace, self._kinds = store, gateway, namespace, kinds
        self._enqueue, self._metrics = enqueue, metrics
        self._interval, self._settle, self._afterwards = interval, settle, afterwards

    async def run(self) -> None:
        """Sweep until cancelled; an error is logged and the next sweep tries again.

        The first one comes soon: what vanishes between the fill of the store and the lists of the watches is told by
        nobody, and while an operator starts there is often a rollout or a drain.
        """
        pause = min(self._interval, _FIRST_SWEEP)
        while True:
            await asyncio.sleep(pause)
            pause = self._interval
            try:
                await self.sweep()
                await self._afterwards()
            except Exception:
                logger.exception("the sweep was cut off; the next one is in %.0f s", self._interval)

    async def sweep(self) -> int:
        """One comparison over all kinds; returns how many objects the watches had missed."""
        found = 0
        for kind in self._kinds:
            suspects = await self._suspects(kind)
            if suspects:
                await asyncio.sleep(self._settle)
                for names in suspects & await self._suspects(kind):
                    found += 1
                    self._metrics.swept.labels(kind=kind).inc()
                    await self._repair(kind, *names)
        return found

    async def _suspects(self, kind: str) -> set[tuple[str, str]]:
        """Names of objects that the API server has in a newer version than the store, or not at all."""
        resource, selector = WATCHED[kind]
        where = self._namespace if resource.namespaced else None
        listed, _ = await self._gateway.list(resource, namespace=where, label_selector=selector, metadata_only=True)
        there = {(m["metadata"].get("namespace", ""), m["metadata"]["name"]): m["metadata"] for m in listed}
        suspects = set()
        known = self._store.known(kind)
        for names in there.keys() | known.keys():
            seen, kept = there.get(names), known.get(names)
            if seen is None or kept is None or seen["uid"] != kept[0]:
                suspects.add(names)
            elif version_number(seen["resourceVersion"]) > version_number(kept[1]):
                suspects.add(names)  # the other way round, the watch was faster than the list
        return suspects

    async def _repair(self, kind: str, namespace: str, name: str) -> None:
        resource, selector = WATCHED[kind]
        known = self._store.known(kind).get((namespace, name))
        try:
            manifest = await self._gateway.get(resource, namespace or None, name)
        except NotFoundError:
            manifest = None
        if known is not None and (manifest is None or manifest["metadata"]["uid"] != known[0]):
            self._tell(self._store.forget(kind, namespace, name, known[0]))
        if manifest is not None:
            metadata = manifest["metadata"]
            if selector and (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) != MANAGED_BY:
                # It has lost its labels, and is no more to the store than to a watch.
                gone = self._store.forget(kind, namespace, name, metadata["uid"], metadata["resourceVersion"])
                self._tell(gone)
            else:
                self._tell(self._store.observe({**manifest, "kind": kind}))
        logger.warning("%s %s/%s had changed unseen by the watches", kind, namespace, name)

    def _tell(self, keys: Keys) -> None:
        for key in keys:
            self._enqueue(key)
