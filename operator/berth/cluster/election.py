"""Election of a leader over a Lease: at most one process at a time, whatever happens to clocks and connections.

What may be done and why that is safe stands in `berth.cluster.standing`; here is the loop around it. It bounds when a
process believes that it leads. What it sent just before is bounded by the `write_timeout` of the gateway, which is
checked here, and by the resourceVersions that its writes carry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self

from berth.cluster.errors import AlreadyExistsError, ApiError, NotFoundError, ResourceVersionConflictError
from berth.cluster.gateway import Gateway
from berth.cluster.resources import LEASES
from berth.cluster.standing import Create, Decision, Lease, Renew, Settings, Standing, Take, Wait

__all__ = ["Election", "Settings", "exit_hard", "steady_clock"]

logger = logging.getLogger(__name__)

_SHORTEST_PAUSE = 0.05


def steady_clock() -> float:
    """Seconds that never jump and also pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def exit_hard() -> None:
    """End the process at once: nothing may be written after the Lease was lost, no clean-up either."""
    logging.shutdown()
    os._exit(1)


class Election:
    """Takes part in the election while its context is open; gives the Lease back when it closes.

    `identity` must differ among processes that live at the same time. Stop what the leader does before the context
    closes. `on_lost` is called when leading ends against our will and is expected not to return.
    """

    def __init__(
        self,
        gateway: Gateway,
        namespace: str,
        name: str,
        identity: str,
        settings: Settings | None = None,
        *,
        on_lost: Callable[[], object] = exit_hard,
        clock: Callable[[], float] = steady_clock,
    ) -> None:
        settings = settings or Settings()
        settings.check("the write_timeout of the gateway", gateway.limits.write_timeout)
        timeout = settings.request_timeout
        self._gateway = gateway.apart(read_timeout=timeout, write_timeout=timeout, deadline=0.0)
        self._namespace, self._name = namespace, name
        self._settings = settings
        self._standing = Standing(identity, settings)
        self._on_lost = on_lost
        self._clock = clock
        self._acquired = asyncio.Event()
        self._complaint = ""
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this process leads at this moment. Cheap; to be asked before anything is written."""
        return self._standing.leads(self._clock())

    async def acquired(self) -> None:
        """Return when this process leads for the first time."""
        await self._acquired.wait()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"election {self._namespace}/{self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._closing = True
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if not self._standing.lost(self._clock()):
            self._standing.resigned()
            await self._release()

    async def _run(self) -> None:
        try:
            await self._take_part()
        finally:  # also when something cancels this task: a leader that renews nothing must not live on
            if self._acquired.is_set() and not self._closing:
                logger.critical("The Lease %s/%s is lost", self._namespace, self._name)
                self._on_lost()

    async def _take_part(self) -> None:
        """Observe, take, renew; returns when the Lease was ours and is not any more."""
        standing = self._standing
        while True:
            if not standing.lost(self._clock()):
                await self._try_step()
            now = self._clock()
            if standing.lost(now):
                return
            if standing.leads(now) and not self._acquired.is_set():
                logger.info("%s holds the Lease %s/%s", standing.identity, self._namespace, self._name)
                self._acquired.set()
            await asyncio.sleep(self._pause(now))

    def _pause(self, now: float) -> float:
        """Seconds to the next look at the Lease: in time for whatever ends, our time or another's."""
        pause = self._settings.retry_period * random.uniform(0.8, 1.0)  # noqa: S311 — no secret
        if self._standing.leads(now):
            return min(pause, self._standing.seconds_left(now))
        decision = self._standing.decide(now)
        return min(pause, max(_SHORTEST_PAUSE, decision.until - now)) if isinstance(decision, Wait) else pause

    async def _try_step(self) -> None:
        """A step, at most until our time ends; what goes wrong in it is logged and counts as no answer."""
        try:
            async with asyncio.timeout(self._standing.seconds_left(self._clock()) or None):
                await self._step()
            self._complaint = ""
        except Exception as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        """Log what went wrong, the same thing once."""
        complaint = f"{type(error).__name__}: {error}"
        if complaint != self._complaint:
            self._complaint = complaint
            logger.warning("The Lease %s/%s cannot be kept: %s", self._namespace, self._name, complaint)

    async def _step(self) -> None:
        """Look at the Lease unless it is ours and known, then do what is to be done about it."""
        standing = self._standing
        if not isinstance(standing.decide(self._clock()), Renew):
            await self._observe()
        try:
            await self._carry_out(standing.decide(self._clock()))
        except (AlreadyExistsError, NotFoundError, ResourceVersionConflictError):
            # Somebody was faster, or our own last write arrived although its answer did not.
            await self._observe()
            if isinstance(decision := standing.decide(self._clock()), Renew):
                await self._carry_out(decision)

    async def _observe(self) -> None:
        try:
            lease = Lease.read(await self._gateway.get(LEASES, self._namespace, self._name))
        except NotFoundError:
            lease = None
        self._standing.observed(lease, self._clock())

    async def _carry_out(self, decision: Decision) -> None:
        sent_at = self._clock()
        match decision:
            case Wait():
                return
            case Create():
                manifest = {
                    "apiVersion": LEASES.api_version,
                    "kind": LEASES.kind,
                    "metadata": {"namespace": self._namespace, "name": self._name},
                    "spec": self._claim(transitions=0),
                }
                answer = await self._gateway.create(manifest)
            case Take(lease):
                answer = await self._patch(lease, self._claim(transitions=lease.transitions + 1))
            case Renew(lease):
                answer = await self._patch(
                    lease, {"renewTime": _microtime()} if self._acquired.is_set() else self._claim()
                )
        self._standing.held(Lease.read(answer), sent_at, self._clock())

    def _claim(self, transitions: int | None = None) -> dict[str, Any]:
        now = _microtime()
        spec = {
            "holderIdentity": self._standing.identity,
            "leaseDurationSeconds": math.ceil(self._settings.lease_duration),
            "acquireTime": now,
            "renewTime": now,
        }
        return spec if transitions is None else {**spec, "leaseTransitions": transitions}

    async def _patch(self, lease: Lease, spec: Mapping[str, Any]) -> dict[str, Any]:
        body = {"metadata": {"resourceVersion": lease.resource_version}, "spec": spec}
        return await self._gateway.merge_patch(LEASES, self._namespace, self._name, body)

    async def _release(self) -> None:
        """Take our name out of the Lease, so that the next leader need not wait. Best effort, two requests."""
        try:
            lease = Lease.read(await self._gateway.get(LEASES, self._namespace, self._name))
            if lease.holder == self._standing.identity:
                await self._patch(lease, {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _microtime()})
        except ApiError as error:
            logger.warning("The Lease %s/%s could not be given back: %s", self._namespace, self._name, error)


def _microtime() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
