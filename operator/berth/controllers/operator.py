"""The operator process: election, then store, watches and workers, then a clean end."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from kubernetes.aio.client.api_client import ApiClient

from berth.cluster.connection import connect, credentials_for_kopf
from berth.cluster.election import Election
from berth.cluster.gateway import Gateway
from berth.cluster.standing import Settings as ElectionSettings
from berth.controllers.capacity_worker import CapacityWorker
from berth.controllers.carry_out import Executor
from berth.controllers.events import EventRecorder
from berth.controllers.health import HealthServer
from berth.controllers.load_polling import LoadPoller
from berth.controllers.metrics import Metrics
from berth.controllers.orphan_hunt import OrphanHunt
from berth.controllers.progress_polling import ProgressPoller
from berth.controllers.queue import WorkQueue
from berth.controllers.stop_switch import StopSwitch
from berth.controllers.store import Key, Store
from berth.controllers.sweep import Sweeper, fill
from berth.controllers.watching import Watches, stop_on_signals
from berth.controllers.worker import Workers
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.policy import Policy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """How the process runs; each field is a flag of `berth operator`. Times in seconds."""

    kubeconfig: Path | None = None
    namespace: str | None = None
    """The only namespace to serve; None serves all."""
    lease_namespace: str = "berth-system"
    lease_name: str = "berth-operator"
    config_map: str = "berth-operator"
    """Where an uninstallation says that all Models are to stop; in the namespace of the Lease."""
    identity: str = field(default_factory=lambda: os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}")
    host: str = "0.0.0.0"  # noqa: S104 - probes and scrapers reach a Pod from outside
    port: int = 8080
    workers: int = 32
    sweep_interval: float = 600
    load_interval: float = 5
    load_settle: float = 30
    election: ElectionSettings = field(default_factory=ElectionSettings)
    policy: Policy = field(default_factory=Policy)
    capacity: CapacityPolicy = field(default_factory=CapacityPolicy)


class Operator:
    """One operator process. `run` returns after a clean stop; a lost election ends the process hard."""

    def __init__(self, settings: OperatorSettings) -> None:
        self.settings = settings
        self.store = Store()
        self.metrics = Metrics(self.store)
        self.stop = asyncio.Event()
        self.port = settings.port
        self._watches: Watches | None = None
        self._connected = False
        self._failed_workers = False

    async def run(self) -> None:
        """Serve until `stop` is set or a signal comes.

        Raises ApiError when the cluster cannot be reached at the start.
        """
        stop_on_signals(self.stop)
        settings = self.settings
        async with contextlib.AsyncExitStack() as stack:
            health = HealthServer(settings.host, settings.port, self.metrics, self._unhealthy, self._unready)
            self.port = (await stack.enter_async_context(health)).port
            logger.info("listening on %s:%d", settings.host, self.port)
            client = await connect(settings.kubeconfig, pool_size=settings.workers * 2 + 8)
            stack.push_async_callback(client.close)
            gateway = Gateway(client, concurrency=settings.workers * 2, on_request=self.metrics.observe_request)
            self._connected = True
            election = Election(
                gateway, settings.lease_namespace, settings.lease_name, settings.identity, settings.election
            )
            await stack.enter_async_context(election)
            if await self._wait_until_leading(election):
                gateway.fence = lambda: election.is_leader
                self.metrics.leading.set(1)
                await self._lead(gateway, client)

    async def _wait_until_leading(self, election: Election) -> bool:
        """True once this process leads, False when it was asked to stop before."""
        acquired = asyncio.ensure_future(election.acquired())
        stopped = asyncio.ensure_future(self.stop.wait())
        await asyncio.wait({acquired, stopped}, return_when=asyncio.FIRST_COMPLETED)
        won = acquired.done() and not self.stop.is_set()
        for task in (acquired, stopped):
            task.cancel()
        await asyncio.gather(acquired, stopped, return_exceptions=True)
        return won

    async def _lead(self, gateway: Gateway, client: ApiClient) -> None:
        settings, store = self.settings, self.store
        queue: WorkQueue[Key] = WorkQueue()

        def clock() -> datetime:
            return datetime.now(UTC)

        recorder = EventRecorder(gateway, "berth-operator", settings.identity, clock)
        executor = Executor(gateway, store, recorder, self.metrics, clock, queue.add)
        poller = ProgressPoller(store, queue.add)
        loads = LoadPoller(store, queue.add, self.metrics, clock, settings.load_interval, settings.load_settle)
        logger.info("leading as %s", settings.identity)
        kinds = await fill(store, gateway, settings.namespace)
        # Whoever sees one namespace only cannot know who holds the GPUs of a node.
        gated = "Node" in kinds and settings.namespace is None
        policy = replace(settings.policy, render=replace(settings.policy.render, gated=gated))
        if not gated:
            logger.warning("Berth does not plan GPU capacity: it does not see all nodes and Pods")
        workers = Workers(store, queue, executor, policy, self.metrics, clock, settings.workers)
        capacity = CapacityWorker(store.capacity, queue.add, settings.capacity, self.metrics, clock)
        switch = StopSwitch(gateway, settings.lease_namespace, settings.config_map, store, queue.add)
        await switch.read()
        hunt = OrphanHunt(store, gateway, settings.namespace, kinds, settings.policy, recorder, self.metrics, clock)
        sweeper = Sweeper(
            store, gateway, settings.namespace, queue.add, self.metrics, kinds, settings.sweep_interval, hunt.look
        )
        for key in store.all_keys():
            queue.add(key)
        store.capacity.expect(store.all_keys())
        gc.collect()
        gc.freeze()  # imports and the first fill live for ever: full collections need not walk them
        # Our tasks begin before kopf does: on its way out kopf cancels every task that began after it.
        tasks = [
            asyncio.create_task(workers.run(), name="workers"),
            asyncio.create_task(sweeper.run(), name="sweeper"),
            asyncio.create_task(poller.run(), name="progress"),
            *([asyncio.create_task(capacity.run(), name="capacity")] if gated else []),
            asyncio.create_task(loads.run(), name="loads"),
            asyncio.create_task(switch.run(), name="stop-switch"),
            asyncio.create_task(self._count(), name="count"),
        ]
        tasks[0].add_done_callback(self._workers_ended)
        await workers.started.wait()  # their own tasks as well
        self._watches = Watches(
            store, queue.add, lambda: credentials_for_kopf(client), self.metrics, kinds, settings.namespace
        )
        try:
            await self._watches.run(self.stop)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            logger.info("stopped")

    async def _count(self) -> None:
        while True:
            self.metrics.tasks.set(len(asyncio.all_tasks()))
            await asyncio.sleep(5)

    def _workers_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self._failed_workers = True
            logger.error("the workers ended: %s", task.exception())
            self.stop.set()

    def _unhealthy(self) -> str | None:
        return "the workers ended" if self._failed_workers else None

    def _unready(self) -> str | None:
        return None if self._connected else "not connected to the Kubernetes API yet"
