"""What a status says about a Model's GPUs: what it needs, what it uses, and what it waits for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from berth.api.model import RolloutStrategy
from berth.planning.capacity.decision import Decision
from berth.planning.capacity.plan import Waiting
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.capacity.words import WHOLE
from berth.planning.capacity.world import Demand, Need
from berth.planning.memory_estimate import Estimate
from berth.planning.plan import Note
from berth.planning.reasons import Reason
from berth.planning.times import format_time

_EXACT = 10
"""Places in the queue up to this one are told."""


@dataclass(frozen=True, slots=True)
class GpuStanding:
    """The parts of a status that come from the capacity planner."""

    admitted: int | None
    """status.admittedReplicas; None where nobody plans capacity."""
    condition: tuple[bool, str, str] | None
    """The condition Admitted: whether it holds, reason and message; None for a Model that should not run."""
    queue: Mapping[str, Any] | None
    """status.queue."""
    figures: Mapping[str, Any]
    """What there is to say in status.gpu, nodes apart."""
    stalled: bool = False
    """Whether a person is needed."""

    @property
    def waiting(self) -> tuple[str, str] | None:
        """Reason and message while it waits in the queue."""
        return None if self.stalled else self._words

    @property
    def unfit(self) -> tuple[str, str] | None:
        """Reason and message when no replica can be admitted until a person does something."""
        return self._words if self.stalled else None

    @property
    def _words(self) -> tuple[str, str] | None:
        return (self.queue["reason"], self.queue["message"]) if self.queue else None


def gpu_standing(
    need: Need,
    demand: Demand | None,
    decision: Decision | None,
    guess: Estimate | None,
    previous: Mapping[str, Any],
    generation: int,
) -> GpuStanding:
    """What the status says; while nothing is decided about what it asks for now, what it said before.

    `demand` is None where nobody plans capacity, `previous` is the status, and `guess` the estimate of the memory that
    one replica needs.
    """
    figures: dict[str, Any] = {}
    if need.memory_mib is not None and need.source is not None:
        figures = {"requiredMiB": need.memory_mib, "source": need.source.value}
    else:
        figures = {"message": ": ".join((WHOLE, "; ".join(guess.unknown))) if guess and guess.unknown else WHOLE}
    if demand is None:
        return GpuStanding(None, None, None, figures)
    if not demand.wanted:
        return GpuStanding(0, None, None, figures)
    if decision is None:
        admitted = min(demand.replicas, demand.wanted)
        queue = previous.get("queue") if _waited(demand) else None
        measured = (previous.get("gpu") or {}).get("measuredMiB")
        stalled = _is_stalled(previous, generation)
    else:
        capacity = decision.capacity
        admitted, measured, stalled = capacity.admitted, decision.measured_mib, capacity.stalled
        queue = _queue(capacity.waiting, guess) if capacity.waiting else None
    if measured is not None:
        figures["measuredMiB"] = measured
    return GpuStanding(admitted, _condition(demand, admitted, queue), queue, figures, stalled)


def _waited(demand: Demand) -> bool:
    """Whether the last decision was to wait, and may still be what is next."""
    memory = demand.remembered
    if memory is None or not memory.reason:
        return False
    return demand.replicas < demand.wanted or demand.rollout is not None or memory.beyond is not None


def _is_stalled(status: Mapping[str, Any], generation: int) -> bool:
    """Whether the status says of this generation that a person is needed for what the Model waits for."""
    stalled = next((one for one in status.get("conditions") or () if one["type"] == "Stalled"), None)
    reason = (status.get("queue") or {}).get("reason")
    if stalled is None or stalled["observedGeneration"] != generation:
        return False
    return bool((stalled["status"], stalled["reason"]) == ("True", reason))


def _condition(demand: Demand, admitted: int, queue: Mapping[str, Any] | None) -> tuple[bool, str, str]:
    if admitted >= demand.wanted:
        return True, Reason.GPUS_RESERVED, "every replica may ask for its GPUs"
    of = f"{admitted} of {demand.wanted} replicas may ask for their GPUs"
    if queue is None:
        return False, Reason.NOT_PLANNED, of
    return False, queue["reason"], f"{of}: {queue['message']}"


def _queue(waiting: Waiting, guess: Estimate | None) -> dict[str, Any]:
    message = waiting.message
    if waiting.most_mib is not None and guess is not None and waiting.reason in _FOR_MEMORY:
        fits = guess.context_that_fits(waiting.most_mib)
        if fits:
            message += f". With serving.contextLength {fits} it would fit"
    queue: dict[str, Any] = {"reason": str(waiting.reason), "message": message, "since": format_time(waiting.since)}
    if waiting.position is not None:
        queue["position"] = str(waiting.position) if waiting.position <= _EXACT else f">{_EXACT}"
    return queue


_FOR_MEMORY = (CapacityReason.WAITING_FOR_MEMORY, CapacityReason.NO_NODE_FITS)


def gpu_notes(decision: Decision, *, written: bool) -> tuple[Note, ...]:
    """Events for what is decided: told with the write that carries it out, and so once."""
    capacity = decision.capacity
    if not written:
        return ()
    notes = []
    rollout, before = capacity.rollout, decision.demand.rollout
    if rollout is not None and rollout.begin and before is not None and before.started is None:
        how = "beside the old servers" if rollout.strategy is RolloutStrategy.SURGE else "in place of the old servers"
        notes.append(Note("Normal", "RolloutBegins", f"new servers start {how}: {rollout.why}"))
    if decision.preempted and capacity.admitted < decision.demand.replicas:
        notes.append(Note("Warning", CapacityReason.PREEMPTED, decision.preempted))
    return tuple(notes)
