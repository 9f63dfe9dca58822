"""What a status says of the queue."""

from dataclasses import replace
from typing import Any

from berth.api.model import RolloutStrategy
from berth.planning.capacity.decision import Decision
from berth.planning.capacity.plan import ModelCapacity, RolloutChoice, Waiting
from berth.planning.capacity.reasons import CapacityReason
from berth.planning.capacity.words import WHOLE
from berth.planning.capacity.world import Demand, Rollout
from berth.planning.gpu_standing import GpuStanding, gpu_notes, gpu_standing
from support import builders
from support.builders import NOW
from support.gpu_clusters import model, remember

WAITS = Waiting(3, CapacityReason.WAITING_FOR_GPU, "no GPU", NOW)
QUEUE = {"reason": "WaitingForGPU", "message": "no GPU", "since": builders.ago(), "position": "3"}
STALLED = {
    "queue": {"reason": "NoNodeFits", "message": "none"},
    "conditions": [{"type": "Stalled", "status": "True", "reason": "NoNodeFits", "observedGeneration": 1}],
}


def standing(
    demand: Demand, capacity: ModelCapacity | None, previous: dict[str, Any] | None = None, **more: Any
) -> GpuStanding:
    decision = Decision(demand, capacity, **more) if capacity else None
    return gpu_standing(demand.need, demand, decision, None, previous or {}, generation=1)


def test_a_model_that_waits_says_for_what_since_when_and_where_it_stands() -> None:
    found = standing(model(), ModelCapacity(0, remember(), waiting=WAITS))
    assert found.queue == QUEUE
    assert found.waiting == ("WaitingForGPU", "no GPU")
    assert found.condition == (False, "WaitingForGPU", "0 of 1 replicas may ask for their GPUs: no GPU")


def test_places_beyond_the_tenth_are_not_counted() -> None:
    places = [
        standing(model(), ModelCapacity(0, remember(), waiting=replace(WAITS, position=place))).queue["position"]  # type: ignore[index]
        for place in (10, 11, 5000)
    ]
    assert places == ["10", ">10", ">10"]


def test_who_is_not_in_the_queue_has_no_place_and_needs_a_person() -> None:
    waiting = replace(WAITS, position=None, reason=CapacityReason.NO_NODE_FITS)
    found = standing(model(), ModelCapacity(0, remember(), waiting=waiting, stalled=True))
    assert "position" not in (found.queue or {})
    assert (found.waiting, found.unfit) == (None, ("NoNodeFits", "no GPU"))


def test_a_model_that_is_admitted_has_no_queue() -> None:
    found = standing(model(replicas=1), ModelCapacity(1, remember()))
    assert (found.admitted, found.queue, found.waiting, found.unfit) == (1, None, None, None)
    assert found.condition == (True, "GpusReserved", "every replica may ask for its GPUs")


def test_a_model_that_should_not_run_says_nothing_of_the_queue() -> None:
    found = standing(model(wanted=0, replicas=1), ModelCapacity(0, remember(), waiting=WAITS))
    assert (found.admitted, found.condition, found.queue) == (0, None, None)


# ---- while nothing is decided about what it asks for now -----------------------------------------------------------


def test_a_new_model_is_about_to_be_planned() -> None:
    assert standing(model(), None).condition == (False, "NotPlanned", "0 of 1 replicas may ask for their GPUs")


def test_what_was_said_before_stays_said() -> None:
    waits = model(remembered=remember(reason="WaitingForGPU"))
    assert standing(waits, None, {"queue": QUEUE, "gpu": {"measuredMiB": 7}}).queue == QUEUE
    assert standing(waits, None, {"gpu": {"measuredMiB": 7}}).figures["measuredMiB"] == 7


def test_what_it_waited_for_is_over_once_that_is_stored() -> None:
    assert standing(model(replicas=1, remembered=remember()), None, {"queue": QUEUE}).queue is None
    fewer = model(replicas=1, remembered=remember(reason="WaitingForGPU"))
    assert standing(fewer, None, {"queue": QUEUE}).queue is None
    update = replace(fewer, rollout=Rollout(RolloutStrategy.SURGE))
    assert standing(update, None, {"queue": QUEUE}).queue == QUEUE


def test_one_that_is_stalled_stays_so_until_the_spec_is_another_one() -> None:
    stalled = model(remembered=remember(reason="NoNodeFits"))
    assert standing(stalled, None, STALLED).unfit == ("NoNodeFits", "none")
    assert gpu_standing(stalled.need, stalled, None, None, STALLED, generation=2).waiting == ("NoNodeFits", "none")


# ---- figures -----------------------------------------------------------------------------------------------------


def test_it_says_how_much_it_needs_where_that_comes_from_and_what_was_measured() -> None:
    found = standing(model(), ModelCapacity(1, remember()), measured_mib=900)
    assert found.figures == {"requiredMiB": 24576, "source": "Declared", "measuredMiB": 900}


def test_memory_that_nobody_knows_takes_whole_gpus_and_it_says_so() -> None:
    assert standing(model(memory=None), ModelCapacity(1, remember())).figures == {"message": WHOLE}


# ---- Events ------------------------------------------------------------------------------------------------------


def test_a_preemption_and_the_begin_of_a_rollout_are_told_with_the_write_that_carries_them_out() -> None:
    loses = Decision(model(replicas=1), ModelCapacity(0, remember()), preempted="made way for x")
    assert gpu_notes(loses, written=False) == ()
    assert [(note.type, note.reason) for note in gpu_notes(loses, written=True)] == [("Warning", "Preempted")]
    begins = ModelCapacity(1, remember(), rollout=RolloutChoice(RolloutStrategy.SURGE, "there is room", begin=True))
    (note,) = gpu_notes(Decision(model(replicas=1, rollout=Rollout(RolloutStrategy.AUTO)), begins), written=True)
    assert (note.reason, note.message) == ("RolloutBegins", "new servers start beside the old servers: there is room")
    goes_on = model(replicas=1, rollout=Rollout(RolloutStrategy.AUTO, RolloutStrategy.SURGE))
    assert gpu_notes(Decision(goes_on, begins), written=True) == ()
