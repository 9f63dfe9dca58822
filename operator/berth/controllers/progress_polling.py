"""Asks running downloads how far they are. Best effort: whoever does not answer is asked again, and nothing is lost."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
import orjson

from berth.controllers.relations import Key
from berth.controllers.store import Store
from berth.planning.cache_world import understood
from berth.planning.names import PROGRESS_PORT
from berth.planning.pods import Pod

logger = logging.getLogger(__name__)
_LONGEST_ANSWER = 64 * 1024


class ProgressPoller:
    """Keeps what downloads say of themselves in the store, and wakes whom it concerns."""

    def __init__(
        self,
        store: Store,
        enqueue: Callable[[Key], None],
        interval: float = 2.0,
        timeout: float = 1.0,
        at_once: int = 16,
    ) -> None:
        """`interval` and `timeout` in seconds; `at_once` bounds the questions under way."""
        self._store, self._enqueue = store, enqueue
        self._interval, self._timeout, self._at_once = interval, timeout, at_once

    async def run(self) -> None:
        """Ask until cancelled."""
        limits = httpx2.Limits(max_connections=self._at_once, max_keepalive_connections=self._at_once)
        headers = {"Accept-Encoding": "identity"}
        async with httpx2.AsyncClient(trust_env=False, timeout=self._timeout, limits=limits, headers=headers) as client:
            while True:
                pods = self._store.downloading_pods()
                self._forget_others(pods)
                slots = asyncio.Semaphore(self._at_once)
                await asyncio.gather(*(self._ask(client, slots, pod) for pod in pods))
                await asyncio.sleep(self._interval)

    def _forget_others(self, pods: list[Pod]) -> None:
        progress = self._store.memories.progress
        present = {(pod.namespace, pod.name) for pod in pods}
        for place in progress.keys() - present:
            del progress[place]

    async def _ask(self, client: httpx2.AsyncClient, slots: asyncio.Semaphore, pod: Pod) -> None:
        async with slots:
            told = await self._progress(client, pod)
        if told is None or told == self._store.memories.progress.get((pod.namespace, pod.name)):
            return
        self._store.memories.progress[pod.namespace, pod.name] = told
        for key in self._store.keys_of(pod):
            self._enqueue(key)

    async def _progress(self, client: httpx2.AsyncClient, pod: Pod) -> Mapping[str, Any] | None:
        host = f"[{pod.address}]" if ":" in pod.address else pod.address
        try:
            async with asyncio.timeout(self._timeout):
                document = await self._read(client, f"http://{host}:{PROGRESS_PORT}/progress")
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError) as error:
            logger.debug("the download in %s/%s does not answer: %s", pod.namespace, pod.name, error)
            return None
        return understood(document)

    @staticmethod
    async def _read(client: httpx2.AsyncClient, url: str) -> Any:
        """The answer, as JSON; None for one that is none. Whoever answers is not trusted: not more than is needed."""
        async with client.stream("GET", url) as answer:
            content = b""
            async for piece in answer.aiter_raw(_LONGEST_ANSWER):
                content += piece
                if len(content) > _LONGEST_ANSWER:
                    return None
            return orjson.loads(content) if answer.status_code == 200 else None
