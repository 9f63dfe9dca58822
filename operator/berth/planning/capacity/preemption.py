"""Who has to make way: on one node, the fewest replicas of lower priority, and of those the lowest."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from berth.planning.capacity.board import Board
from berth.planning.capacity.eligibility import AtLeast, positions
from berth.planning.capacity.rooms import Claim, Room, holds
from berth.planning.capacity.standing import Standing
from berth.planning.capacity.world import Demand, GpuPod, Need


@dataclass(frozen=True, slots=True)
class Eviction:
    """Pods whose end makes room on a node."""

    number: int
    pods: tuple[GpuPod, ...]


class Preemptor:
    """Looks for evictions within one pass."""

    def __init__(self, board: Board, standings: Mapping[str, Standing]) -> None:
        self._board, self._standings = board, standings
        self._evicted: dict[int, frozenset[str]] = {}
        self._reach: dict[tuple[str, int, int], AtLeast] = {}
        self._claims: dict[tuple[str, int], tuple[Sequence[int], Sequence[Claim]]] = {}
        self._lowest: dict[str, int] = {}
        self._left = board.policy.preemptions
        self._new: set[str] = set()
        self.lowered: dict[str, int] = {}
        """Replicas that Models lose to others."""

    def make_room(self, demand: Demand, nodes: int) -> Eviction | None:
        """Evicts, on the one of these nodes where it costs least; None when that does not help, or not in this pass."""
        board, need = self._board, demand.need
        nodes &= ~board.held & self._reachable(demand)(need.count)
        shelf = board.shelf(demand, soon=True)
        if not nodes or shelf is None or board.loads_left <= 0:
            return None
        nodes &= shelf.good(need)
        if self.exhausted:
            board.wake_at(board.soonest)
            return None
        best: tuple[tuple[int, int, int], Eviction] | None = None
        cheapest = (1, self._lowest[demand.need.resource])
        for number in positions(nodes):
            victims = self._victims(demand, number)
            if victims is None:
                continue
            ranks = [self._priority(claim) for claim in victims]
            cost = (len(victims), max(ranks), sum(ranks))
            if best is None or cost < best[0]:
                best = cost, Eviction(number, tuple(claim.pod for claim in victims))
            if cost[:2] == cheapest:
                break
        if best is None:
            return None
        self._left -= 1
        self._evict(best[1])
        return best[1]

    @property
    def exhausted(self) -> bool:
        """Whether as many Models were preferred to others as may be in one plan."""
        return self._left <= 0

    def newly_lowered(self) -> set[str]:
        """Models that lost a replica since this was asked last."""
        new, self._new = self._new, set()
        return new

    def _evict(self, eviction: Eviction) -> None:
        number = eviction.number
        gone, before = frozenset(pod.uid for pod in eviction.pods), self._evicted.get(number, frozenset())
        self._board.evict(number, gone, before)
        self._evicted[number] = gone | before
        for resource in self._board.sites[number].survey.claims:
            self._claims.pop((resource, number), None)
        for pod in eviction.pods:
            self._new.add(pod.model)
            self.lowered[pod.model] = self.lowered.get(pod.model, 0) + 1

    def _reachable(self, demand: Demand) -> AtLeast:
        """How many GPUs a node would have unallocated if everything of lower priority left."""
        key = (demand.need.resource, demand.priority, demand.pod_priority)
        if key not in self._reach:
            shelf = self._board.shelf(demand, soon=True)
            rooms = shelf.rooms if shelf else {}
            self._reach[key] = AtLeast(
                (room.left + sum(claim.count for claim in claims), 1 << number)
                for number, room in rooms.items()
                if (claims := self._lower(demand, number))
            )
        return self._reach[key]

    def _lower(self, demand: Demand, number: int) -> Sequence[Claim]:
        """What may be evicted, lowest priority and youngest first."""
        ranks, claims = self._evictable(demand.need.resource, number)
        return claims[: bisect_left(ranks, demand.priority)]

    def _evictable(self, resource: str, number: int) -> tuple[Sequence[int], Sequence[Claim]]:
        """All that may end on a node, with the priority of each."""
        key = (resource, number)
        if key not in self._claims:
            gone = self._evicted.get(number, frozenset())
            found = self._board.sites[number].survey.claims.get(resource, ())
            claims = [claim for claim in found if claim.pod.uid not in gone and self._may_end(claim.pod)]
            claims.sort(key=lambda c: (self._priority(c), -c.pod.created_at.timestamp(), c.pod.uid))
            ranks = [self._priority(claim) for claim in claims]
            self._claims[key] = ranks, claims
            if ranks:
                self._lowest[resource] = min(ranks[0], self._lowest.get(resource, ranks[0]))
        return self._claims[key]

    def _may_end(self, pod: GpuPod) -> bool:
        standing = self._standings.get(pod.model)
        return standing is not None and pod in standing.evictable()

    def _priority(self, claim: Claim) -> int:
        return self._standings[claim.pod.model].demand.priority

    def _victims(self, demand: Demand, number: int) -> Sequence[Claim] | None:
        board, need = self._board, demand.need
        shelf = board.shelf(demand, soon=True)
        assert shelf is not None  # the node was found on it
        room, lower, loading = shelf.rooms[number], self._lower(demand, number), board.sites[number].survey.loading
        if not board.loads_open >> number & 1 and not any(claim.pod.uid in loading for claim in lower):
            return None
        if room.shared:
            victims = self._on_shared(demand, number, lower)
        else:
            victims = _on_exclusive(need, room, board.rivals(number, demand), lower)
        if not victims:
            return None
        stopped = sum(claim.pod.uid in loading for claim in victims)
        return victims if board.loads(number) - stopped < board.policy.loads_per_node else None

    def _on_shared(self, demand: Demand, number: int, lower: Sequence[Claim]) -> Sequence[Claim] | None:
        """Adds victims until there is room on every GPU that may be picked, then spares those that do not matter."""
        board = self._board
        shelf = board.shelf(demand, soon=True)
        rivals = board.rivals(number, demand)
        before = self._evicted.get(number, frozenset())

        def enough(victims: Sequence[Claim]) -> bool:
            gone = before | {claim.pod.uid for claim in victims}
            room = board.room_without(number, demand.need.resource, gone)
            assert shelf is not None
            room = shelf.charged(number, room)
            return holds(room.with_more(rivals, None) if rivals else room, demand.need)

        victims: list[Claim] = []
        for claim in lower:
            victims.append(claim)
            if enough(victims):
                break
        else:
            return None
        for claim in reversed(victims[:-1]):
            fewer = [one for one in victims if one is not claim]
            if enough(fewer):
                victims = fewer
        return victims


def _on_exclusive(need: Need, room: Room, rivals: int, lower: Sequence[Claim]) -> Sequence[Claim] | None:
    """Victims whose GPUs are good enough; those that are free already are."""
    if need.shared:
        return None
    return _fewest([c for c in lower if _good(c.freed, c.untouched, need)], need.count + rivals - room.left)


def _good(free: int, untouched: bool, need: Need) -> bool:
    return untouched if need.memory_mib is None else free >= need.memory_mib


def _fewest(claims: Sequence[Claim], short: int) -> Sequence[Claim] | None:
    """As few as possible that have so many GPUs together; of all such choices the one of lowest priority."""
    if short <= 0:
        return None
    number = gathered = 0
    for size in sorted((claim.count for claim in claims), reverse=True):
        if gathered >= short:
            break
        gathered += size
        number += 1
    if gathered < short:
        return None
    if number == 1:
        return [next(claim for claim in claims if claim.count >= short)]
    chosen: list[Claim] = []
    for place, claim in enumerate(claims):
        others = sorted((c.count for c in claims[place + 1 :]), reverse=True)[: number - len(chosen) - 1]
        if len(chosen) < number and claim.count + sum(others) >= short:
            chosen.append(claim)
            short -= claim.count
    return chosen
