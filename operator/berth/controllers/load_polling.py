"""Asks servers for their load. Whoever does not answer is asked ever more rarely; its load is unknown meanwhile."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime

import httpx2
from pydantic import ValidationError

from berth.api.model import ModelSpec
from berth.backends.base import LoadMetrics
from berth.backends.registry import backend_for
from berth.controllers.breakers import Breakers
from berth.controllers.metrics import Metrics
from berth.controllers.relations import Key
from berth.controllers.store import Store
from berth.planning.load_questions import Question, question, server_name, understood
from berth.planning.load_state import Load, Reading, look
from berth.planning.pods import Pod
from berth.planning.world import Subject

logger = logging.getLogger(__name__)
_LONGEST_ANSWER = 4 * 1024 * 1024
_LONGEST_PAUSE = 300.0


class LoadPoller:
    """Keeps the load of every Model in the store, and wakes those of which something else is to be shown."""

    def __init__(
        self,
        store: Store,
        enqueue: Callable[[Key], None],
        metrics: Metrics,
        now: Callable[[], datetime],
        interval: float = 5.0,
        settle: float = 30.0,
        timeout: float = 2.0,
        at_once: int = 64,
    ) -> None:
        """`interval`, `settle` (load_state.look) and `timeout` in seconds; `at_once` bounds the questions under way."""
        self._store, self._enqueue, self._metrics, self._now = store, enqueue, metrics, now
        self._interval, self._settle, self._timeout = interval, settle, timeout
        # Those that did not answer wait among themselves, so that they hold up nobody who does.
        self._slots, self._slots_of_suspects = asyncio.Semaphore(at_once), asyncio.Semaphore(max(1, at_once // 4))
        self._at_once = at_once + max(1, at_once // 4)
        self._breakers = Breakers(interval, max(interval, _LONGEST_PAUSE))
        self._specs: dict[Key, tuple[tuple[str, int], LoadMetrics | None]] = {}
        self._under_way: dict[Key, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Ask until cancelled. A Model is asked again when all its servers have answered or had their time."""
        # A new connection for each question: none is kept that a server would have to wait for when it drains.
        limits = httpx2.Limits(max_connections=self._at_once, max_keepalive_connections=0)
        headers = {"Accept-Encoding": "identity"}
        async with httpx2.AsyncClient(trust_env=False, timeout=self._timeout, limits=limits, headers=headers) as client:
            try:
                while True:
                    self._begin_looks(client)
                    await asyncio.sleep(self._interval)
            finally:
                looks = list(self._under_way.values())
                for one in looks:
                    one.cancel()
                await asyncio.gather(*looks, return_exceptions=True)

    def _begin_looks(self, client: httpx2.AsyncClient) -> None:
        servers = self._store.servers()
        self._forget_others(servers)
        for key in servers.keys() - self._under_way.keys():
            one = asyncio.create_task(self._look(client, key, servers[key]), name=f"load of {key}")
            self._under_way[key] = one
            one.add_done_callback(lambda _, key=key: self._under_way.pop(key))  # type: ignore[misc]

    def _forget_others(self, servers: dict[Key, list[Pod]]) -> None:
        loads = self._store.memories.loads
        for key in loads.keys() - servers.keys():
            del loads[key]
        for key in self._specs.keys() - servers.keys():
            del self._specs[key]
        self._metrics.keep_loads((key.namespace, key.name) for key in servers)
        self._breakers.keep({server_name(pod) for pods in servers.values() for pod in pods})

    async def _look(self, client: httpx2.AsyncClient, key: Key, pods: Iterable[Pod]) -> None:
        """One look at all servers of a Model."""
        try:
            model = self._store.subject(key)
            if model is None:
                return
            metrics = self._load_metrics(key, model)
            if metrics is None:
                self._store.memories.loads.pop(key, None)  # nobody to ask, as long as the spec stays
                return
            pods = list(pods)
            answers = await asyncio.gather(*(self._ask(client, pod, question(pod, metrics)) for pod in pods))
            self._take_in(key, model.uid, {server_name(pod): one for pod, one in zip(pods, answers, strict=True)})
        except Exception:
            logger.exception("%s: a defect of Berth; its load is not known", key)

    def _load_metrics(self, key: Key, model: Subject) -> LoadMetrics | None:
        """How servers of the Model tell their load, worked out anew when its spec has changed."""
        version = (model.uid, model.generation)
        known, metrics = self._specs.get(key, (("", 0), None))
        if known != version:
            try:
                spec = ModelSpec.model_validate(model.spec)
                metrics = backend_for(spec.backend).load(spec)
            except ValidationError:
                metrics = None
            self._specs[key] = version, metrics
        return metrics

    def _take_in(self, key: Key, uid: str, readings: dict[str, Reading | None]) -> None:
        model = self._store.subject(key)
        if model is None or model.uid != uid:
            return  # gone while its servers were asked
        before = self._store.memories.loads.get(key)
        load = look(before, readings, model.status.get("load"), self._now(), time.monotonic(), self._settle)
        self._store.memories.loads[key] = load
        if before is None or before.shown() != load.shown():
            self._enqueue(key)
        self._show(key, before, load)

    def _show(self, key: Key, before: Load | None, load: Load) -> None:
        if before is None or (before.known, before.running, before.waiting) != (load.known, load.running, load.waiting):
            numbers = (load.running, load.waiting) if load.known else None
            self._metrics.show_load(key.namespace, key.name, numbers)

    async def _ask(self, client: httpx2.AsyncClient, pod: Pod, asked: Question | None) -> Reading | None:
        server = server_name(pod)
        if asked is None or not self._breakers.allows(server, time.monotonic()):
            return None
        async with self._slots_of_suspects if self._breakers.suspects(server) else self._slots:
            reading = await self._reading(client, pod, asked)
        if reading is not None:
            self._breakers.answered(server)
        else:
            self._breakers.failed(server, time.monotonic())
        return reading

    async def _reading(self, client: httpx2.AsyncClient, pod: Pod, asked: Question) -> Reading | None:
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._answer(client, asked.url)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            logger.debug("the server in %s/%s does not tell its load: %r", pod.namespace, pod.name, error)
            return None
        return understood(asked, answer) if answer is not None else None

    @staticmethod
    async def _answer(client: httpx2.AsyncClient, url: str) -> bytes | None:
        """The answer; None for one that is none. Whoever answers is not trusted: not more than is needed."""
        async with client.stream("GET", url) as answer:
            if answer.status_code != 200:
                return None
            pieces, length = [], 0
            async for piece in answer.aiter_raw():
                length += len(piece)
                if length > _LONGEST_ANSWER:
                    return None
                pieces.append(piece)
            return b"".join(pieces)
