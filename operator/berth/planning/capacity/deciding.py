"""One pass over the queue: everybody's turn, by priority and age."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from heapq import heappop, heappush

from berth.planning.capacity.admission import Admission
from berth.planning.capacity.eligibility import positions
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.capacity.rollouts import come_back, roll_out
from berth.planning.capacity.standing import Standing
from berth.planning.capacity.turn import Turn, begin, once_more, order

_NO_ROOM = (CapacityReason.WAITING_FOR_GPU, CapacityReason.WAITING_FOR_MEMORY)


def decide(admission: Admission, standings: Mapping[str, Standing], unsettled: Iterable[Standing]) -> list[Turn]:
    """The turns of all these, and of those that make way for them, by priority and age."""
    moment = admission.board.moment
    line = sorted(order(standing, moment) for standing in unsettled)
    queue = [standings[key] for _, _, key in line]
    _charge(admission, queue)
    places = {standing.demand.key: _place(admission, standing) for standing in queue}
    kept = _come_back(admission, queue)
    turns: dict[str, Turn] = {}
    inside = {standing.demand.key for standing in queue}
    while line:
        _, _, key = heappop(line)
        turns[key] = kept.get(key) or _turn(admission, standings[key], places.get(key, ()))
        for victim in admission.preemptor.newly_lowered() - inside:
            inside.add(victim)  # it was as wanted until now; who makes way is less important, so its turn is to come
            heappush(line, order(standings[victim], moment))
    return list(turns.values())


def _come_back(admission: Admission, queue: Iterable[Standing]) -> dict[str, Turn]:
    """The turns of Models for which GPUs are kept: those are nobody else's."""
    turns: dict[str, Turn] = {}
    for standing in queue:
        demand = standing.demand
        if standing.remembered.keeps and demand.wanted and not demand.replicas and demand.need.count:
            turn = begin(standing, admission.board.moment)
            if come_back(admission, turn):
                _roll_out_if_due(admission, turn)
                turns[demand.key] = turn
    return turns


def _charge(admission: Admission, queue: Iterable[Standing]) -> None:
    """Reserves for replicas that have been told where they may go and have no node yet, on all these nodes."""
    board = admission.board
    for standing in queue:
        need, beyond = standing.demand.need, standing.remembered.beyond
        for pod in standing.pods:  # one that is too many may be bound before it is ended
            if pod.nodes and need.count and not pod.node and not pod.deleting:
                board.take(board.index.named(pod.nodes), need)
        if standing.let_through and beyond is not None:
            board.let_through += standing.unplaced
            shelf = board.shelf(standing.demand)
            roomy = shelf.with_left(need.count) if shelf else 0
            nodes = admission.allowed(standing.demand) & board.made_after(beyond) & roomy
            if nodes:
                board.take(nodes, need, times=standing.unplaced)


def _place(admission: Admission, standing: Standing) -> tuple[str, ...] | None:
    """A place for a replica that is admitted and has not been told any; the one that is reserved, while it is free.

    One that takes the place of an evicted Pod has none yet. None: there is no room for it, not even soon.
    """
    board, demand = admission.board, standing.demand
    if not standing.unplaced or standing.let_through or not demand.need.count:
        return ()
    places = admission.places(standing)
    room = places & board.fits_now(demand)
    fitting = admission.alike(standing, room & board.loads_open) if board.loads_left > 0 else 0
    nodes = board.index.named(standing.reserved) & fitting or admission.choose(standing, fitting)
    if nodes:
        board.take(nodes, demand.need)
        return board.index.names_of(nodes)
    soon = places & board.fits_soon(demand)
    if soon:
        board.claim(next(positions(soon)), demand.need)
    return () if room or soon else None


def _turn(admission: Admission, standing: Standing, place: tuple[str, ...] | None = ()) -> Turn:
    board, demand = admission.board, standing.demand
    turn = begin(standing, board.moment)
    if demand.wanted and standing.unplaced and not standing.let_through:
        turn.memory = replace(turn.memory, nodes=place or ())
    if not demand.wanted:
        return turn
    if not demand.need.count:
        turn.admitted = demand.wanted
        _roll_out_if_due(admission, turn)
        return turn
    if demand.key in admission.preemptor.lowered:
        _make_way(admission, turn)
        return turn
    late = 0 if standing.surging else standing.in_vain(board.policy, board.over)
    if late:
        _take_back(admission, turn, late)
        return turn
    if standing.let_through:
        admission.beyond(turn)
        return turn
    if place is None and demand.rollout is None:
        admission.make_wait(turn)
        _recall_preemption(turn)
        return turn
    _roll_out_if_due(admission, turn)
    if (demand.rollout is None or not demand.replicas) and turn.admitted < demand.wanted:
        admission.extend(turn)
        _recall_preemption(turn)
    return turn


def _roll_out_if_due(admission: Admission, turn: Turn) -> None:
    if turn.demand.rollout is None:
        return
    roll_out(admission, turn)
    if turn.demand.replicas and turn.demand.need.count and turn.reason is None and turn.admitted < turn.demand.wanted:
        turn.wait(CapacityReason.WAITING_FOR_LOAD_SLOT, "the update is finished first")


def _make_way(admission: Admission, turn: Turn) -> None:
    """Replicas end in favour of a Model that is more important."""
    key = turn.demand.key
    turn.admitted = max(0, turn.admitted - admission.preemptor.lowered[key])
    preemption = next(one for one in admission.preemptions if one.victim == key)
    turn.memory = replace(turn.memory, nodes=(), preempted_by=preemption.for_model)
    admission.keep_room(turn)
    turn.wait(CapacityReason.PREEMPTED, preemption.message)


def _recall_preemption(turn: Turn) -> None:
    """A Model that made way says so for as long as there is no room for it."""
    if turn.memory.preempted_by and turn.reason in _NO_ROOM:
        turn.wait(CapacityReason.PREEMPTED, f"made way for {turn.memory.preempted_by}; {turn.message}")


def _take_back(admission: Admission, turn: Turn, late: int) -> None:
    """Replicas that the scheduler has found no node for wait in the queue again, with their old age."""
    turn.admitted = max(0, turn.admitted - late)
    turn.memory = replace(turn.memory, nodes=(), taken_back=once_more(turn.memory.taken_back, turn.moment))
    said = next((pod.unschedulable_message for pod in turn.standing.unbound if pod.unschedulable_message), "")
    text = f"the scheduler has found no node for its Pod{f': {said}' if said else ''}; it is tried again later"
    turn.wait(CapacityReason.WAITING_FOR_NODE, text)
    admission.board.wake_at(admission.board.soonest)
