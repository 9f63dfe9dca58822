"""One Model's turn in a pass: what is decided about it so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from berth.planning.capacity import sharing, words
from berth.planning.capacity.board import Board
from berth.planning.capacity.eligibility import NodeIndex
from berth.planning.capacity.plan import ModelCapacity, RolloutChoice, Waiting
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.capacity.standing import Standing
from berth.planning.capacity.world import Attempts, Demand, Need, Remembered


@dataclass(slots=True)
class Turn:
    """What is decided about one Model, while it is decided."""

    standing: Standing
    moment: datetime
    admitted: int
    memory: Remembered
    """What is stored when nothing is decided; fields are replaced as decisions are made."""
    reason: CapacityReason | None = None
    message: str = ""
    queued: bool = False
    """Whether it has a place in the queue."""
    most_mib: int | None = None
    stalled: bool = False
    rollout: RolloutChoice | None = None
    holding: bool = False
    releasing: bool = False
    no_node: bool = False

    @property
    def demand(self) -> Demand:
        """What the Model asks for."""
        return self.standing.demand

    def wait(self, reason: CapacityReason, message: str, *, queued: bool = True, most_mib: int | None = None) -> None:
        """It is not admitted now; `most_mib` is the memory that it could have of a GPU at best."""
        self.reason, self.message, self.queued, self.most_mib = reason, message, queued, most_mib

    def admit(self, nodes: tuple[str, ...]) -> None:
        """One more replica may ask for GPUs, of one of these nodes."""
        self.admitted += 1
        self.memory = replace(self.memory, nodes=nodes, keeps="", beyond=None, preempted_by="")

    def result(self, position: int | None, board: Board) -> ModelCapacity:
        """The decision, with what has to be remembered of it."""
        demand, memory = self.demand, self._memory()
        waiting = None
        if self.reason is not None and memory.since is not None:
            waiting = Waiting(position, self.reason, self.message, memory.since, self.most_mib)
        need = demand.need
        return ModelCapacity(
            self.admitted,
            memory,
            need.memory_mib if need.count else None,
            need.source if need.count else None,
            waiting,
            self.stalled,
            self.rollout,
            memory.nodes,
            memory.beyond is not None,
            _share(self.standing, memory.nodes, board.index),
            _notes(need),
        )

    def _memory(self) -> Remembered:
        memory, now = self.memory, self.moment
        reason = str(self.reason) if self.reason is not None else ""
        unbound = self._will_wait()
        return _with(
            memory,
            {
                "reason": reason,
                "since": None if not reason else memory.since if memory.reason == reason and memory.since else now,
                "held_since": (memory.held_since or now) if self.holding else None,
                "release_since": (memory.release_since or now) if self.releasing else None,
                "no_node_since": (memory.no_node_since or now) if self.no_node else None,
                "unbound_since": (memory.unbound_since or now) if unbound else None,
            },
        )

    def _will_wait(self) -> bool:
        """Whether an admitted replica has no node."""
        extra = self.rollout is not None and self.rollout.begin and bool(self.memory.nodes)
        return extra or self.standing.waiting + self.admitted - self.demand.replicas > 0


def settled_result(standing: Standing, index: NodeIndex) -> ModelCapacity:
    """The decision about a Model for which everything is as wanted."""
    demand, need = standing.demand, standing.demand.need
    known = need.memory_mib if need.count else None
    memory = Remembered(queued_at=standing.remembered.queued_at) if demand.wanted else Remembered()
    share = _share(standing, (), index)
    return ModelCapacity(
        demand.wanted, memory, known, need.source if need.count else None, share=share, notes=_notes(need)
    )


def _share(standing: Standing, more: Sequence[str], index: NodeIndex) -> float | None:
    """The part of a GPU that a Shared server may use; all nodes that it may be on have GPUs of the same size."""
    need = standing.demand.need
    if not need.shared or need.memory_mib is None:
        return None
    for name in (*standing.places, *more):
        number = index.position.get(name)
        if number is not None and index.offering.get(need.resource, 0) >> number & 1:
            total = index.static(number, need.resource).total
            return sharing.memory_share(need.memory_mib, total) if total else None
    return None


def _notes(need: Need) -> tuple[str, ...]:
    """What a person should know about the figures."""
    return (words.WHOLE,) if need.count and need.memory_mib is None else ()


def begin(standing: Standing, now: datetime) -> Turn:
    """The turn of a Model before anything is decided: it keeps what it has."""
    demand, memory = standing.demand, standing.remembered
    if not demand.wanted:
        return Turn(standing, now, 0, Remembered())
    if memory.queued_at is None:
        memory = replace(memory, queued_at=now)
    over: dict[str, object] = {}
    if memory.unbound_since is not None and not standing.waiting and len(standing.bound) >= demand.replicas > 0:
        over |= {"preempting": None, "taken_back": None}
    if demand.replicas:
        over["keeps"] = ""
    if not standing.unplaced:
        over |= {"nodes": (), "beyond": None}
    if demand.replicas >= demand.wanted:
        over["preempted_by"] = ""
    memory = _with(memory, over)
    return Turn(standing, now, min(demand.replicas, demand.wanted), memory)


def _with(memory: Remembered, fields: Mapping[str, object]) -> Remembered:
    """The same with these fields; the very same object when they are so already, as they are for most in a queue."""
    for name, value in fields.items():
        if getattr(memory, name) != value:
            return replace(memory, **fields)  # type: ignore[arg-type]
    return memory


def order(standing: Standing, now: datetime) -> tuple[int, datetime, str]:
    """Who comes first: priority, then age."""
    return -standing.demand.priority, standing.remembered.queued_at or now, standing.demand.key


def again(attempts: Attempts | None, policy: CapacityPolicy) -> datetime | None:
    """When something that was done in vain may be tried again; None: at once."""
    if attempts is None:
        return None
    wait = min(policy.retry_longest, policy.retry_first * 2 ** min(attempts.count - 1, 30))
    return attempts.at + timedelta(seconds=wait)


def once_more(attempts: Attempts | None, now: datetime) -> Attempts:
    """It was done, and nothing has come of it yet."""
    return Attempts((attempts.count if attempts else 0) + 1, now)
