"""What a Model waits for, in a sentence with the numbers."""

from typing import NamedTuple

from berth.planning.capacity.board import Board
from berth.planning.capacity.eligibility import positions
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.capacity.rooms import BOUNDLESS
from berth.planning.capacity.world import Demand, Need

WHOLE = "the memory that it needs is neither declared in gpus.memory nor estimated, so it takes whole GPUs"


class Why(NamedTuple):
    """What is missing."""

    reason: CapacityReason
    text: str
    most_mib: int | None = None
    """The memory that it could have of a GPU at best; None where memory is not what is missing, or not known."""


def needs(need: Need) -> str:
    """What one replica needs."""
    if need.shared:
        return f"needs {need.memory_mib} MiB of a shared GPU"
    if need.memory_mib is None:
        text = "needs a whole GPU" if need.count == 1 else f"needs {need.count} whole GPUs"
        return f"{text}, since gpus.memory is not set and not estimated"
    if need.count == 1:
        return f"needs {need.memory_mib} MiB on a GPU"
    return f"needs {need.memory_mib} MiB on each of {need.count} GPUs"


def first_name(board: Board, nodes: int) -> str:
    """The name of the first of these nodes."""
    return board.index.names[next(positions(nodes))]


def why_not_now(board: Board, demand: Demand, places: int) -> Why:
    """What is missing now on the node that comes closest; `places` are nodes that could hold it if they were empty."""
    need = demand.need
    shelf = board.shelf(demand)
    assert shelf is not None  # places are nodes that offer it
    fitting = places & shelf.fitting(need)
    if fitting:
        name = first_name(board, fitting)
        holder = next((key for nodes, key in board.holders if nodes & fitting), None)
        if holder is not None:
            text = f"{needs(need)}; {name} has room, and {holder} is first in its queue"
        else:
            text = f"{needs(need)}; {name} has room that is promised to Models before it"
        return Why(CapacityReason.WAITING_FOR_GPU, text)
    unallocated = places & shelf.with_left(need.count)
    if unallocated:
        free, nodes = shelf.free(shared=need.shared).most(unallocated)
        name = first_name(board, nodes)
        has = "no GPU that nobody uses" if free >= BOUNDLESS or need.memory_mib is None else f"{max(free, 0)} MiB free"
        text = f"{needs(need)}; {name} has {has} on its fullest candidate GPU{_others(places)}"
        most = free if 0 < free < BOUNDLESS else None
        return Why(CapacityReason.WAITING_FOR_MEMORY, text + _label_note(board, nodes), most)
    for left in range(need.count - 1, -1, -1):
        nodes = places & shelf.with_left(left) if left else places
        if nodes:
            break
    name = first_name(board, nodes)
    offered = board.index.static(next(positions(nodes)), need.resource).offered
    text = f"{needs(need)}; {name} has {left} of {offered} {need.resource} unallocated{_others(places)}"
    return Why(CapacityReason.WAITING_FOR_GPU, text)


def why_never(board: Board, demand: Demand, allowed: int) -> Why:
    """Why no node could hold it even if all were empty; `allowed` are nodes that its placement allows."""
    need = demand.need
    offering = board.index.offering.get(need.resource, 0)
    if not offering:
        return _never(f"{needs(need)}; no node offers {need.resource}")
    if not offering & allowed:
        where = "where its cache can be used" if demand.cache else "that its placement allows"
        return _never(f"{needs(need)}; none of the {offering.bit_count()} nodes with {need.resource} is one {where}")
    capacity, nodes = board.index.capacities(need).most(offering & allowed)
    number = next(positions(nodes or offering & allowed))
    static = board.index.static(number, need.resource)
    name = board.index.names[number]
    if capacity <= 0:
        text = f"{needs(need)}; none of the nodes that it may go to has so many: {name} offers {static.offered}"
    else:
        text = f"{needs(need)}; the largest node that it may go to, {name}, has {capacity} MiB to give on such GPUs"
    return _never(text + _label_note(board, 1 << number), capacity if 0 < capacity < BOUNDLESS else None)


def _never(text: str, most_mib: int | None = None) -> Why:
    return Why(CapacityReason.NO_NODE_FITS, text, most_mib)


def _others(places: int) -> str:
    others = places.bit_count() - 1
    return f", and {others} other node{'s' if others > 1 else ''} no more" if others else ""


def _label_note(board: Board, nodes: int) -> str:
    number = next(positions(nodes))
    if board.sites[number].survey.reported:
        return ""
    return f" (the GPU agent of {board.index.names[number]} does not report: that is what its labels say)"
