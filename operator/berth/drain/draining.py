"""One drain: time for routing, then until the server is idle or the time is up, then the memory is freed."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from berth.drain.server import Look, Metrics, Server, Unload

LOOK_INTERVAL = 0.25
_TELL_INTERVAL = 10.0
_NOTICE_INTERVAL = 0.1

log = logging.getLogger("berth.drain")


@dataclass(frozen=True, slots=True)
class Times:
    """How long things may take, in seconds; `routing`, `drain` and `grace` together are the grace period of the Pod."""

    routing: float
    """For kube-proxy and gateways to stop sending requests; nothing is looked at before."""
    drain: float
    grace: float
    """For the server's own end; freeing its memory may take half of it."""
    calm: float = 1.0
    """How long a server has to be idle: a request that has just come may not be counted yet."""


class Calm:
    """Whether a server has been idle for long enough. Time is an argument."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._worked: float | None = None

    def after(self, look: Look, now: float) -> bool:
        """Whether it is long enough, now that this was seen."""
        quiet = look.requests is not None and look.requests <= 0
        if look.worked is not None:
            quiet = quiet and self._worked in (None, look.worked)
            self._worked = look.worked
        if not quiet:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self._seconds


class Drain:
    """Drains a server as often as it is asked to: the kubelet asks again when it was restarted meanwhile."""

    def __init__(self, server: Server, metrics: Metrics | None, unload: Unload | None, times: Times) -> None:
        self._server, self._metrics, self._unload, self._times = server, metrics, unload, times
        self._skipped = threading.Event()

    def skip(self) -> None:
        """Whoever waits for a drain, waits no longer, now and later."""
        self._skipped.set()

    def look(self) -> Look:
        """What the server says of its requests now."""
        return self._server.look(self._metrics) if self._metrics else Look(None, why="nothing tells how many there are")

    def run(self) -> str:
        """Wait until the server may end, and say why it may. Never takes longer than its times, whatever happens."""
        began = time.monotonic()
        ended = self._outcome(began + self._times.routing + self._times.drain)
        return f"{'the drain is skipped' if self._skipped.is_set() else ended} after {time.monotonic() - began:.1f} s"

    def _outcome(self, deadline: float) -> str:
        if self._skipped.wait(self._times.routing):
            return ""
        ended = self._bounded(self._until_idle, deadline) or "the time is up"
        if self._unload is not None and not self._skipped.is_set():
            freed = self._bounded(self._free, deadline + self._times.grace / 2)
            ended += f", memory: {freed or 'no answer in time'}"
        return ended

    def _until_idle(self, over: threading.Event) -> str | None:
        if self._metrics is None:
            over.wait(self._times.drain)
            return None
        calm, told = Calm(self._times.calm), float("-inf")
        while True:
            look = self._server.look(self._metrics)
            now = time.monotonic()
            if calm.after(look, now):
                return "no request is left"
            if now - told >= _TELL_INTERVAL and look.requests != 0:
                told = now
                log.info("%s", look.why or f"{look.requests:.0f} requests are left")
            if over.wait(LOOK_INTERVAL):
                return None

    def _free(self, over: threading.Event) -> str:
        assert self._unload is not None
        return self._server.unload(self._unload, max(1.0, self._times.grace / 2))

    def _bounded(self, work: Callable[[threading.Event], str | None], deadline: float) -> str | None:
        """What the work returns, or None when the deadline or somebody's skipping came first.

        It has a thread of its own: a server that answers one byte a second holds up that one.
        """
        over, done = threading.Event(), threading.Event()
        outcome: list[str | None] = []

        def carry_out() -> None:
            try:
                outcome.append(work(over))
            except Exception:  # the drain goes on until its deadline
                log.exception("this is a fault in Berth")
                return
            done.set()

        threading.Thread(target=carry_out, daemon=True, name=work.__name__).start()
        while not self._skipped.is_set() and (left := deadline - time.monotonic()) > 0:
            if done.wait(min(left, _NOTICE_INTERVAL)):
                return outcome[0]
        over.set()
        return None
