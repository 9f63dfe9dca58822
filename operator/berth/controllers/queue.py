"""A queue of keys that coalesces: a key waits once, is worked on by one worker at a time, and backs off on errors."""

import asyncio
import random
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys to reconcile. All methods belong to one event loop.

    `base` and `ceiling` are the seconds of the first and the longest back-off; each is jittered by a quarter.
    """

    def __init__(self, base: float = 0.05, ceiling: float = 60.0) -> None:
        self._base, self._ceiling = base, ceiling
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()  # in _ready
        self._working: set[K] = set()
        self._dirty: set[K] = set()  # asked for while being worked on
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._ready) + len(self._dirty)

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting or worked on; timers may be set."""
        return not (self._ready or self._working)

    def add(self, key: K) -> None:
        """Work on the key soon. Many calls before its turn are one."""
        if key in self._working:
            self._dirty.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._arrived.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on the key in `seconds`; an earlier time that is set already stays."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._fire, key)

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def get(self) -> K:
        """The next key; the caller reports `done` or `failed` for it."""
        while not self._ready:
            self._arrived.clear()
            await self._arrived.wait()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The work succeeded: its back-off is over."""
        self._failures.pop(key, None)
        self._finish(key)

    def failed(self, key: K) -> float:
        """The work failed: try again after a back-off, whose seconds are returned."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(self._base * 2.0 ** min(count, 30), self._ceiling) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
        self._working.discard(key)
        self._dirty.discard(key)
        self.add_after(key, delay)
        return delay

    def _finish(self, key: K) -> None:
        self._working.discard(key)
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)

    def forget(self, key: K) -> None:
        """Nothing is left to do for the key, now or later."""
        self._failures.pop(key, None)
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
