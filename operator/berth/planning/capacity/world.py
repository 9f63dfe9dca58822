"""What the capacity planner sees: nodes with their GPUs, the Pods that hold some, and what each Model asks for.

Plain values that a store fills. Whoever changes one replaces it: what is the same object is taken to be unchanged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from berth.api.model import RolloutStrategy
from berth.api.model_status import MemorySource
from berth.planning.capacity.placement import ANYWHERE, Placement, Taint, Terms

# ---- nodes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU or MIG device, as the agent of its node measures it."""

    uuid: str
    resource: str
    """The extended resource that it is offered as."""
    total_mib: int | None
    """None where memory cannot be measured: only numbers of GPUs count then."""
    driver_mib: int = 0
    """Reserved by the driver."""
    foreign_mib: int = 0
    """Used by processes that belong to no Pod of a Model."""
    measured: Mapping[str, int] = field(default_factory=dict)
    """Used by processes of Pods, in MiB by uid of the Pod; of Pods that are gone, too."""
    holders: tuple[str, ...] = ()
    """uids of the Pods that kubelet has given it to."""
    healthy: bool = True
    trouble: str = ""
    """What is wrong with it, as a sentence; empty when it is healthy."""


@dataclass(frozen=True, slots=True)
class GpuReport:
    """What the agent of a node says."""

    gpus: tuple[Gpu, ...]
    at: datetime
    """When it was written last."""
    alive: bool = True
    """Whether the agent's Pod is ready."""


@dataclass(frozen=True, slots=True)
class Node:
    """What decides whether a replica may go to a node."""

    name: str
    created_at: datetime
    allocatable: Mapping[str, int]
    """Extended resources only."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    """Cordoned."""
    report: GpuReport | None = None


# ---- Pods -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GpuPod:
    """A Pod that is not finished: of a Model, or anybody's that asks for GPUs, or that uses the volume of a cache."""

    uid: str
    name: str
    created_at: datetime
    gpus: Mapping[str, int]
    """Extended resources that it takes."""
    model: str = ""
    """Key of its Model; empty for Pods of others."""
    node: str = ""
    memory_mib: int | None = None
    """Memory reserved on each of its GPUs, as it was when the Pod was made; None: all of it."""
    shared: bool = False
    pod_priority: int = 0
    """The number of its PriorityClass."""
    placement: Placement = ANYWHERE
    """Needed for Pods of others that have no node."""
    ready: bool = False
    loading: bool = False
    """Of a Model: on its way to ready for the first time, and neither failed nor held back after a failure."""
    nodes: tuple[str, ...] = ()
    """Nodes that it has been told it may go to; empty: not told yet, so a scheduling gate holds it back."""
    bound_at: datetime | None = None
    deleting: bool = False
    ends_at: datetime | None = None
    """When its grace period is over (metadata.deletionTimestamp)."""
    unschedulable_since: datetime | None = None
    """Since when the scheduler says that it fits nowhere."""
    unschedulable_message: str = ""
    outdated: bool = False
    """Whether it was made from another Pod template than the wanted one."""
    leaves_first: bool = False
    """Whether it is marked to be the first that ends when there are too many (pod-deletion-cost)."""
    cache: str = ""
    """Key of the ModelCache whose volume it uses, where that can be used on one node only."""


# ---- Models -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica takes of one node."""

    count: int
    """GPUs; 0: none."""
    resource: str = "nvidia.com/gpu"
    memory_mib: int | None = None
    """On each of them; None: neither declared nor estimated, so all of it."""
    source: MemorySource | None = None
    shared: bool = False
    capped: bool = True
    """Whether the server can be told how much memory it may use."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A Pod template that is not that of every Pod yet."""

    wish: RolloutStrategy
    started: RolloutStrategy | None = None
    """The strategy of the Deployment when it has the new template already."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often something was done in vain, and when last."""

    count: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Remembered:
    """What cannot be derived from Deployments and Pods, and so has to be stored with the Model.

    The plan has the new one; it has to be stored before, or together with, the Deployment.
    """

    queued_at: datetime | None = None
    """Where its age counts from: creation, or the last time it was woken; None while it is stopped."""
    reason: str = ""
    since: datetime | None = None
    """Since when that is what it waits for."""
    held_since: datetime | None = None
    """Since when it is first in the queue of some nodes, and holds them."""
    no_node_since: datetime | None = None
    """Since when no node can ever fit it."""
    release_since: datetime | None = None
    """Since when nothing but memory left behind by ended Pods is in its way."""
    unbound_since: datetime | None = None
    """Since when an admitted replica has no node."""
    nodes: tuple[str, ...] = ()
    """Nodes that the next replica which is told may go to, and is reserved on."""
    beyond: datetime | None = None
    """When a replica was let through to ask for a new node: it may go to nodes made later only."""
    keeps: str = ""
    """The node whose GPUs are kept for it during an update in place."""
    preempted_by: str = ""
    """The Model that it made way for, until it is admitted again."""
    preempting: Attempts | None = None
    """Preemptions for it since a replica of it was bound last."""
    taken_back: Attempts | None = None
    """Admissions that the scheduler did nothing with, since a replica was bound last."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one Model asks for, and what it has been given."""

    key: str
    """Namespace and name, `namespace/name`."""
    created_at: datetime
    wanted: int
    """Replicas that should run; 0 when it is stopped, scaled to zero or failed."""
    replicas: int
    """spec.replicas of its Deployment; 0 when there is none."""
    need: Need
    priority: int = 100
    pod_priority: int = 0
    """The number of the PriorityClass of its Pods."""
    placement: Placement = ANYWHERE
    autoscaled: bool = False
    provisioned: bool = True
    """Whether its weights are there; it is no candidate before."""
    cache: str = ""
    """Key of the ModelCache that it uses, where that can be used on one node only."""
    rollout: Rollout | None = None
    """None while every Pod has the wanted template."""
    remembered: Remembered | None = None
    """None when it was never planned for."""


@dataclass(frozen=True, slots=True)
class CapacityWorld:
    """All that the plan rests on."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    """By name."""
    pods: Mapping[str, GpuPod] = field(default_factory=dict)
    """By uid."""
    models: Mapping[str, Demand] = field(default_factory=dict)
    """By key."""
    volumes: Mapping[str, Terms] = field(default_factory=dict)
    """Where volumes of caches that can be used on one node only can be used at all, by key of the ModelCache."""
