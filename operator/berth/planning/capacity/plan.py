"""What the capacity planner decides, as plain data that a worker carries out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from berth.api.model import RolloutStrategy
from berth.api.model_status import MemorySource
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.capacity.world import Remembered


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a Model waits for: `status.queue`."""

    position: int | None
    """Its place in the queue, from 1; None when it is not in it."""
    reason: CapacityReason
    message: str
    since: datetime
    most_mib: int | None = None
    """The memory that it could have of a GPU at best; None where memory is not what is missing, or not known."""


@dataclass(frozen=True, slots=True)
class RolloutChoice:
    """How a new Pod template replaces the old one."""

    strategy: RolloutStrategy
    why: str
    begin: bool
    """Whether the new template may be applied; until then the old one stays."""


@dataclass(frozen=True, slots=True)
class ModelCapacity:
    """What is decided about one Model."""

    admitted: int
    """Replicas that its Deployment may have."""
    remembered: Remembered
    """What to store; equal to what was given when nothing has changed."""
    required_mib: int | None = None
    source: MemorySource | None = None
    waiting: Waiting | None = None
    stalled: bool = False
    """Whether a person is needed; it still goes on by itself when what is missing appears."""
    rollout: RolloutChoice | None = None
    nodes: tuple[str, ...] = ()
    """Nodes that one of its Pods that has not been told may go to: it is given a required affinity for these, and its
    scheduling gate is removed. Of one Pod, once for each plan; empty: of none."""
    new_nodes_only: bool = False
    """Whether its Pod without a node may go only to nodes that do not exist yet."""
    share: float | None = None
    """Of Shared ones: the part of a GPU's memory that the server may use."""
    notes: tuple[str, ...] = ()
    """Sentences that a person should read."""


@dataclass(frozen=True, slots=True)
class Preemption:
    """One Model makes way for another."""

    victim: str
    for_model: str
    node: str
    pods: tuple[str, ...]
    """uids of the Pods that have to end: to be marked with pod-deletion-cost before the Deployment is made smaller."""
    message: str


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """All decisions of one pass."""

    models: Mapping[str, ModelCapacity] = field(default_factory=dict)
    preemptions: tuple[Preemption, ...] = ()
    unreported: tuple[str, ...] = ()
    """Nodes with GPUs whose agent does not report: labels and numbers of GPUs are believed instead."""
    look_again: float | None = None
    """Seconds until time alone may change the plan; None when only an event can."""
