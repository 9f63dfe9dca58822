"""How a new Pod template replaces the old one: beside it where there is room for one more, otherwise in its place.

In place, a single replica ends first. Its GPUs are kept for it until its memory is released; only then the new one
loads.
"""

from dataclasses import replace

from berth.api.model import RolloutStrategy
from berth.planning.capacity import words
from berth.planning.capacity.admission import Admission
from berth.planning.capacity.eligibility import positions
from berth.planning.capacity.plan import RolloutChoice
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.capacity.turn import Turn

AS_DECLARED = "as rollout.strategy says"


def roll_out(admission: Admission, turn: Turn) -> None:
    """Chooses how, and whether the new template may be applied now."""
    rollout, demand = turn.demand.rollout, turn.demand
    assert rollout is not None
    if not demand.need.count:
        wish = rollout.wish
        strategy = RolloutStrategy.SURGE if wish is RolloutStrategy.AUTO else wish
        turn.rollout = RolloutChoice(
            strategy, "no GPU is needed" if wish is RolloutStrategy.AUTO else AS_DECLARED, True
        )
    elif not demand.replicas:
        turn.rollout = RolloutChoice(RolloutStrategy.IN_PLACE, "no replica runs", True)
    elif rollout.started is not None:
        _go_on(admission, turn, rollout.started)
    elif rollout.wish is RolloutStrategy.IN_PLACE:
        _in_place(admission, turn, AS_DECLARED)
    else:
        _surge(admission, turn, rollout.wish)


def _go_on(admission: Admission, turn: Turn, started: RolloutStrategy) -> None:
    rollout, board = turn.demand.rollout, admission.board
    assert rollout is not None
    stuck = turn.standing.in_vain(board.policy, board.over)
    if started is RolloutStrategy.SURGE and rollout.wish is not RolloutStrategy.SURGE and stuck:
        _in_place(admission, turn, "the scheduler found no node for one more replica")
        return
    why = AS_DECLARED if started is rollout.wish else "as it was begun"
    turn.rollout = RolloutChoice(started, why, True)
    if stuck:
        turn.wait(CapacityReason.WAITING_FOR_GPU, "the scheduler finds no node for the new replica; the old one serves")


def _surge(admission: Admission, turn: Turn, wish: RolloutStrategy) -> None:
    board, demand = admission.board, turn.demand
    places = admission.places(turn.standing) & ~board.held
    fitting = admission.alike(turn.standing, places & board.fits_now(demand))
    if not fitting:
        number = next(positions(places), None)
        if number is None:
            text = f"{words.needs(demand.need)}; no node takes one more replica"
        else:
            text = words.why_not_now(board, demand, places).text
        if wish is RolloutStrategy.AUTO:
            _in_place(admission, turn, f"no GPU is free for one more replica: {text}")
            return
        turn.rollout = RolloutChoice(RolloutStrategy.SURGE, AS_DECLARED, False)
        turn.wait(CapacityReason.WAITING_FOR_GPU, f"the update waits for room for one more replica: {text}")
        return
    ready = fitting & board.loads_open
    name = words.first_name(board, ready or fitting)
    why = AS_DECLARED if wish is RolloutStrategy.SURGE else f"{name} has room for one more replica"
    begin = bool(ready) and board.loads_left > 0
    turn.rollout = RolloutChoice(RolloutStrategy.SURGE, why, begin)
    if not begin:
        turn.wait(CapacityReason.WAITING_FOR_LOAD_SLOT, "the update waits until fewer servers are loading")
        return
    nodes = admission.choose(turn.standing, ready)
    board.take(nodes, demand.need)
    turn.memory = replace(turn.memory, nodes=board.index.names_of(nodes))


def _in_place(admission: Admission, turn: Turn, why: str) -> None:
    board, demand = admission.board, turn.demand
    numbers = [board.index.position.get(pod.node) for pod in turn.standing.bound]
    number = next((number for number in numbers if number is not None), None)
    free = number is None or bool(board.loads_open >> number & 1)
    begin = turn.demand.rollout is not None and (
        turn.demand.rollout.started is not None or (free and board.loads_left > 0)
    )
    turn.rollout = RolloutChoice(RolloutStrategy.IN_PLACE, why, begin)
    if not begin:
        turn.wait(CapacityReason.WAITING_FOR_LOAD_SLOT, "the update waits until fewer servers are loading")
        return
    if number is not None:
        board.load(number)
    if demand.replicas > 1:
        return
    turn.admitted = 0
    turn.memory = replace(turn.memory, keeps=board.index.names[number] if number is not None else "")
    turn.wait(CapacityReason.WAITING_FOR_RELEASE, "the old server ends before the new one starts in its place")


def come_back(admission: Admission, turn: Turn) -> bool:
    """The second step in place: the kept GPUs, once they are free. False when there is nothing kept any more."""
    board, demand, memory = admission.board, turn.demand, turn.standing.remembered
    number = board.index.position.get(memory.keeps)
    if number is None or not demand.provisioned:
        return False
    bit = 1 << number
    if not admission.places(turn.standing) & bit:
        return False
    if not turn.standing.pods and board.fits_now(demand) & bit:
        if board.loads_open & bit and board.loads_left > 0:
            return admission.admit(turn, bit)
        board.keep(number, demand.need)
        turn.wait(
            CapacityReason.WAITING_FOR_LOAD_SLOT, f"{memory.keeps} is kept for it until fewer servers are loading"
        )
        return True
    if not board.fits_soon(demand) & bit:
        return False
    if not turn.standing.pods:
        turn.releasing = True
        if memory.release_since is not None and board.over(memory.release_since, board.policy.release_deadline):
            return False
    if turn.standing.pods:
        board.claim(number, demand.need)
    else:
        board.keep(number, demand.need)
    turn.wait(CapacityReason.WAITING_FOR_RELEASE, admission.released(turn, number))
    return True
