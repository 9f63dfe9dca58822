"""The fault proxy in a thread of its own, for tests that wait without an event loop."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from support.fault_proxy import Fault, FaultProxy

T = TypeVar("T")


class ProxyThread:
    """A FaultProxy. `do` runs a call of it where it lives."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")
        self.proxy = FaultProxy(kubeconfig, folder)
        self.kubeconfig = self.proxy.kubeconfig

    def __enter__(self) -> "ProxyThread":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.proxy.__aenter__(), self._loop).result(20)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        await self.proxy.__aexit__()
        await asyncio.sleep(0.25)  # connections close behind the back of aiohttp

    def do(self, call: Callable[[FaultProxy], T]) -> T:
        """The answer of the call."""

        async def run() -> T:
            return call(self.proxy)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(20)

    def end(self, fault: Fault) -> None:
        """The fault is over."""
        self.do(lambda _: fault.remove())
