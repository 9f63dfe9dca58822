"""One pass over the queue: everybody's turn, by priority and age."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from berth.planning.capacity.admission import Admission
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.capacity.rollouts import come_back, roll_out
from berth.planning.capacity.standing import Standing
from berth.planning.capacity.turn import Turn, begin, once_more

_NO_ROOM = (CapacityReason.WAITING_FOR_GPU, CapacityReason.WAITING_FOR_MEMORY)


def decide(admission: Admission, standings: Mapping[str, Standing], queue: Sequence[Standing]) -> list[Turn]:
    """The turns of all in the queue, and of those that make way for them. `queue` is sorted."""
    _charge(admission, queue)
    turns: dict[str, Turn] = {}
    for standing in queue:
        demand = standing.demand
        if standing.remembered.keeps and demand.wanted and not demand.replicas and demand.need.count:
            turn = begin(standing, admission.board.moment)
            if come_back(admission, turn):
                _roll_out_if_due(admission, turn)
                turns[demand.key] = turn
    for standing in queue:
        if standing.demand.key not in turns:
            turns[standing.demand.key] = _turn(admission, standing)
    for key in admission.preemptor.lowered:
        if key not in turns:
            turns[key] = _turn(admission, standings[key])
    return list(turns.values())


def _charge(admission: Admission, unsettled: Iterable[Standing]) -> None:
    """Reserves for replicas that are admitted and have no node yet, on every node that they may go to."""
    board = admission.board
    position = board.index.position
    for standing in unsettled:
        demand, memory = standing.demand, standing.remembered
        if not standing.waiting or not demand.need.count:
            continue
        shelf = board.shelf(demand)
        roomy = shelf.with_left(demand.need.count) if shelf else 0
        if memory.beyond is not None:
            board.let_through += standing.waiting
            nodes = admission.allowed(demand) & roomy & board.made_after(memory.beyond)
            if not nodes:
                continue
        elif memory.nodes:
            nodes = sum(1 << position[name] for name in memory.nodes if name in position)
        else:
            nodes = admission.allowed(demand) & roomy
        board.take(nodes, demand.need, times=standing.waiting)


def _turn(admission: Admission, standing: Standing) -> Turn:
    board, demand = admission.board, standing.demand
    turn = begin(standing, board.moment)
    if not demand.wanted:
        return turn
    if not demand.need.count:
        turn.admitted = demand.wanted
        _roll_out_if_due(admission, turn)
        return turn
    if demand.key in admission.preemptor.lowered:
        _make_way(admission, turn)
        return turn
    if standing.let_through:
        admission.beyond(turn)
        return turn
    late = 0 if standing.surging else standing.in_vain(board.policy, board.moment)
    if late:
        _take_back(admission, turn, late)
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
    turn.memory = replace(turn.memory, preempted_by=preemption.for_model)
    turn.wait(CapacityReason.PREEMPTED, preemption.message)


def _recall_preemption(turn: Turn) -> None:
    """A Model that made way says so for as long as there is no room for it."""
    if turn.memory.preempted_by and turn.reason in _NO_ROOM:
        turn.wait(CapacityReason.PREEMPTED, f"made way for {turn.memory.preempted_by}; {turn.message}")


def _take_back(admission: Admission, turn: Turn, late: int) -> None:
    """Replicas that the scheduler has found no node for wait in the queue again, with their old age."""
    turn.admitted = max(0, turn.admitted - late)
    turn.memory = replace(turn.memory, taken_back=once_more(turn.memory.taken_back, turn.moment))
    said = next((pod.unschedulable_message for pod in turn.standing.unbound if pod.unschedulable_message), "")
    text = f"the scheduler has found no node for its Pod{f': {said}' if said else ''}; it is tried again later"
    turn.wait(CapacityReason.WAITING_FOR_NODE, text)
    admission.board.wake_at(admission.board.soonest)
