"""The World as a decision about one ModelCache sees it, and what its Jobs say when they end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from berth.planning import names
from berth.planning.download_reasons import DownloadReason
from berth.planning.figures_document import from_document, to_document
from berth.planning.nodes import Node
from berth.planning.pods import Pod
from berth.planning.world import CLAIM, Child, Refusal, Subject


@dataclass(frozen=True, slots=True)
class CacheWorld:
    """All that a decision about one ModelCache rests on."""

    subject: Subject
    claim: Child | None = None
    """The claim that it uses: its own, or the one that the person names."""
    policy: Child | None = None
    """Its NetworkPolicy."""
    jobs: tuple[Child, ...] = ()
    pods: tuple[Pod, ...] = ()
    """Pods that use the volume: of its Jobs, and of servers."""
    models: tuple[Subject, ...] = ()
    """Models whose weights belong to it."""
    nodes: tuple[Node, ...] = ()
    progress: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name of a Pod: what its download says of itself."""
    refusals: tuple[Refusal, ...] = ()
    status_written_at: datetime | None = None
    stubborn: Mapping[str, tuple[str, frozenset[str]]] = field(default_factory=dict)

    @property
    def owned(self) -> dict[str, Child]:
        """The claim, when it is the one that Berth would make, and the NetworkPolicy, by kind."""
        made = (
            self.claim if self.claim is not None and self.claim.name == names.cache_object(self.subject.name) else None
        )
        found = {CLAIM: made, "NetworkPolicy": self.policy}
        return {kind: child for kind, child in found.items() if child is not None}


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a Job ended."""

    succeeded: bool
    message: Mapping[str, Any] | None
    """What its program said, as JSON; None when that is lost."""
    words: str
    """What Kubernetes says of a failure."""


def job_end(job: Child, pods: Sequence[Pod]) -> JobEnd | None:
    """How the Job ended; None while it runs. `pods` are those of the cache."""
    conditions = {c["type"]: c for c in (job.manifest().get("status") or {}).get("conditions") or ()}
    succeeded = conditions.get("Complete", {}).get("status") == "True"
    failed = conditions.get("Failed", {})
    if not succeeded and failed.get("status") != "True":
        return None
    return JobEnd(succeeded, _last_message(job, pods, succeeded), failed.get("message", ""))


def pods_of(job: Child, pods: Sequence[Pod]) -> list[Pod]:
    """The Pods of a Job, the latest last."""
    mine = [pod for pod in pods if pod.owner_uid == job.uid]
    return sorted(mine, key=lambda pod: (pod.created_at.timestamp() if pod.created_at else 0.0, pod.name))


def _last_message(job: Child, pods: Sequence[Pod], succeeded: bool) -> Mapping[str, Any] | None:
    for pod in reversed(pods_of(job, pods)):
        container = pod.provisioner
        ended = container.terminated if container else None
        if ended is not None and (ended.exit_code == 0) == succeeded:
            return read_message(ended.message)
    return None


def read_message(text: str) -> Mapping[str, Any] | None:
    """A termination message of the provisioner; None when it is none."""
    try:
        document = understood(orjson.loads(text))
    except orjson.JSONDecodeError:
        return None
    return document if document is not None and document.get("result") in ("Succeeded", "Failed") else None


_NUMBERS = (
    *("bytesTotal", "bytesDone", "bytesFetched", "bytesPresent", "bytesPerSecond", "etaSeconds"),
    *("filesTotal", "filesDone", "attempt", "percent"),
)
_TEXTS = ("result", "reason", "message", "uri", "revision", "licence", "file", "after", "lastError")
_FLAGS = ("passing", "verified", "more")
_LONGEST_TEXT = 4096
_TOO_LARGE = 2**63
"""The API has numbers of 64 bits."""


def understood(document: Any) -> dict[str, Any] | None:
    """What a download says, in its message or of its progress: only what makes sense. None when nothing can.

    Anybody who may make Pods can say anything, and a status with a number where a text belongs is never taken.
    """
    if not isinstance(document, dict):
        return None
    found: dict[str, Any] = {name: document[name] for name in _NUMBERS if _is_number(document.get(name))}
    found |= {name: document[name][:_LONGEST_TEXT] for name in _TEXTS if isinstance(document.get(name), str)}
    found |= {name: document[name] for name in _FLAGS if isinstance(document.get(name), bool)}
    figures = from_document(document.get("figures"))
    if figures is not None:
        found["figures"] = to_document(figures)
    if isinstance(document.get("found"), list):
        found["found"] = document["found"]  # each of them is looked at by whoever takes it in
    if isinstance(document.get("retries"), dict):
        found["retries"] = {name: count for name, count in document["retries"].items() if _is_number(count)}
    seconds = document.get("seconds")
    if isinstance(seconds, int | float) and 0 <= seconds < _TOO_LARGE:
        found["seconds"] = float(seconds)
    if "reason" in found and found["reason"] not in set(DownloadReason):
        found["reason"] = DownloadReason.INTERNAL_ERROR.value
    return found


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < _TOO_LARGE
