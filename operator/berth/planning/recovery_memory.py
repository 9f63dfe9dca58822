"""What the status of a Model remembers of failures: counts live in the cluster and not in a process."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from berth.planning.canonical import content_hash
from berth.planning.policy import Policy
from berth.planning.starting import start_value
from berth.planning.times import format_time, parse_time
from berth.planning.world import Subject

_MOST_JITTER = 0.5
"""Attempts come up to half as late again, so that Models that failed together do not start together."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A Pod that failed as a whole, or that had to go because of its node."""

    pod: str
    node: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Excluded:
    """A node that is avoided."""

    node: str
    reason: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of one Model."""

    lost: tuple[Lost, ...] = ()
    """Oldest first, and no more than the budget."""
    excluded: tuple[Excluded, ...] = ()
    generation: int = 0
    since: datetime | None = None
    start_handled: str = ""

    def next_attempt(self, uid: str, policy: Policy) -> datetime | None:
        """When the place of the last Pod is filled again; None: at once, as its ReplicaSet does by itself.

        Like a kubelet with containers: the first time at once, then after a time that doubles.
        """
        number = len(self.lost)
        if number < 2:
            return None
        delay = min(policy.pod_retry_first * 2 ** (number - 2), policy.pod_retry_longest)
        moment = self.lost[-1].at + timedelta(seconds=delay * (1 + _MOST_JITTER * _fraction(uid, number)))
        return moment.replace(microsecond=0) + timedelta(seconds=1)  # as it can be written

    def forgotten(self, now: datetime) -> "Memory":
        """With the whole budget again."""
        return replace(self, lost=(), excluded=(), since=now.replace(microsecond=0))

    def shown(self, uid: str, policy: Policy) -> dict[str, Any]:
        """As status.recovery; empty when there is nothing to remember."""
        following = self.next_attempt(uid, policy)
        lost = [{"pod": o.pod, "node": o.node, "reason": o.reason, "at": format_time(o.at)} for o in self.lost]
        excluded = [{"node": o.node, "reason": o.reason, "until": format_time(o.until)} for o in self.excluded]
        found = {
            "lostPods": [{key: value for key, value in one.items() if value} for one in lost],
            "nextAttemptAt": format_time(following) if following else None,
            "excludedNodes": excluded,
            "generation": self.generation if lost or excluded else None,
            "since": format_time(self.since) if self.since else None,
            "startHandled": self.start_handled,
        }
        return {key: value for key, value in found.items() if value}


def _fraction(uid: str, number: int) -> float:
    """Between 0 and 1, the same for the same Model and attempt: who leads next waits for the same moment."""
    return int(content_hash([uid, number])[:8], 16) / 16**8


def remembered(status: Mapping[str, Any]) -> Memory:
    """What the status says; what somebody else wrote into it and makes no sense is forgotten."""
    recovery = status.get("recovery") or {}
    try:
        return Memory(
            lost=tuple(
                Lost(one["pod"], one.get("node", ""), one["reason"], _time(one["at"]))
                for one in recovery.get("lostPods") or ()
            ),
            excluded=tuple(
                Excluded(one["node"], one["reason"], _time(one["until"])) for one in recovery.get("excludedNodes") or ()
            ),
            generation=recovery.get("generation", 0),
            since=parse_time(recovery.get("since")),
            start_handled=recovery.get("startHandled", ""),
        )
    except (KeyError, ValueError, TypeError):
        return Memory()


def _time(text: str) -> datetime:
    moment = parse_time(text)
    if moment is None or moment.tzinfo is None:
        raise ValueError(text)
    return moment


@dataclass(frozen=True, slots=True)
class Recalled:
    """The memory as it is now, without what has happened since it was written."""

    memory: Memory
    started: bool = False
    """Whether a person has just asked for a start: what the Model was given up for counts no more."""
    look_again: float | None = None
    """Seconds until time alone changes it."""


def recall(subject: Subject, now: datetime, policy: Policy, *, startable: bool) -> Recalled:
    """The memory, or less: a change of the spec, an explicit start and a long time in Ready give the budget back.

    `startable` is whether a start can be obeyed: not before the servers that the Model was given up for are gone.
    """
    memory = remembered(subject.status)
    asked = start_value(subject.annotations)
    if asked and asked != memory.start_handled and startable:
        return Recalled(replace(_whole_budget(memory, now), start_handled=asked), started=True)
    if memory.lost or memory.excluded:
        if memory.generation != subject.generation:
            return Recalled(memory.forgotten(now))
        ready = _ready_since(subject)
        returned = ready + timedelta(seconds=policy.crash_run) if ready else None
        if returned is not None and returned <= now:
            return Recalled(memory.forgotten(returned - timedelta(seconds=1)))
        left = (returned - now).total_seconds() if returned else None
        waits = [(one.until - now).total_seconds() for one in memory.excluded]
        memory = replace(memory, excluded=tuple(one for one in memory.excluded if one.until > now))
        waits = [wait for wait in (*waits, *([left] if left is not None else ())) if wait > 0]
        return Recalled(memory, look_again=min(waits, default=None))
    return Recalled(memory)


def _whole_budget(memory: Memory, now: datetime) -> Memory:
    return memory.forgotten(now) if memory.lost or memory.excluded else memory


def _ready_since(subject: Subject) -> datetime | None:
    for condition in subject.status.get("conditions") or ():
        current = condition.get("observedGeneration") == subject.generation
        if condition["type"] == "Ready" and condition["status"] == "True" and current:
            return parse_time(condition["lastTransitionTime"])
    return None
