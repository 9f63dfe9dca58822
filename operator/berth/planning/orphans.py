"""What is left behind: objects of ours that belong to nobody, and what becomes of them. Pure.

The garbage collector removes what a deleted Model or ModelCache owns. What is found here was spared on purpose
(`--cascade=orphan`), lost its owner by hand, or is a claim that outlives its cache.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from berth.planning import names
from berth.planning.gpu_nodes import GPU_NODE
from berth.planning.nodes import Node
from berth.planning.orphan_processes import GPU_PROCESS, lost_processes
from berth.planning.pods import Pod
from berth.planning.policy import OrphansPolicy, Policy
from berth.planning.world import CLAIM, Child, Subject

Thing = Subject | Child | Pod | Node

REPLICA_SET = "ReplicaSet"
_OWNERS = frozenset({"Model", "ModelCache", "Node", "Deployment", REPLICA_SET, "Job"})
"""Kinds that own objects of ours. What another kind owns is that one's affair."""
_ADOPTED = ("Deployment", "Service", "NetworkPolicy", CLAIM, GPU_NODE)
"""Kinds that a Model, ModelCache or Node always takes over, be it late."""
_BUDGET = "PodDisruptionBudget"
"""Taken over as well, at once, or not at all: one server needs none."""
ORPHAN_KINDS = (
    "Service",
    "Deployment",
    REPLICA_SET,
    "Job",
    "Pod",
    "NetworkPolicy",
    _BUDGET,
    CLAIM,
    GPU_NODE,
    GPU_PROCESS,
)
"""Everything that can be left behind, in the order in which it is deleted: nothing new comes to servers that end."""


@dataclass(frozen=True, slots=True)
class OrphanWorld:
    """All that is known when orphans are looked for."""

    things: tuple[Thing, ...]
    """Every object in the store, and the ReplicaSets with our labels."""
    unknown: frozenset[str] = frozenset()
    """Kinds of owners that may not be seen: nothing is said of what they own."""
    living_pods: frozenset[str] | None = frozenset()
    """uids of all Pods, whoever made them; None when that is not known."""
    namespace: str | None = None
    """The only one whose Pods are known; None when they all are."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something that belongs to nobody."""

    what: str
    """Kind of what is left behind, one of ORPHAN_KINDS."""
    kind: str
    """Kind of the object to tell it about, and to delete."""
    namespace: str
    name: str
    uid: str
    resource_version: str
    message: str
    key: str
    """What it is known again by."""
    deletes: bool = False
    """Whether it is to be deleted now."""
    looked_at: datetime | None = None
    """When somebody looked last, where what is known may be old."""

    @property
    def kept_on_purpose(self) -> bool:
        """Whether it is what Berth itself leaves behind: the data of a ModelCache."""
        return self.kind == CLAIM


@dataclass(frozen=True, slots=True)
class Findings:
    """What one look found."""

    orphans: tuple[Orphan, ...]
    since: Mapping[str, datetime]
    """By key: since when something has looked like an orphan. To be handed to the next look."""

    def counts(self) -> dict[str, int]:
        """How many there are of each kind, those of which there are none included."""
        return {kind: sum(orphan.what == kind for orphan in self.orphans) for kind in ORPHAN_KINDS}


def find_orphans(world: OrphanWorld, since: Mapping[str, datetime], now: datetime, policy: Policy) -> Findings:
    """What has belonged to nobody for the time of grace; `since` is that of the look before.

    In that time Models are made anew and adopt theirs, deletions reach the last child, and watches catch up.
    """
    suspects = {orphan.key: orphan for orphan in _suspects(world, policy)}
    first = {key: since.get(key, now) for key in suspects}
    due = [orphan for key, orphan in suspects.items() if _is_due(orphan, first[key], now, policy.orphans_grace)]
    due.sort(key=lambda orphan: (ORPHAN_KINDS.index(orphan.what), orphan.namespace, orphan.name, orphan.key))
    return Findings(tuple(due), first)


def _is_due(orphan: Orphan, since: datetime, now: datetime, grace: float) -> bool:
    fresh = orphan.looked_at is None or orphan.looked_at > since
    return fresh and (now - since).total_seconds() >= grace


def _suspects(world: OrphanWorld, policy: Policy) -> Iterator[Orphan]:
    uids = frozenset(thing.uid for thing in world.things)
    places = frozenset(_place(thing) for thing in world.things if isinstance(thing, Subject | Node))
    judged = _OWNERS - world.unknown
    for thing in world.things:
        if isinstance(thing, Subject | Node) or thing.deleting:
            continue
        if thing.owner_uid in uids or (thing.owner_uid and thing.owner_kind not in judged):
            continue
        maker = _maker(thing)
        if maker is not None and not (_is_adopted(thing, maker) and (maker in places or maker[0] in world.unknown)):
            yield _orphan(thing, maker, maker in places, policy)
    if world.living_pods is not None:
        yield from _processes(world, world.living_pods)


def _place(thing: Subject | Node) -> tuple[str, str, str]:
    if isinstance(thing, Node):
        return "Node", "", thing.name
    return thing.kind, thing.namespace, thing.name


def _maker(thing: Child | Pod) -> tuple[str, str, str] | None:
    """Whom it was made for, as its labels say; None for what is none of ours."""
    if thing.model:
        return "Model", thing.namespace, thing.model
    if thing.cache:
        return "ModelCache", thing.namespace, thing.cache
    if isinstance(thing, Child) and thing.kind == GPU_NODE:
        labels = thing.manifest()["metadata"].get("labels") or {} if thing.body != b"{}" else {}
        return ("Node", "", thing.name) if labels.get(names.MANAGED_BY_LABEL) == names.MANAGED_BY else None
    return None


def _is_adopted(thing: Child | Pod, maker: tuple[str, str, str]) -> bool:
    """Whether whoever it was made for takes it over as soon as it can, if it is there."""
    expected = names.cache_object(maker[2]) if maker[0] == "ModelCache" else maker[2]
    return isinstance(thing, Child) and thing.kind in _ADOPTED and not thing.owner_uid and thing.name == expected


def _orphan(thing: Child | Pod, maker: tuple[str, str, str], maker_exists: bool, policy: Policy) -> Orphan:
    kind = thing.kind if isinstance(thing, Child) else "Pod"
    deletes = policy.orphans is OrphansPolicy.DELETE and kind != CLAIM
    return Orphan(
        what=kind,
        kind=kind,
        namespace=thing.namespace,
        name=thing.name,
        uid=thing.uid,
        resource_version=thing.resource_version,
        message=_message(thing, kind, maker, maker_exists, deletes=deletes),
        key=thing.uid,
        deletes=deletes,
    )


def _message(thing: Child | Pod, kind: str, maker: tuple[str, str, str], maker_exists: bool, *, deletes: bool) -> str:
    whose, _, name = maker
    if kind == CLAIM:
        return (
            f"keeps the weights of {whose} {name}, which is gone; a {whose} of that name uses it again, "
            "and Berth never deletes it"
        )
    made = f"was made for {whose} {name}" + ("" if maker_exists else ", which is gone")
    owner = f"its {thing.owner_kind} no longer exists" if thing.owner_uid else "it has no owner"
    if deletes:
        return f"{made}, and {owner}; it is deleted"
    taken_over = kind in (*_ADOPTED, _BUDGET) and not maker_exists
    return f"{made}, and {owner}; {f'make the {whose} anew to have it taken over, or ' if taken_over else ''}delete it"


def _processes(world: OrphanWorld, living_pods: frozenset[str]) -> Iterator[Orphan]:
    gpu_nodes: Iterable[Child] = (
        thing for thing in world.things if isinstance(thing, Child) and thing.kind == GPU_NODE and thing.body != b"{}"
    )
    for node in gpu_nodes:
        for process in lost_processes(node.manifest(), living_pods, world.namespace):
            yield Orphan(
                what=GPU_PROCESS,
                kind=GPU_NODE,
                namespace="",
                name=node.name,
                uid=node.uid,
                resource_version=node.resource_version,
                message=str(process),
                key=f"{node.name}/{process.pid}/{process.pod_uid}",
                looked_at=process.looked_at,
            )
