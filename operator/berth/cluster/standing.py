"""Who may lead, as a decision without I/O: what a process knows about a Lease and what follows from it.

A leader stops `renew_deadline` after the *start* of its last successful renewal. Another one begins no earlier than
`lease_duration` after it *saw* that renewal, which is later. Both are measured with local clocks that never jump; the
times written in the Lease are for people. Writes are guarded by the resourceVersion, so of two that want the Lease
one gets it. Not knowing (no answer, no rights) counts as not leading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
        """Whether this process leads at `now`: turns false by itself when renewals stay away."""
        ours = self._lease is not None and self._lease.holder == self.identity
        return ours and self._leads_until is not None and now < self._leads_until

    def lost(self, now: float) -> bool:
        """Whether this process led and does not any more, against its will."""
        return self._leads_until is not None and not self.leads(now)

    def seconds_left(self, now: float) -> float:
        """Seconds for which this process leads even without another renewal."""
        return 0.0 if self._leads_until is None else max(0.0, self._leads_until - now)

    def resigned(self) -> None:
        """This process does not lead any more, of its own will."""
        self._leads_until = None

    def decide(self, now: float) -> Decision:
        """What to do next."""
        return decide(self._lease, self.identity, self._observed_at, now, self.settings)
