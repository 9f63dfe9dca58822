"""World + time -> plan: every decision about capacity starts here.

`plan_capacity` is a pure function. A `Planner` gives the same answer and keeps what it derived, so that after one
change it derives little anew; it decides about everything that is not as wanted in every pass.
"""

from collections.abc import Iterable
from datetime import datetime

from berth.planning.capacity.admission import Admission, CacheUse
from berth.planning.capacity.board import Board, Pending
from berth.planning.capacity.deciding import decide
from berth.planning.capacity.derived import Derived
from berth.planning.capacity.plan import CapacityPlan, ModelCapacity
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.preemption import Preemptor
from berth.planning.capacity.standing import Standing
from berth.planning.capacity.turn import settled_result
from berth.planning.capacity.world import CapacityWorld, GpuPod


def plan_capacity(world: CapacityWorld, now: datetime, policy: CapacityPolicy) -> CapacityPlan:
    """The plan for this world. Pure: the same arguments give the same plan."""
    return Planner().plan(world, now, policy)


class Planner:
    """The same as `plan_capacity`, faster after the first time."""

    def __init__(self) -> None:
        self._derived: Derived | None = None
        self._at: datetime | None = None
        self._as_wanted: dict[str, ModelCapacity] = {}

    def plan(self, world: CapacityWorld, now: datetime, policy: CapacityPolicy) -> CapacityPlan:
        """The plan for this world."""
        derived = self._take_in(world, now, policy)
        unsettled = [derived.standings[key] for key in derived.unsettled]
        board = _board(derived, unsettled, policy, now)
        caches = _caches(derived, world, unsettled)
        admission = Admission(board, Preemptor(board, derived.standings), caches, derived.eligible)
        turns = decide(admission, derived.standings, unsettled)
        models = dict(self._as_wanted)
        position = 0
        for turn in turns:
            position += turn.queued
            models[turn.demand.key] = turn.result(position if turn.queued else None, board)
        unreported = sorted(
            site.node.name for site in board.sites if not site.survey.reported and any(site.node.allocatable.values())
        )
        return CapacityPlan(models, tuple(admission.preemptions), tuple(unreported), board.look_again)

    def _take_in(self, world: CapacityWorld, now: datetime, policy: CapacityPolicy) -> Derived:
        derived = self._derived
        if derived is None or derived.policy != policy or self._at is None or now < self._at:
            derived = Derived(policy)
            self._as_wanted.clear()
        index = derived.index
        changed = derived.update(world, now)
        if derived.index is not index:
            changed |= {key for key, standing in derived.standings.items() if standing.demand.need.shared}
        for key in changed:
            self._as_wanted.pop(key, None)
            standing = derived.standings.get(key)
            if standing is not None and standing.settled:
                self._as_wanted[key] = settled_result(standing, derived.index)
        self._derived, self._at = derived, now
        return derived


def _board(derived: Derived, unsettled: Iterable[Standing], policy: CapacityPolicy, now: datetime) -> Board:
    """The ledger before anything of this pass is charged."""
    index = derived.index
    pending = [
        Pending(
            pod,
            index.eligible(pod.placement),
            pod.unschedulable_since is not None
            and (now - pod.unschedulable_since).total_seconds() >= policy.unschedulable_after,
        )
        for pod in derived.without_node.values()
        if pod.gpus and not pod.deleting and pod.model not in derived.standings and not _held_for_ever(pod)
    ]
    pending.sort(key=lambda one: (-one.pod.pod_priority, one.pod.uid))
    sites = [derived.sites[name] for name in index.names]
    return Board(sites, index, policy, now, pending, {one.demand.pod_priority for one in unsettled})


def _held_for_ever(pod: GpuPod) -> bool:
    """Whether nobody is going to tell it where it may go: its Model is not there any more."""
    return bool(pod.model) and not pod.nodes


def _caches(derived: Derived, world: CapacityWorld, unsettled: Iterable[Standing]) -> dict[str, CacheUse]:
    """How the caches are used that Models ask for about which there is something to decide."""
    asked = [standing for standing in unsettled if standing.demand.cache]
    awaited = {s.demand.cache: s.demand.key for s in sorted(asked, key=lambda s: s.demand.key) if s.waiting}
    uses: dict[str, CacheUse] = {}
    for cache in {standing.demand.cache for standing in asked}:
        used_on = derived.index.named(pod.node for pod in derived.users(cache).values())
        terms = world.volumes.get(cache)
        nodes = None if terms is None else derived.index.matching(terms)
        uses[cache] = CacheUse(nodes, used_on, awaited.get(cache, ""))
    return uses
