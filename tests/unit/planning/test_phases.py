"""Which phase a Model is in, and that phases never say more than is true."""

from dataclasses import replace

import pytest
from hypothesis import given

from berth.api.model_status import Phase
from berth.planning.conditions import Facts, assess
from berth.planning.failures import Failure
from berth.planning.reasons import Reason
from support.builders import NOW
from unit.planning import strategies

PLAIN = strategies.plain_facts()
CRASH = Failure(Reason.CRASH_LOOP, "it crashed", at=NOW)
SPENT = replace(CRASH, final=True)
ONE_SERVES = {"current": 1, "current_ready": 1, "ready": 1, "scheduled": True, "started": True, "hopeful": 1}


def phase(**facts: object) -> tuple[Phase, str]:
    verdict = assess(replace(PLAIN, **facts))
    return verdict.phase, verdict.reason


# ---- starting ------------------------------------------------------------------------------------------------


def test_a_new_model_is_pending() -> None:
    assert phase() == (Phase.PENDING, Reason.CREATING)


def test_a_pod_without_node_is_pending_with_the_words_of_the_scheduler() -> None:
    verdict = assess(replace(PLAIN, current=1, unschedulable="no room"))
    assert (verdict.phase, verdict.reason, verdict.message) == (Phase.PENDING, Reason.UNSCHEDULABLE, "no room")


def test_a_pod_with_a_node_is_loading() -> None:
    assert phase(current=1, scheduled=True) == (Phase.LOADING, Reason.CONTAINER_CREATING)


def test_a_server_that_runs_is_loading_weights() -> None:
    assert phase(current=1, scheduled=True, started=True) == (Phase.LOADING, Reason.LOADING_WEIGHTS)


def test_a_crash_while_loading_is_named_and_goes_on() -> None:
    assert phase(current=1, scheduled=True, hopeful=1, failure=CRASH) == (Phase.LOADING, Reason.CRASH_LOOP)


def test_refused_pods_are_named() -> None:
    assert phase(refused=(Reason.QUOTA_EXCEEDED, "too much")) == (Phase.PENDING, Reason.QUOTA_EXCEEDED)


# ---- serving -------------------------------------------------------------------------------------------------


def test_a_model_whose_replicas_answer_is_ready() -> None:
    assert phase(**ONE_SERVES) == (Phase.READY, Reason.SERVING)


def test_a_model_that_waits_for_its_second_replica_is_not_ready() -> None:
    assert phase(**ONE_SERVES, wanted=2, was=Phase.LOADING, was_generation=1) == (Phase.UPDATING, Reason.SCALING)


def test_a_model_that_loses_a_replica_is_degraded() -> None:
    assert phase(**ONE_SERVES, wanted=2, was=Phase.READY, was_generation=1)[0] is Phase.DEGRADED


def test_a_model_that_loses_its_only_replica_is_degraded_not_new() -> None:
    assert phase(was=Phase.READY, was_generation=1) == (Phase.DEGRADED, Reason.CREATING)


def test_a_model_stays_degraded_until_it_is_ready() -> None:
    assert phase(current=1, scheduled=True, was=Phase.DEGRADED, was_generation=1)[0] is Phase.DEGRADED


def test_a_message_begins_with_a_capital_after_a_full_stop() -> None:
    verdict = assess(replace(PLAIN, was=Phase.READY, was_generation=1))
    assert verdict.message == "0 of 1 replicas answer. The Pods are being created"


# ---- changes -------------------------------------------------------------------------------------------------


def test_an_old_server_that_answers_while_the_new_one_starts_is_updating() -> None:
    old = {"outdated": 1, "ready": 1, "current": 1, "scheduled": True, "hopeful": 1}
    assert phase(**old, was=Phase.READY, was_generation=0) == (Phase.UPDATING, Reason.ROLLING_OUT)


def test_a_crash_of_the_new_server_is_named_while_the_old_one_answers() -> None:
    old = {"outdated": 1, "ready": 1, "current": 1, "scheduled": True, "hopeful": 1}
    assert phase(**old, failure=CRASH) == (Phase.UPDATING, Reason.CRASH_LOOP)


def test_a_new_server_that_answers_is_updating_until_the_old_one_is_gone() -> None:
    assert phase(**{**ONE_SERVES, "ready": 1}, outdated=1)[0] is Phase.UPDATING


def test_an_old_server_that_ends_in_place_is_draining() -> None:
    assert phase(outdated=1, leaving=1, was=Phase.READY) == (Phase.DRAINING, Reason.REPLACING)


def test_a_stopped_model_with_servers_left_is_draining() -> None:
    assert phase(stop_reason=Reason.STOPPED_BY_USER, wanted=0, leaving=1) == (Phase.DRAINING, Reason.STOPPED_BY_USER)


@pytest.mark.parametrize("reason", strategies.STOPS)
def test_a_stopped_model_without_servers_is_stopped(reason: Reason) -> None:
    assert phase(stop_reason=reason, wanted=0) == (Phase.STOPPED, reason)


# ---- giving up -----------------------------------------------------------------------------------------------


def test_a_spent_budget_fails_the_model() -> None:
    assert phase(current=1, scheduled=True, failure=SPENT) == (Phase.FAILED, Reason.CRASH_LOOP)


def test_a_spent_budget_does_not_fail_a_model_that_answers() -> None:
    assert phase(**ONE_SERVES, wanted=2, failure=SPENT, was=Phase.READY, was_generation=1)[0] is Phase.DEGRADED


def test_a_spent_budget_of_one_replica_leaves_the_others_their_chance() -> None:
    two = {"wanted": 2, "current": 2, "scheduled": True, "hopeful": 1, "was": Phase.READY, "was_generation": 1}
    assert phase(**two, failure=SPENT)[0] is Phase.DEGRADED


def test_a_generation_that_was_given_up_stays_failed_whatever_its_pods_do() -> None:
    assert phase(**ONE_SERVES, tripped=(Reason.CRASH_LOOP, "it crashed")) == (Phase.FAILED, Reason.CRASH_LOOP)


def test_an_invalid_spec_fails_and_is_not_accepted() -> None:
    verdict = assess(replace(PLAIN, invalid=(Reason.INVALID_SPEC, "spec.source is wrong")))
    assert (verdict.phase, verdict.accepted, verdict.message) == (Phase.FAILED, False, "spec.source is wrong")


def test_servers_of_a_valid_generation_go_on_under_an_invalid_one() -> None:
    verdict = assess(replace(PLAIN, **ONE_SERVES, invalid=(Reason.INVALID_SPEC, "spec.source is wrong")))
    assert (verdict.phase, verdict.available) == (Phase.FAILED, True)
    assert "go on" in verdict.message


def test_a_taken_name_fails_although_the_spec_is_fine() -> None:
    verdict = assess(replace(PLAIN, invalid=(Reason.NAME_CONFLICT, "exists")))
    assert (verdict.phase, verdict.accepted) == (Phase.FAILED, True)


# ---- properties ----------------------------------------------------------------------------------------------


@given(strategies.facts())
def test_ready_means_that_the_declared_state_is_reached(facts: Facts) -> None:
    verdict = assess(facts)
    if verdict.phase is Phase.READY:
        assert facts.current_ready >= facts.wanted > 0
        assert facts.outdated == 0
    if verdict.phase is Phase.STOPPED:
        assert facts.stop_reason
        assert facts.current + facts.outdated + facts.leaving == 0


@given(strategies.facts())
def test_a_stopped_model_is_never_said_to_start(facts: Facts) -> None:
    if facts.stop_reason:
        assert assess(facts).phase in (Phase.STOPPED, Phase.DRAINING, Phase.FAILED)


@given(strategies.facts())
def test_a_model_fails_only_for_what_a_person_has_to_mend(facts: Facts) -> None:
    failed = assess(facts).phase is Phase.FAILED
    spent = facts.failure is not None and facts.failure.final
    assert not failed or facts.invalid or facts.tripped or spent


@given(strategies.facts())
def test_the_same_facts_seen_again_give_the_same_phase(facts: Facts) -> None:
    """A phase that depended on itself in turns would flap for ever."""
    first = assess(facts)
    tripped = (first.reason, first.message) if first.stalled and not facts.invalid else facts.tripped
    again = replace(facts, was=first.phase, was_generation=facts.generation, tripped=tripped)
    second = assess(again)
    third = assess(replace(again, was=second.phase))
    assert second == third
    assert second == first


@given(strategies.facts())
def test_every_verdict_has_a_known_reason_and_a_sentence(facts: Facts) -> None:
    verdict = assess(facts)
    assert verdict.reason in set(Reason)
    assert verdict.message
    assert not verdict.message.endswith(".")


# ---- a rollout that cannot go on -------------------------------------------------------------------------------


def test_a_rollout_whose_servers_cannot_start_has_failed_while_the_old_ones_answer() -> None:
    verdict = assess(replace(PLAIN, ready=1, outdated=1, current=1, scheduled=True, failure=SPENT))
    assert (verdict.phase, verdict.reason) == (Phase.FAILED, Reason.ROLLOUT_FAILED)
    assert verdict.stalled
    assert verdict.available
    assert "it crashed" in verdict.message


def test_a_rollout_goes_on_while_a_new_server_may_still_answer() -> None:
    assert phase(ready=1, outdated=1, current=2, hopeful=1, scheduled=True, failure=SPENT)[0] is Phase.UPDATING


# ---- GPUs ----------------------------------------------------------------------------------------------------

NO_GPU = ("WaitingForGPU", "no GPU is free")


def test_a_model_that_may_not_ask_for_gpus_yet_is_queued_and_says_why() -> None:
    verdict = assess(replace(PLAIN, queued=NO_GPU, admitted=0))
    assert (verdict.phase, verdict.reason, verdict.message) == (Phase.QUEUED, *NO_GPU)


def test_a_model_that_was_admitted_is_loading_before_its_pod_has_a_node() -> None:
    assert phase(admitted=1) == (Phase.LOADING, Reason.CREATING)


def test_a_model_that_made_way_drains_and_then_waits() -> None:
    made_way = {"queued": ("Preempted", "made way"), "admitted": 0}
    assert phase(**made_way, leaving=1) == (Phase.DRAINING, "Preempted")
    assert phase(**made_way, was=Phase.READY, was_generation=1) == (Phase.QUEUED, "Preempted")


def test_a_model_that_no_node_can_hold_needs_a_person_and_serves_on_if_it_can() -> None:
    assert phase(unfit=("NoNodeFits", "too big"), admitted=0) == (Phase.FAILED, "NoNodeFits")
    assert phase(**ONE_SERVES, unfit=("NoNodeFits", "too big"), admitted=1) == (Phase.READY, Reason.SERVING)


def test_replicas_that_wait_while_others_answer_are_an_update_that_says_what_it_waits_for() -> None:
    found = phase(**ONE_SERVES, wanted=3, queued=NO_GPU, admitted=1, was=Phase.UPDATING, was_generation=1)
    assert found == (Phase.UPDATING, "WaitingForGPU")


def test_a_model_without_weights_is_not_in_the_queue() -> None:
    found = phase(queued=NO_GPU, admitted=0, weights_awaited=("Downloading", "3 of 9 GiB"))
    assert found == (Phase.PROVISIONING, "Downloading")
