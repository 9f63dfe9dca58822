"""kopf as the source of triggers: `on.event` handlers only, so no finalizer, annotation, daemon or timer of kopf.

A fatal watch error ends `kopf.operator()`; `Watches.run` starts it again in the same process.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import kopf

from berth.cluster.resources import ResourceType
from berth.controllers.kopf_storage import NothingToCompare, NothingToRemember
from berth.controllers.metrics import Metrics
from berth.controllers.store import Key, Store
from berth.controllers.sweep import WATCHED

logger = logging.getLogger(__name__)

Login = Callable[[], Awaitable[kopf.ConnectionInfo]]


class _Backoffs:
    """Delays between tries of a list or watch, without an end: an API server may be away for long.

    kopf iterates it anew for each request, so it is an iterable and not an iterator.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (0.1, 0.5, 1, 2, 5)
        while True:
            yield 10


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None  # would kill the process 10 minutes after its watches ended
    settings.scanning.disabled = True  # needs no rights on CRDs and namespaces
    settings.persistence.diffbase_storage = NothingToCompare()
    settings.persistence.progress_storage = NothingToRemember()
    settings.queueing.worker_limit = None  # a limit holds its slots while idle: 10 objects a second
    settings.queueing.idle_timeout = 0.05
    settings.networking.error_backoffs = _Backoffs()
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 0.05
    for resource, selector in WATCHED.values():
        if selector is not None:
            settings.watching.label_selectors[_names(resource)] = selector
    return settings


def _names(resource: ResourceType) -> tuple[str, str] | tuple[str, str, str]:
    """How kopf wants a resource named: the core group has no name."""
    return (
        (resource.group, resource.version, resource.plural) if resource.group else (resource.version, resource.plural)
    )


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`. kopf takes both for itself whenever it starts."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not on the main thread
            loop.add_signal_handler(number, stop.set)


class Watches:
    """Feeds the store from the watches and enqueues what has to be looked at."""

    def __init__(
        self,
        store: Store,
        enqueue: Callable[[Key], None],
        login: Login,
        metrics: Metrics,
        kinds: frozenset[str],
        namespace: str | None = None,
    ) -> None:
        """`kinds` are those that may be watched."""
        self._store, self._enqueue, self._login = store, enqueue, login
        self._metrics, self._kinds, self._namespace = metrics, kinds, namespace
        self.alive = False

    async def run(self, stop: asyncio.Event) -> None:
        """Watch until `stop` is set; any error of kopf starts the watches anew after a short back-off."""
        delay = 0.5
        while not stop.is_set():
            began = asyncio.get_running_loop().time()
            try:
                self.alive = True
                await self._run_kopf(stop)
                if stop.is_set():
                    return
                logger.warning("the watches ended and are started again in %.1f s", delay)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                logger.warning("the watches ended and are started again in %.1f s: %s", delay, error)
            finally:
                self.alive = False
            self._metrics.watch_restarts.inc()
            if asyncio.get_running_loop().time() - began > 60:
                delay = 0.5
            try:
                await asyncio.wait_for(stop.wait(), delay)
            except TimeoutError:
                delay = min(delay * 2, 15.0)

    async def _run_kopf(self, stop: asyncio.Event) -> None:
        """What `kopf.operator()` does, with our signal handlers, until `stop` is set or kopf fails."""
        ended = asyncio.Event()

        async def forward() -> None:
            await stop.wait()
            ended.set()

        forwarding = asyncio.create_task(forward(), name="stop-watches")
        not_of_kopf = asyncio.all_tasks()
        try:
            tasks = await kopf.spawn_tasks(
                registry=self._registry(ended),
                settings=_settings(),
                clusterwide=self._namespace is None,
                namespaces=[] if self._namespace is None else [self._namespace],
                stop_flag=ended,
            )
            stop_on_signals(stop)
            await kopf.run_tasks(tasks, ignored=not_of_kopf)
        finally:
            forwarding.cancel()

    def _registry(self, ended: asyncio.Event) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        login = self._login

        @kopf.on.cleanup(registry=registry)
        async def _end(**_: Any) -> None:
            ended.set()  # a task of kopf waits for its stop flag, and kopf would wait 5 s for that task

        @kopf.on.login(registry=registry)
        async def _log_in(**_: Any) -> kopf.ConnectionInfo:
            return await login()

        for kind in self._kinds:
            self._register(registry, kind, WATCHED[kind][0])
        return registry

    def _register(self, registry: kopf.OperatorRegistry, kind: str, resource: ResourceType) -> None:
        @kopf.on.event(*_names(resource), registry=registry, id=f"see-{resource.plural}")
        async def _see(event: kopf.RawEvent, **_: Any) -> None:
            self.take_in(kind, event)

    def take_in(self, kind: str, event: kopf.RawEvent) -> None:
        """One event of a watch: into the store, and whom it concerns into the queue."""
        manifest: dict[str, Any] = dict(event["object"])
        manifest.setdefault("kind", kind)  # items of a list carry no kind
        if event["type"] == "DELETED":
            metadata = manifest["metadata"]
            where = (metadata.get("namespace", ""), metadata["name"])
            keys = self._store.forget(kind, *where, metadata["uid"], metadata["resourceVersion"])
        else:
            keys = self._store.observe(manifest)
        for key in keys:
            self._enqueue(key)
