"""Whether one more replica of a Model may ask for GPUs, and if not, what it waits for. One Model after the other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from berth.planning.capacity import sharing, words
from berth.planning.capacity.board import Board
from berth.planning.capacity.eligibility import positions
from berth.planning.capacity.plan import Preemption
from berth.planning.capacity.preemption import Preemptor
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.capacity.standing import Standing
from berth.planning.capacity.turn import Turn, again, once_more
from berth.planning.capacity.world import Demand
from berth.planning.times import format_time


@dataclass(frozen=True, slots=True)
class CacheUse:
    """Where the volume of a ModelCache can be used that is used on one node at a time."""

    nodes: int | None = None
    """Nodes that its volume allows; None: all."""
    used_on: int = 0
    """The node with Pods that use it."""
    awaited: str = ""
    """A Model that uses it and has a replica which may get a node at any moment."""


class Admission:
    """What one pass needs to decide about every Model in turn."""

    def __init__(
        self, board: Board, preemptor: Preemptor, caches: Mapping[str, CacheUse], eligible: dict[str, int]
    ) -> None:
        """`eligible` keeps from one pass to the next which nodes placements allow, by Model."""
        self.board, self.preemptor, self._caches, self._eligible = board, preemptor, caches, eligible
        self.preemptions: list[Preemption] = []
        self._in_vain: dict[tuple[int | bool, ...], int] = {}
        self.awaited: dict[str, str] = {}
        """By cache: Models that were admitted in this pass."""

    # ---- where it may go ------------------------------------------------------------------------------------

    def allowed(self, demand: Demand, *, ever: bool = False) -> int:
        """Nodes that placement and cache allow, whatever room they have."""
        known = None if ever else self._eligible.get(demand.key)
        nodes = self.board.index.eligible(demand.placement, ever=ever) if known is None else known
        if not ever:
            self._eligible[demand.key] = nodes
        use = self._caches.get(demand.cache) if demand.cache else None
        if use is not None and use.nodes is not None:
            nodes &= use.nodes
        if use is not None and use.used_on and not ever:
            nodes &= use.used_on
        return nodes

    def places(self, standing: Standing) -> int:
        """Nodes that it may go to and that could hold a replica if nothing else were there."""
        nodes = self.allowed(standing.demand) & self.board.index.could_hold(standing.demand.need)
        if standing.demand.need.shared and (same := self._same(standing)):
            nodes &= same  # all replicas have the same command line, and with it the same part of a GPU
        return nodes

    def alike(self, standing: Standing, nodes: int) -> int:
        """Those of the nodes on which a Shared Model would have the same part of each GPU; of others all."""
        need = standing.demand.need
        if not need.shared:
            return nodes
        sizes = self.board.index.totals.get(need.resource, ())
        return next((nodes & same for _, same in sizes if nodes & same), 0)

    def _same(self, standing: Standing) -> int:
        """Nodes whose GPUs are as large as those that its replicas have."""
        running = self.board.index.named(standing.places)
        sizes = self.board.index.totals.get(standing.demand.need.resource, ())
        return next((same for _, same in sizes if same & running), 0)

    # ---- admit ----------------------------------------------------------------------------------------------

    def extend(self, turn: Turn) -> None:
        """One more replica, if there is room, a load slot and nobody before it."""
        demand = turn.demand
        if not demand.provisioned:
            return
        if refused := self._refused(turn):
            turn.stalled = not demand.replicas
            turn.wait(CapacityReason.SHARING_UNAVAILABLE, refused, queued=False)
            return
        if self._unsettled(turn):
            return
        places = self.places(turn.standing)
        hopeful = places & ~self.board.held and not self._hopeless(demand, places)
        if hopeful:
            soon = places & self.board.fits_soon(demand) & ~self.board.held
            if soon and (self.admit(turn, soon & self.board.fits_now(demand)) or self._await_release(turn, soon)):
                return
        if not self._let_through(turn) and not (hopeful and self.preempt(turn, places)):
            self._queue(turn, places)

    def _hopeless(self, demand: Demand, places: int) -> bool:
        """Whether one that asked for no more has found nothing in this pass: room only gets less in it."""
        least = self._in_vain.get(_shape(demand, places))
        return least is not None and (demand.need.memory_mib or 0) >= least

    def _refused(self, turn: Turn) -> str:
        """Why its GPUs cannot be shared."""
        need = turn.demand.need
        return sharing.refusal(need, bool(self.board.index.totals.get(need.resource))) if need.shared else ""

    def _unsettled(self, turn: Turn) -> bool:
        """Whether something else has to happen first: each replica gets its node before the next one is admitted."""
        standing, demand = turn.standing, turn.demand
        retry = again(standing.remembered.taken_back, self.board.policy)
        if retry is not None and retry > turn.moment:
            self.board.wake_at(retry)
            text = f"the scheduler found no node for its Pod; it is tried again at {format_time(retry)}"
            turn.wait(CapacityReason.WAITING_FOR_NODE, text)
        elif standing.unplaced:
            self._one_by_one(turn)
        elif any(not pod.deleting for pod in standing.pods if pod.uid in standing.leaving):
            turn.wait(CapacityReason.WAITING_FOR_RELEASE, "a replica of its own is about to end")
        elif demand.cache and (other := self._awaited(demand)):
            text = f"{other} uses the same cache, which one node at a time can use, and has no node yet"
            turn.wait(CapacityReason.WAITING_FOR_NODE, text)
        else:
            return False
        return True

    def _awaited(self, demand: Demand) -> str:
        use = self._caches.get(demand.cache)
        other = self.awaited.get(demand.cache) or (use.awaited if use else "")
        return other if other != demand.key else ""

    def admit(self, turn: Turn, fitting: int) -> bool:
        """Admits one replica to some of the nodes that fit; or says that it waits for a load slot. False: no room."""
        free = fitting & ~self.board.held
        if not free:
            return False
        ready = free & self.board.loads_open
        if not ready or self.board.loads_left <= 0:
            turn.wait(CapacityReason.WAITING_FOR_LOAD_SLOT, self._no_slot(turn, free))
            return True
        nodes = self.alike(turn.standing, ready)
        if not nodes:
            return False
        nodes = self.choose(turn.standing, nodes)
        self.board.take(nodes, turn.demand.need)
        turn.admit(self.board.index.names_of(nodes))
        if turn.demand.cache:
            self.awaited[turn.demand.cache] = turn.demand.key
        if turn.admitted < turn.demand.wanted:
            self._one_by_one(turn)
        return True

    def _one_by_one(self, turn: Turn) -> None:
        """Every replica is told its nodes before the next is admitted; what those could have is kept for them."""
        turn.wait(CapacityReason.WAITING_FOR_LOAD_SLOT, "the replica before it has not been told its nodes yet")
        for _ in range(turn.demand.wanted - turn.admitted):
            fitting = self.places(turn.standing) & self.board.fits_now(turn.demand) & ~self.board.held
            ready = fitting & self.board.loads_open
            if not ready or self.board.loads_left <= 0:
                break
            self.board.take(ready & -ready, turn.demand.need)

    def choose(self, standing: Standing, nodes: int) -> int:
        """The nodes to reserve: those that are fullest, so that whole nodes stay free for those who need them.

        After an admission that the scheduler did nothing with there are more to choose from.
        """
        wanted = self.board.policy.candidates
        shelf = self.board.shelf(standing.demand)
        if not wanted or shelf is None:
            return nodes
        taken_back = standing.remembered.taken_back
        wanted <<= min(taken_back.count, 20) if taken_back else 0
        chosen = left = 0
        while nodes & ~chosen and chosen.bit_count() < wanted:
            left += 1
            some = nodes & ~shelf.with_left(left + 1) & ~chosen
            for number in positions(some):
                chosen |= 1 << number
                if chosen.bit_count() == wanted:
                    break
        return chosen

    def _no_slot(self, turn: Turn, nodes: int) -> str:
        policy, name = self.board.policy, words.first_name(self.board, nodes)
        if nodes & self.board.loads_open:
            most = policy.loads_per_cluster
            return f"{name} has room, and as many servers are loading as may load at once: {most} in the cluster"
        return f"{name} has room, and as many servers are loading there as may load at once: {policy.loads_per_node}"

    def keep_room(self, turn: Turn) -> None:
        """A Model that makes way on one node may have room on another, after its Pod has begun to end."""
        places = self.places(turn.standing) & ~self.board.held
        fitting = places & self.board.fits_now(turn.demand)
        if fitting:
            self.board.keep(next(positions(fitting)), turn.demand.need)

    # ---- wait for others to leave ---------------------------------------------------------------------------

    def _await_release(self, turn: Turn, soon: int) -> bool:
        """Claims one of these nodes, which have room once what leaves has left."""
        board, demand = self.board, turn.demand
        since = turn.standing.remembered.release_since
        if since is not None and board.over(since, board.policy.release_deadline):
            turn.releasing = bool(soon & ~board.leaving)
            soon &= board.leaving  # what ended Pods have left behind does not become free by itself
        if not soon:
            return False
        number = next(positions(soon & board.loads_open or soon))
        board.claim(number, demand.need)
        turn.releasing = turn.releasing or not board.leaving >> number & 1
        turn.wait(CapacityReason.WAITING_FOR_RELEASE, self.released(turn, number))
        return True

    def released(self, turn: Turn, number: int) -> str:
        """What it waits for on a node."""
        going = self.board.sites[number].survey.going
        names = [pod.name for pod in self.board.sites[number].pods if pod.uid in going]
        left = f"{names[0]} and its memory are gone" if names else "memory that an ended server has left behind is free"
        return f"{words.needs(turn.demand.need)}; {self.board.index.names[number]} has room once {left}"

    def preempt(self, turn: Turn, places: int) -> bool:
        """Makes others of lower priority go, where that helps."""
        board, demand = self.board, turn.demand
        before = turn.standing.remembered.preempting
        retry = again(before, board.policy)
        if retry is not None and retry > turn.moment:
            board.wake_at(retry)
            return False
        eviction = self.preemptor.make_room(demand, places)
        if eviction is None:
            if not self.preemptor.exhausted and not turn.releasing:
                self._in_vain[_shape(demand, places)] = demand.need.memory_mib or 0
            return False
        self._in_vain.clear()
        name = board.index.names[eviction.number]
        board.claim(eviction.number, demand.need)
        turn.memory = replace(turn.memory, preempting=once_more(before, turn.moment))
        victims: dict[str, list[str]] = {}
        for pod in eviction.pods:
            victims.setdefault(pod.model, []).append(pod.uid)
        text = f"made way for {demand.key}, which has priority {demand.priority}"
        self.preemptions += [Preemption(model, demand.key, name, tuple(pods), text) for model, pods in victims.items()]
        turn.wait(
            CapacityReason.WAITING_FOR_RELEASE,
            f"{words.needs(demand.need)}; {name} has room once {', '.join(victims)} made way",
        )
        return True

    # ---- ask for a new node ---------------------------------------------------------------------------------

    def _let_through(self, turn: Turn) -> bool:
        """Shows one Pod to the cluster autoscaler, if few others wait for it."""
        board, demand = self.board, turn.demand
        if not demand.autoscaled or board.let_through >= board.policy.pending_pods:
            return False
        if demand.need.shared:
            return False  # nobody knows yet which part of a new node's GPUs would be its own
        board.let_through += 1
        turn.admit(())
        turn.memory = replace(turn.memory, beyond=turn.moment, nodes=())
        turn.wait(CapacityReason.WAITING_FOR_NODE, f"{words.needs(turn.demand.need)}; asks for a new node")
        return True

    def _waited_for_node(self, turn: Turn) -> bool:
        since = turn.standing.remembered.beyond
        return since is not None and self.board.over(since, self.board.policy.no_node_after)

    def beyond(self, turn: Turn) -> None:
        """A replica waits for a node that does not exist yet. When there is room all the same, it is taken back."""
        board, demand = self.board, turn.demand
        places = self.places(turn.standing) & ~board.held
        turn.wait(CapacityReason.WAITING_FOR_NODE, f"{words.needs(demand.need)}; asks for a new node")
        fitting = places & board.fits_now(demand)
        if fitting & board.loads_open and board.loads_left > 0:
            number = next(positions(fitting & board.loads_open))
            board.keep(number, demand.need)
        elif not self._waited_for_node(turn) or not self.preempt(turn, places):
            return
        turn.admitted -= turn.standing.unplaced
        turn.memory = replace(turn.memory, beyond=None)

    # ---- no room any more -----------------------------------------------------------------------------------

    def make_wait(self, turn: Turn) -> None:
        """Replicas whose node has gone or filled up before they were told it are in the queue again, with their age."""
        turn.admitted = max(0, turn.admitted - turn.standing.unplaced)
        self._queue(turn, self.places(turn.standing))

    # ---- first in the queue ---------------------------------------------------------------------------------

    def _queue(self, turn: Turn, places: int) -> None:
        """It waits, and says for what. The first in the queue of a node holds it."""
        board, demand = self.board, turn.demand
        if not places:
            self._nowhere(turn)
            return
        reason, text, most = words.why_not_now(board, demand, places)
        nodes = places & ~board.held
        if nodes:
            turn.holding = True
            if not board.over(turn.standing.remembered.held_since or turn.moment, board.policy.hold_for):
                board.hold(nodes, demand.key)
            else:
                minutes = round(board.policy.hold_for / 60)
                text += f". It was first in the queue for {minutes} minutes; smaller ones may pass it now"
        if demand.cache and self._caches.get(demand.cache, CacheUse()).used_on:
            text += ". Its cache is in use there, and one node at a time can use it"
        turn.wait(reason, text, most_mib=most)

    def _nowhere(self, turn: Turn) -> None:
        board, demand = self.board, turn.demand
        allowed = self.allowed(demand, ever=True)
        passing = allowed & board.index.could_hold(demand.need)
        if passing:
            name = words.first_name(board, passing)
            why = f"{name} could hold it, and takes no Pods at the moment: it is cordoned or not ready"
            if demand.cache and self._caches.get(demand.cache, CacheUse()).used_on:
                why = f"its cache is in use on a node that cannot hold it; {name} could, once nobody uses the cache"
            turn.wait(CapacityReason.WAITING_FOR_NODE, f"{words.needs(demand.need)}; {why}")
            return
        turn.no_node = True
        since = turn.standing.remembered.no_node_since or turn.moment
        turn.stalled = board.over(since, board.policy.no_node_after) and not demand.autoscaled
        reason, text, most = words.why_never(board, demand, allowed)
        turn.wait(reason, text, queued=not turn.stalled, most_mib=most)


def _shape(demand: Demand, places: int) -> tuple[int | bool, ...]:
    """What decides, memory apart, whether there is room or who makes way."""
    need = demand.need
    return places, need.count, need.memory_mib is None, need.shared, demand.priority, demand.pod_priority
