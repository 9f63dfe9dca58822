"""The workers: take a key, look at the World, plan, carry out. They decide nothing themselves."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime

from berth.cluster.errors import ApiError, FencedError
from berth.controllers.carry_out import Executor, StaleDecisionError
from berth.controllers.metrics import Metrics
from berth.controllers.queue import WorkQueue
from berth.controllers.store import Key, Store
from berth.planning.cache_plan import decide_cache
from berth.planning.cache_world import CacheWorld
from berth.planning.gpu_nodes import GpuNodeWorld, decide_gpu_node
from berth.planning.model_plan import decide
from berth.planning.policy import Policy

logger = logging.getLogger(__name__)


class Workers:
    """A number of tasks that empty the queue, side by side for different keys."""

    def __init__(
        self,
        store: Store,
        queue: WorkQueue[Key],
        executor: Executor,
        policy: Policy,
        metrics: Metrics,
        clock: Callable[[], datetime],
        count: int = 32,
    ) -> None:
        self._store, self._queue, self._executor = store, queue, executor
        self._policy, self._metrics, self._clock, self._count = policy, metrics, clock, count
        self.started = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._work(), name=f"worker-{number}")
            self.started.set()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._metrics.queue_length.set(len(self._queue))
            began = time.perf_counter()
            result = "failed"
            try:
                result = await self._reconcile(key)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # kopf cancels tasks that began while it ran when it is started again: the request was cut off, not us
                self._queue.failed(key)
            finally:
                self._metrics.reconciles.labels(result=result).inc()
                self._metrics.reconcile_seconds.observe(time.perf_counter() - began)

    async def _reconcile(self, key: Key) -> str:
        world = self._store.gather(key)
        if world is None:
            self._queue.forget(key)
            self._queue.done(key)
            return "done"
        try:
            now = self._clock()
            if isinstance(world, CacheWorld):
                plan = decide_cache(world, now, self._policy)
            elif isinstance(world, GpuNodeWorld):
                plan = decide_gpu_node(world)
            else:
                plan = decide(world, now, self._policy)
            if key.kind == "Model":
                self._store.capacity.ask(key, plan.demand, plan.template_hash)
            complete = await self._executor.carry_out(key, world, plan)
        except StaleDecisionError as stale:
            delay = self._queue.failed(key)
            logger.debug("%s: planned anew in %.2f s: %s", key, delay, stale)
            return "stale"
        except FencedError:
            self._queue.failed(key)  # the election is lost or uncertain: nothing is written
            return "fenced"
        except ApiError as error:
            delay = self._queue.failed(key)
            logger.warning("%s: tried again in %.1f s: %s", key, delay, error)
            return "failed"
        except Exception:
            delay = self._queue.failed(key)
            logger.exception("%s: a defect of Berth; tried again in %.1f s", key, delay)
            return "failed"
        self._queue.done(key)
        if not complete:
            self._queue.add(key)
            return "refused"
        if plan.look_again is not None and plan.look_again <= 0:
            self._queue.add(key)  # behind those that wait
        elif plan.look_again is not None:
            self._queue.add_after(key, plan.look_again + 0.01)
        return "done"
