"""The one worker that decides about capacity: it plans over the whole World, and Models carry out what it decides."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import datetime

from berth.controllers.capacity_store import CapacityStore
from berth.controllers.metrics import Metrics
from berth.controllers.relations import Key
from berth.planning.capacity.plan import CapacityPlan
from berth.planning.capacity.planner import Planner
from berth.planning.capacity.policy import CapacityPolicy

logger = logging.getLogger(__name__)
_LONGEST = 30.0
"""Seconds after which it plans even if nothing is known to have changed: decisions may not have been carried out."""
_AFTER_DEFECT = 5.0


class CapacityWorker:
    """Plans whenever something has changed, or time alone may change the plan."""

    def __init__(
        self,
        store: CapacityStore,
        enqueue: Callable[[Key], None],
        policy: CapacityPolicy,
        metrics: Metrics,
        clock: Callable[[], datetime],
        pause: float = 0.05,
    ) -> None:
        """`pause` is the time in seconds in which changes gather before the next plan."""
        self._store, self._enqueue, self._policy = store, enqueue, policy
        self._metrics, self._clock, self._pause = metrics, clock, pause
        self._planner = Planner()
        self._unreported: tuple[str, ...] = ()

    async def run(self) -> None:
        """Plan until cancelled. An error drops what the planner has derived, and is tried again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST):
                await self._store.complete.wait()
        while True:
            began = time.monotonic()
            try:
                wait = self._step().look_again
            except Exception:
                logger.exception("the capacity planner failed; a defect of Berth; it is tried again")
                self._planner, wait = Planner(), _AFTER_DEFECT
            took = time.monotonic() - began
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_LONGEST, _LONGEST if wait is None else wait)):
                    await self._store.changed.wait()
            await asyncio.sleep(max(self._pause, 2 * took))  # the workers get most of the time

    def _step(self) -> CapacityPlan:
        now = self._clock()
        began = time.perf_counter()
        plan = self._planner.plan(self._store.world(now), now, self._policy)
        changed = self._store.decide(plan, now)
        self._metrics.capacity.planned(plan, time.perf_counter() - began, now)
        self._metrics.capacity.decided(one for key in changed if (one := self._store.decision(key)) is not None)
        for key in changed:
            self._enqueue(key)
        for preemption in plan.preemptions:
            logger.info(
                "model %s %s on node %s",
                preemption.victim,
                preemption.message,
                preemption.node,
                extra={"model": preemption.victim, "for": preemption.for_model, "node": preemption.node},
            )
        if plan.unreported != self._unreported:
            self._unreported = plan.unreported
            if plan.unreported:
                names = ", ".join(plan.unreported[:10])
                logger.warning("%d nodes with GPUs have no agent that reports: %s", len(plan.unreported), names)
        return plan
