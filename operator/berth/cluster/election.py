"""Who leads, decided over a Lease: at most one process at a time, whatever happens to clocks and connections.

A leader stops `renew_deadline` after the *start* of its last successful renewal. Another one begins no earlier than
`lease_duration` after it *saw* that renewal, which is later. Both are measured with the local steady clock, so wall
clocks may jump and differ; the times in the Lease are for people. Writes are guarded by the resourceVersion, so of two
that want the Lease one gets it. Not knowing (no answer, no rights) counts as not leading.

This bounds when a process believes it leads. What it sent just before is bounded by `write_timeout` of the gateway,
checked here, and by the resourceVersions its writes carry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from berth.cluster.errors import AlreadyExistsError, ApiError, NotFoundError, ResourceVersionConflictError
from berth.cluster.gateway import Gateway
from berth.cluster.resources import LEASES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds. See the module for what they mean to each other."""

    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    request_timeout: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.retry_period < self.renew_deadline < self.lease_duration:
            raise ValueError("an election needs 0 < retry_period < renew_deadline < lease_duration")
        self.check("request_timeout", self.request_timeout)

    def check(self, name: str, timeout: float) -> None:
        """Raise ValueError when a write may still be under way after another process began to lead."""
        margin = self.lease_duration - self.renew_deadline
        if not 0 < timeout < margin:
            raise ValueError(
                f"{name} is {timeout:g} s; it must be under lease_duration - renew_deadline = {margin:g} s"
            )


@dataclass(frozen=True, slots=True)
class Lease:
    """What counts of a Lease object. `holder` is empty when nobody holds it; `duration` is the holder's, in seconds."""

    resource_version: str
    holder: str
    duration: float
    transitions: int

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> Lease:
        """From the object of the API server; what is missing in it counts as empty."""
        spec = manifest.get("spec") or {}
        return cls(
            resource_version=manifest["metadata"]["resourceVersion"],
            holder=spec.get("holderIdentity") or "",
            duration=float(spec.get("leaseDurationSeconds") or 0),
            transitions=int(spec.get("leaseTransitions") or 0),
        )


@dataclass(frozen=True, slots=True)
class Create:
    """There is no Lease: create it."""


@dataclass(frozen=True, slots=True)
class Take:
    """Nobody holds the Lease, or its holder has not renewed it for too long: write our name over it."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Renew:
    """The Lease is in our name: renew it."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Wait:
    """Another process holds the Lease, at the earliest until `until` of our clock."""

    until: float


Decision = Create | Take | Renew | Wait


def decide(lease: Lease | None, identity: str, observed_at: float, now: float, settings: Settings) -> Decision:
    """What a process called `identity` may do about the Lease.

    `observed_at` is when it saw this very resourceVersion for the first time; `now` and it are of the same clock.
    """
    if lease is None:
        return Create()
    if lease.holder == identity:
        return Renew(lease)
    if not lease.holder:
        return Take(lease)
    until = observed_at + max(lease.duration, settings.lease_duration)
    return Take(lease) if now >= until else Wait(until)


class Standing:
    """What one process knows about the Lease, and whether it leads: no I/O, no clock of its own."""

    def __init__(self, identity: str, settings: Settings) -> None:
        self.identity = identity
        self.settings = settings
        self._lease: Lease | None = None
        self._observed_at = 0.0
        self._leads_until: float | None = None

    def observed(self, lease: Lease | None, at: float) -> None:
        """The API server showed this Lease (None: there is none); the answer arrived at `at`."""
        if lease is None or self._lease is None or lease.resource_version != self._lease.resource_version:
            self._observed_at = at
        self._lease = lease

    def held(self, lease: Lease, sent_at: float, at: float) -> None:
        """The API server took our write, which was sent at `sent_at`: we lead, counted from then."""
        self.observed(lease, at)
        self._leads_until = sent_at + self.settings.renew_deadline

    def leads(self, now: float) -> bool:
        """Whether this process leads at `now`. Turns false by itself when renewals stay away."""
        return self._leads_until is not None and now < self._leads_until

    def lost(self, now: float) -> bool:
        """Whether this process led and does not any more: in time, or because another name is in the Lease."""
        usurped = self._lease is None or self._lease.holder != self.identity
        return self._leads_until is not None and (now >= self._leads_until or usurped)

    def seconds_left(self, now: float) -> float:
        """Seconds for which this process leads even without another renewal."""
        return 0.0 if self._leads_until is None else max(0.0, self._leads_until - now)

    def resigned(self) -> None:
        """This process does not lead any more, of its own will."""
        self._leads_until = None

    def decide(self, now: float) -> Decision:
        """What to do next."""
        return decide(self._lease, self.identity, self._observed_at, now, self.settings)


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
        self._task: asyncio.Task[None] | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this process leads at this moment. Cheap; to be asked before anything is written."""
        return self._standing.leads(self._clock())

    async def acquired(self) -> None:
        """Return when this process leads."""
        assert self._task is not None, "the election has not been entered"
        waiting = asyncio.ensure_future(self._acquired.wait())
        try:
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()  # raises what ended it

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"election {self._namespace}/{self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self.is_leader:
            self._standing.resigned()
            await self._release()

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
            except ApiError as error:
                logger.warning("The Lease %s/%s cannot be kept: %s", self._namespace, self._name, error)
            now = self._clock()
            if self._standing.lost(now):
                logger.critical("The Lease %s/%s is lost", self._namespace, self._name)
                self._on_lost()
                return
            if self._standing.leads(now):
                if not self._acquired.is_set():
                    logger.info("%s leads", self._standing.identity)
                    self._acquired.set()
                # Wake up in time to notice the end, also when the last renewals failed.
                pause = min(self._settings.retry_period, self._standing.seconds_left(now))
            else:
                pause = self._settings.retry_period * random.uniform(0.8, 1.0)  # noqa: S311 — no secret
            await asyncio.sleep(pause)

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
            "leaseDurationSeconds": max(1, round(self._settings.lease_duration)),
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
