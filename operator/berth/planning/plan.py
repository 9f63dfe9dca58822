"""What a plan is made of: plain data, which a worker carries out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from berth.planning.capacity.world import Demand
from berth.planning.world import Manifest


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply a manifest server-side. The manifest carries the resourceVersion that the decision rests on, if any."""

    manifest: Manifest
    force: bool
    """Only for objects that were seen with our ownerReference."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object of ours, in exactly the version that was seen."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class Hurry:
    """Delete a Pod with hardly any time for its end, whether it is being deleted already or not."""

    namespace: str
    name: str
    uid: str
    grace: int
    """Seconds that are left to it."""
    order: str
    """URL by which its drain sidecar is told to wait no longer; empty when it has none."""


@dataclass(frozen=True, slots=True)
class PodPatch:
    """Change a Pod of ours, in exactly the version that was seen."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    body: Manifest
    """A JSON merge patch, without what says which version it is for."""


@dataclass(frozen=True, slots=True)
class Note:
    """An Event to tell: transitions only."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class DownloadEnd:
    """How a download ended, for metrics."""

    reason: str
    """Empty when it succeeded."""
    bytes_fetched: int = 0
    seconds: float = 0.0
    retries: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartTimes:
    """How long a Model took from its wish to run until it answered, for metrics. Seconds."""

    whole: float
    parts: Mapping[str, float]
    """Those of provisioning, queued, creating and loading that it went through."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about one Model or ModelCache, as plain data."""

    changes: tuple[Apply | Delete, ...] = ()
    status: Mapping[str, Any] | None = None
    """The whole status to write; None when it is right as it is."""
    hurries: tuple[Hurry, ...] = ()
    notes: tuple[Note, ...] = ()
    transition: tuple[str, str, str] | None = None
    """Phase before, phase after, reason: one log line."""
    phase_seconds: float | None = None
    """How long the phase before that transition lasted; None where that is not known."""
    start: StartTimes | None = None
    """A start whose end this plan records for the first time: counted once the status is written."""
    downloads: tuple["DownloadEnd", ...] = ()
    """Downloads whose end this plan records for the first time: counted once the status is written."""
    marks: tuple[PodPatch, ...] = ()
    """Changes of Pods that come before all else: which of them end first."""
    tells: tuple[PodPatch, ...] = ()
    """Changes of Pods that come after all else: they may go to a node now."""
    demand: Demand | None = None
    """What the Model asks of the capacity planner; None when nothing."""
    template_hash: str = ""
    """Hash of the Pod template that its servers have or are to have; empty when there is none."""
    look_again: float | None = None
    """Seconds until time alone may change the plan; None when only an event can."""
