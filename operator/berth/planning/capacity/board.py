"""The ledger of one pass: what is still free while one Model after the other takes its part.

Of every resource there are two views, `now` and `soon` (see rooms). What is admitted is charged to both on every node
that it may go to; what waits for others to leave is charged to `soon` on the node that it waits for.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from berth.planning.capacity.eligibility import AtLeast, NodeIndex, positions
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.rooms import Room, Site, room_without
from berth.planning.capacity.world import Demand, GpuPod, Need


class Shelf:
    """The room of one resource on all nodes that offer it."""

    def __init__(self, rooms: Iterable[tuple[int, Room]]) -> None:
        self.rooms: dict[int, Room] = {}
        self._charged: dict[int, list[tuple[int, int | None]]] = {}
        self._with_left: list[int] = [0]
        self._untouched = 0
        self._shared = 0
        self._free: AtLeast | None = None
        self._free_shared: AtLeast | None = None
        for number, room in rooms:
            self._put(number, room)

    def fitting(self, need: Need) -> int:
        """Nodes whose room is enough for one replica, whichever GPUs it is given."""
        nodes = self.with_left(need.count)
        if not nodes:
            return 0
        if need.shared:
            return 0 if need.memory_mib is None else nodes & self.free(shared=True)(need.memory_mib)
        if need.count > 1:
            nodes &= ~self._shared  # several shares may be shares of one and the same GPU
        if need.memory_mib is None:
            return nodes & self._untouched
        return nodes & self.free(shared=False)(need.memory_mib)

    def good(self, need: Need) -> int:
        """Nodes on which every GPU that is free already has enough memory; those with shared GPUs in any case."""
        if need.memory_mib is None:
            return self._untouched | self._shared
        return self.free(shared=False)(need.memory_mib) | self._shared

    def with_left(self, count: int) -> int:
        """Nodes with at least so many unallocated GPUs."""
        return self._with_left[count] if count < len(self._with_left) else 0

    def free(self, *, shared: bool) -> AtLeast:
        """Free memory on the fullest GPU that a Pod may be given."""
        if shared:
            if self._free_shared is None:
                self._free_shared = AtLeast((room.free_shared, 1 << n) for n, room in self.rooms.items())
            return self._free_shared
        if self._free is None:
            self._free = AtLeast((room.free, 1 << n) for n, room in self.rooms.items())
        return self._free

    def charge(self, number: int, count: int, memory: int | None) -> None:
        """One more Pod may be given GPUs of this node."""
        room = self.rooms.get(number)
        if room is not None:
            self._charged.setdefault(number, []).append((count, memory))
            self._put(number, room.with_more(count, memory))

    def rebuild(self, number: int, room: Room) -> None:
        """The room of a node is another one; what was charged stays charged."""
        self._put(number, self.charged(number, room))

    def charged(self, number: int, room: Room) -> Room:
        """The same room less what was charged."""
        for count, memory in self._charged.get(number, ()):
            room = room.with_more(count, memory)
        return room

    def _put(self, number: int, room: Room) -> None:
        bit = 1 << number
        before = self.rooms.get(number)
        self.rooms[number] = room
        had = before.left if before else 0
        while len(self._with_left) <= room.left:
            self._with_left.append(0)
        for count in range(had + 1, room.left + 1):
            self._with_left[count] |= bit
        for count in range(room.left + 1, had + 1):
            self._with_left[count] &= ~bit
        if before is None or before.untouched != room.untouched:
            self._untouched = self._untouched | bit if room.untouched else self._untouched & ~bit
        if room.shared:
            self._shared |= bit
        if before is None or before.free != room.free:
            self._free = None
        if before is None or before.free_shared != room.free_shared:
            self._free_shared = None


@dataclass(frozen=True, slots=True)
class Pending:
    """A Pod of others that waits for a node and could take a GPU."""

    pod: GpuPod
    nodes: int
    """Nodes that its placement allows."""
    stuck: bool
    """Whether the scheduler has found no node for it for long: what is free now does not help it."""


class Board:
    """What is free and what is promised, on all nodes."""

    def __init__(
        self,
        sites: Sequence[Site],
        index: NodeIndex,
        policy: CapacityPolicy,
        now: datetime,
        pending: Sequence[Pending],
        pod_priorities: Iterable[int],
    ) -> None:
        self.sites, self.index, self.policy, self.moment = sites, index, policy, now
        self.held = 0
        self.holders: list[tuple[int, str]] = []
        """Sets of nodes, and the Models that hold them because they are first in the queue there."""
        self.let_through = 0
        """Pods that are shown to a cluster autoscaler."""
        self.leaving = 0
        """Nodes with Pods that are about to go."""
        self.loads_open = 0
        self._loads: list[int] = []
        self._wake: datetime | None = None
        self._pending = pending
        self._ranks: dict[int, int] = {}
        for number, site in enumerate(sites):
            self._loads.append(len(site.survey.loading))
            self.loads_open |= (self._loads[number] < policy.loads_per_node) << number
            self.leaving |= bool(site.survey.going) << number
            if site.survey.valid_until is not None:
                self.wake_at(site.survey.valid_until)
        self.loads_left = policy.loads_per_cluster - sum(self._loads)
        self._now: dict[str, dict[int, Shelf]] = {}
        self._soon: dict[str, dict[int, Shelf]] = {}
        ranks = {self._rank(priority) for priority in pod_priorities} or {0}
        for resource in index.offering:
            self._now[resource] = {rank: self._shelf(resource, rank, soon=False) for rank in ranks}
            self._soon[resource] = {rank: self._shelf(resource, rank, soon=True) for rank in ranks}

    # ---- Pods of others that wait ---------------------------------------------------------------------------

    def _rank(self, pod_priority: int) -> int:
        """How many Pods of others go first; equal ranks have the same room."""
        if pod_priority not in self._ranks:
            self._ranks[pod_priority] = sum(one.pod.pod_priority >= pod_priority for one in self._pending)
        return self._ranks[pod_priority]

    def _shelf(self, resource: str, rank: int, *, soon: bool) -> Shelf:
        shelf = Shelf(
            (number, (site.survey.soon if soon else site.survey.now)[resource])
            for number, site in enumerate(self.sites)
            if resource in site.survey.now
        )
        for one in self._pending[:rank]:  # sorted by falling priority
            count = one.pod.gpus.get(resource, 0)
            if count and not one.stuck:
                for number in positions(one.nodes & shelf.with_left(count)):
                    shelf.charge(number, count, None)
        return shelf

    def rivals(self, number: int, demand: Demand) -> int:
        """GPUs of this node that waiting Pods of others might take once they are free."""
        return sum(
            one.pod.gpus.get(demand.need.resource, 0)
            for one in self._pending
            if one.pod.pod_priority >= demand.pod_priority and one.nodes >> number & 1
        )

    # ---- what fits ------------------------------------------------------------------------------------------

    def shelf(self, demand: Demand, *, soon: bool = False) -> Shelf | None:
        """The room of what the Model asks for; None when no node offers it."""
        view = self._soon if soon else self._now
        shelves = view.get(demand.need.resource)
        return None if shelves is None else shelves[self._rank(demand.pod_priority)]

    def fits_soon(self, demand: Demand) -> int:
        """Nodes with room for one replica once what leaves has left."""
        shelf = self.shelf(demand, soon=True)
        return shelf.fitting(demand.need) if shelf else 0

    def fits_now(self, demand: Demand) -> int:
        """Nodes with room for one replica that nobody before it waits for."""
        shelf = self.shelf(demand)
        return shelf.fitting(demand.need) & self.fits_soon(demand) if shelf else 0

    def made_after(self, moment: datetime) -> int:
        """Nodes that have appeared since."""
        return sum(1 << number for number, site in enumerate(self.sites) if site.node.created_at > moment)

    def loads(self, number: int) -> int:
        """Servers that are loading on a node, or may be about to."""
        return self._loads[number]

    # ---- who takes what -------------------------------------------------------------------------------------

    def take(self, nodes: int, need: Need, *, times: int = 1) -> None:
        """Replicas are admitted, and may go to any of these nodes."""
        for number in positions(nodes):
            for _ in range(times):
                self._charge(self._now, number, need)
                self._charge(self._soon, number, need)
            self.load(number, times)
        self.loads_left -= times

    def claim(self, number: int, need: Need) -> None:
        """One replica waits for this node: what becomes free there, and the next load, is for it."""
        self._charge(self._soon, number, need)
        self.load(number)

    def keep(self, number: int, need: Need) -> None:
        """Like a claim, and what is free there already is not for others either."""
        self._charge(self._now, number, need)
        self.claim(number, need)

    def hold(self, nodes: int, key: str) -> None:
        """Nobody behind this Model in the queue may take anything of these nodes."""
        self.held |= nodes
        self.holders.append((nodes, key))

    def load(self, number: int, more: int = 1) -> None:
        """So many more servers are loading on a node, or may be about to."""
        self._loads[number] += more
        bit = 1 << number
        if self._loads[number] < self.policy.loads_per_node:
            self.loads_open |= bit
        else:
            self.loads_open &= ~bit

    def evict(self, number: int, gone: frozenset[str], before: frozenset[str]) -> None:
        """These Pods are going to leave the node, as those evicted before are."""
        self.load(number, -len(gone & self.sites[number].survey.loading))
        for name in self.sites[number].survey.soon:
            room = self.room_without(number, name, gone | before)
            for shelf in self._soon.get(name, {}).values():
                shelf.rebuild(number, room)

    def room_without(self, number: int, resource: str, gone: frozenset[str]) -> Room:
        """The room of a node once these Pods are gone too."""
        return room_without(self.sites[number], resource, gone, self.policy)

    def _charge(self, view: Mapping[str, Mapping[int, Shelf]], number: int, need: Need) -> None:
        for shelf in view.get(need.resource, {}).values():
            shelf.charge(number, need.count, need.memory_mib if need.shared else None)

    # ---- time -----------------------------------------------------------------------------------------------

    def wake_at(self, moment: datetime) -> None:
        """At this moment the plan may change without any event."""
        if moment > self.moment and (self._wake is None or moment < self._wake):
            self._wake = moment

    def over(self, start: datetime, seconds: float) -> bool:
        """Whether so much time has passed since; if not, that moment is one to look again at."""
        end = start + timedelta(seconds=seconds)
        if self.moment >= end:
            return True
        self.wake_at(end)
        return False

    @property
    def soonest(self) -> datetime:
        """The next moment at which it is worth to plan anew."""
        return self.moment + timedelta(seconds=1)

    @property
    def look_again(self) -> float | None:
        """Seconds until time alone may change the plan."""
        return None if self._wake is None else (self._wake - self.moment).total_seconds()
