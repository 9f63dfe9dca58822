"""Where the decisions about a Model lead when they are carried out."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.model import Model
from berth.planning import names
from berth.planning.closing import CLOSED_SECONDS
from berth.planning.model_plan import decide
from berth.planning.plan import Apply, Plan
from berth.planning.policy import Policy
from berth.planning.times import format_time
from support import builders
from support.kstatus import kstatus
from support.simulation import ConflictError, Simulation, ready


@pytest.fixture
def cluster() -> Simulation:
    """A cluster with a Model of one GPU that was made this moment."""
    return Simulation()


@pytest.fixture
def serving(cluster: Simulation) -> Simulation:
    """A cluster whose Model is Ready."""
    cluster.settle()
    assert cluster.status["phase"] == "Ready"
    return cluster


def kinds(plan: Plan) -> list[str]:
    return sorted(change.manifest["kind"] for change in plan.changes if isinstance(change, Apply))


# ---- a life --------------------------------------------------------------------------------------------------


def test_a_new_model_gets_its_children(cluster: Simulation) -> None:
    cluster.reconcile()
    assert sorted(kind for kind, _ in cluster.objects) == ["Deployment", "Model", "NetworkPolicy", "Service"]


def test_no_server_is_started_before_it_is_guarded_and_reachable(cluster: Simulation) -> None:
    plan = cluster.plan()
    assert kinds(plan) == ["NetworkPolicy", "Service"]
    assert plan.look_again == 0


def test_a_new_model_waits_with_a_status_that_says_no_more_than_the_default(cluster: Simulation) -> None:
    plan = cluster.reconcile()
    assert plan.status is None
    assert plan.look_again == pytest.approx(30)


def test_a_model_that_stays_new_for_long_says_so(cluster: Simulation) -> None:
    cluster.reconcile()
    cluster.now += timedelta(seconds=31)
    plan = cluster.reconcile()
    assert plan.status is not None
    assert plan.status["phase"] == "Pending"


def test_a_model_that_waited_long_for_its_turn_gets_its_children_before_a_status(cluster: Simulation) -> None:
    cluster.now += timedelta(minutes=5)
    plan = cluster.reconcile()
    assert plan.status is None
    assert plan.look_again == 30


def test_a_model_becomes_ready(serving: Simulation) -> None:
    assert serving.status["ready"] == "1/1"
    assert serving.status["url"] == "http://m.models.svc"
    assert serving.status["gpu"]["nodes"] == ["n1"]
    assert set(serving.status["timeline"]) == {"queuedAt", "startedAt", "readyAt"}


def test_a_ready_model_costs_no_writes(serving: Simulation) -> None:
    for _ in range(5):
        serving.now += timedelta(hours=1)
        plan = serving.plan()
        assert (plan.changes, plan.status, plan.look_again) == ((), None, None)


def test_another_process_finds_nothing_to_write(serving: Simulation) -> None:
    serving.restart()
    assert serving.plan() == Plan()


def test_a_stopped_model_ends_its_server_and_keeps_its_service(serving: Simulation) -> None:
    serving.edit(state="Stopped")
    serving.settle()
    assert (serving.status["phase"], serving.pods()) == ("Stopped", [])
    assert ("Service", "m") in serving.objects


def test_a_stopped_model_starts_again_with_a_new_timeline(serving: Simulation) -> None:
    first = serving.status["timeline"]
    serving.edit(state="Stopped")
    serving.settle()
    serving.edit(state="Running")
    serving.settle()
    assert serving.status["phase"] == "Ready"
    assert serving.status["timeline"]["queuedAt"] > first["readyAt"]
    assert serving.status["timeline"]["readyAt"] > serving.status["timeline"]["queuedAt"]


def test_an_on_demand_model_sleeps_until_it_is_started() -> None:
    cluster = Simulation(state="OnDemand")
    cluster.settle()
    assert cluster.status["phase"] == "Stopped"
    cluster.annotate(start="me")
    cluster.settle()
    assert cluster.status["phase"] == "Ready"


def test_several_replicas_get_a_disruption_budget_while_they_are_several() -> None:
    cluster = Simulation(replicas=2)
    cluster.settle()
    assert ("PodDisruptionBudget", "m") in cluster.objects
    cluster.edit(replicas=1)
    cluster.settle()
    assert ("PodDisruptionBudget", "m") not in cluster.objects
    assert cluster.status["ready"] == "1/1"


def test_a_model_that_is_being_deleted_gets_no_write(serving: Simulation) -> None:
    gone = replace(serving.world().subject, deleting=True)
    assert decide(replace(serving.world(), subject=gone), serving.now, serving.policy) == Plan()


def test_drift_is_put_back(serving: Simulation) -> None:
    drifted = serving.deployment
    serving.keep({**drifted, "spec": {**drifted["spec"], "replicas": 7}})
    serving.settle()
    assert (serving.deployment["spec"]["replicas"], len(serving.pods())) == (1, 1)


def test_a_lost_child_is_made_again(serving: Simulation) -> None:
    serving.drop("Service", "m")
    assert kinds(serving.reconcile()) == ["Service"]


def test_a_model_that_loses_its_server_is_degraded_until_it_has_another(serving: Simulation) -> None:
    serving.end(serving.pods()[0])
    serving.reconcile()
    assert serving.status["phase"] == "Degraded"
    serving.settle()
    assert serving.status["phase"] == "Ready"


# ---- what is written -----------------------------------------------------------------------------------------


def test_a_status_has_the_shape_of_the_api(serving: Simulation) -> None:
    model = {"spec": serving.model["spec"], "status": serving.status}
    assert Model.model_validate(model).to_json()["status"] == serving.status


def test_the_conditions_of_others_are_no_reason_to_write(serving: Simulation) -> None:
    theirs = {"type": "Paid", "status": "True", "reason": "Yes", "message": "", "lastTransitionTime": "T"}
    status = {**serving.status, "conditions": [theirs, *serving.status["conditions"][::-1]]}
    serving.keep({**serving.model, "status": status})
    assert serving.plan() == Plan()


def test_a_status_that_somebody_edited_is_put_right(serving: Simulation) -> None:
    good = serving.status
    serving.keep({**serving.model, "status": {**good, "ready": "9/9"}})
    serving.now += timedelta(minutes=1)
    serving.reconcile()
    assert serving.status == good


def test_a_phase_of_a_later_version_is_no_obstacle(serving: Simulation) -> None:
    serving.keep({**serving.model, "status": {**serving.status, "phase": "Levitating"}})
    serving.settle()
    assert serving.status["phase"] == "Ready"


def test_a_change_of_words_waits_for_its_time(cluster: Simulation) -> None:
    cluster.reconcile()
    cluster.roll_out()
    pod = cluster.pods()[0]["metadata"]
    template = pod["labels"][names.TEMPLATE_HASH_LABEL]
    cluster.keep(builders.pod(pod["name"], template=template, unschedulable="0/3 nodes"))
    cluster.reconcile()
    cluster.now += timedelta(seconds=5)
    cluster.keep(builders.pod(pod["name"], template=template, unschedulable="0/4 nodes"))
    plan = cluster.reconcile()
    assert (plan.status, plan.look_again) == (None, 25)
    cluster.now += timedelta(seconds=25)
    plan = cluster.reconcile()
    assert plan.status is not None
    assert cluster.status["conditions"][0]["message"] == "0/4 nodes"


def test_a_clock_that_was_set_back_holds_no_status_back(cluster: Simulation) -> None:
    cluster.reconcile()
    cluster.now -= timedelta(days=1)
    plan = cluster.reconcile()
    assert plan.status is not None


def test_transitions_are_told_once(serving: Simulation) -> None:
    serving.edit(state="Stopped")
    serving.now += timedelta(seconds=1)
    first, second = serving.reconcile(), serving.reconcile()
    assert (first.transition, second.transition) == (("Ready", "Draining", "StoppedByUser"), None)


def test_a_failure_is_an_event_that_warns(cluster: Simulation) -> None:
    cluster.edit(source={"uri": "pvc://claim/../other"})
    (note,) = cluster.reconcile().notes
    assert (note.type, note.reason) == ("Warning", "InvalidSpec")


# ---- invalid specs -------------------------------------------------------------------------------------------


def test_an_invalid_spec_leaves_the_servers_of_the_valid_one_alone(serving: Simulation) -> None:
    serving.edit(source={"uri": "pvc://claim/../other"})
    serving.settle()
    assert (serving.status["phase"], len(serving.pods())) == ("Failed", 1)
    assert kstatus(2, serving.status) == "Failed"
    serving.edit(source={"uri": "pvc://claim/other"})
    serving.settle()
    assert serving.status["phase"] == "Ready"


def test_a_spec_that_this_version_does_not_know_names_the_field(cluster: Simulation) -> None:
    cluster.edit(levitate=True)
    cluster.reconcile()
    (message,) = {c["message"] for c in cluster.status["conditions"] if c["type"] == "Ready"}
    assert "spec.levitate" in message


# ---- rollout -------------------------------------------------------------------------------------------------


def image(name: str) -> dict[str, Any]:
    return {"image": name}


def emptied(cluster: Simulation) -> None:
    """The Service is closed, then the Deployment is emptied."""
    wait = cluster.reconcile().look_again
    assert wait == CLOSED_SECONDS
    cluster.now += timedelta(seconds=wait)
    cluster.reconcile()


def living_templates(cluster: Simulation) -> set[str]:
    return {pod["metadata"]["labels"][names.TEMPLATE_HASH_LABEL] for pod in cluster.pods()}


def test_one_replica_is_replaced_in_place(serving: Simulation) -> None:
    (before,) = living_templates(serving)
    serving.edit(serving=image("server:2"))
    emptied(serving)
    assert serving.deployment["spec"]["replicas"] == 0
    serving.settle()
    (after,) = living_templates(serving)
    assert after != before
    assert serving.status["phase"] == "Ready"


def test_the_new_template_is_written_with_the_step_to_zero(serving: Simulation) -> None:
    """Otherwise the ReplicaSet of the old one would make a Pod again after a crash."""
    serving.edit(serving=image("server:2"))
    emptied(serving)
    template = serving.deployment["spec"]["template"]["spec"]["containers"][0]
    assert template["image"] == "server:2"


def test_an_old_pod_that_has_ended_but_is_still_there_is_waited_for_as_draining(serving: Simulation) -> None:
    serving.edit(serving=image("server:2"))
    emptied(serving)
    serving.end(serving.pods()[0])
    (pod,) = serving.pods()
    serving.keep({**pod, "status": {**pod["status"], "phase": "Succeeded"}})
    plan = serving.reconcile()
    assert (serving.status["phase"], serving.deployment["spec"]["replicas"]) == ("Draining", 0)
    assert plan.look_again is None, "its end will be told"


def test_a_pod_that_nobody_has_seen_yet_is_given_a_moment(cluster: Simulation) -> None:
    """The Deployment may have made one before it was emptied, and nothing else would wake the Model again."""
    cluster.reconcile()
    cluster.edit(serving=image("server:2"))
    emptied, filled = cluster.reconcile(), cluster.reconcile()
    assert emptied.look_again == 1
    assert (filled.look_again or 99) > 1
    assert cluster.deployment["spec"]["replicas"] == 1


def test_servers_without_gpus_are_replaced_while_the_old_one_answers() -> None:
    cluster = Simulation(gpus={"count": 0})
    cluster.settle()
    cluster.edit(serving=image("server:2"))
    while cluster.status["phase"] != "Ready" or cluster.status["observedGeneration"] != 2:
        cluster.now += timedelta(seconds=1)
        cluster.reconcile()
        cluster.roll_out()
        _ = [cluster.run_pod(pod) for pod in cluster.pods()]
        assert any(ready(pod) for pod in cluster.pods())


def test_a_change_that_no_server_sees_restarts_none(serving: Simulation) -> None:
    (pod,) = serving.pods()
    serving.edit(priority=500)
    serving.settle()
    assert serving.pods() == [pod]
    assert serving.status["observedGeneration"] == 2


# ---- giving up -----------------------------------------------------------------------------------------------


def failed(cluster: Simulation) -> None:
    """Bring the Model to Failed by a crash loop."""
    for restarts in (1, 3, cluster.policy.crash_budget):
        cluster.now += timedelta(seconds=20)
        cluster.crash(restarts)
        cluster.reconcile()


def test_a_crash_loop_fails_the_model_and_frees_its_gpu(serving: Simulation) -> None:
    failed(serving)
    serving.settle()
    assert (serving.status["phase"], serving.pods(), serving.deployment["spec"]["replicas"]) == ("Failed", [], 0)
    assert serving.status["lastFailure"]["reason"] == "CrashLoop"
    assert kstatus(1, serving.status) == "Failed"


def test_servers_are_stopped_only_when_the_status_says_why(serving: Simulation) -> None:
    failed(serving)
    assert serving.status["phase"] == "Failed"
    assert serving.deployment["spec"]["replicas"] == 1
    plan = serving.reconcile()
    assert kinds(plan) == ["Deployment", "Service"], "nobody answers, so nothing is waited for"
    assert serving.deployment["spec"]["replicas"] == 0


def test_the_plan_that_gives_up_asks_for_the_next_one_at_once(serving: Simulation) -> None:
    serving.now += timedelta(seconds=20)
    serving.crash(serving.policy.crash_budget)
    assert serving.reconcile().look_again == 0
    assert serving.reconcile().look_again is None


def test_a_failed_model_stays_failed_when_its_last_server_recovers(serving: Simulation) -> None:
    failed(serving)
    (pod,) = serving.pods()
    serving.keep(builders.serving_pod(pod["metadata"]["name"], template=next(iter(living_templates(serving)))))
    serving.settle()
    assert (serving.status["phase"], serving.pods()) == ("Failed", [])


def test_a_failed_model_stays_failed_over_a_restart(serving: Simulation) -> None:
    failed(serving)
    serving.settle()
    serving.restart()
    serving.now += timedelta(days=1)
    assert serving.plan() == Plan()


def test_a_change_of_the_spec_starts_a_failed_model_anew(serving: Simulation) -> None:
    failed(serving)
    serving.settle()
    serving.edit(serving=image("server:2"))
    serving.settle()
    assert serving.status["phase"] == "Ready"
    assert serving.status["lastFailure"]["reason"] == "CrashLoop"


def test_patience_with_an_image_ends_in_failed(cluster: Simulation) -> None:
    cluster.reconcile()
    cluster.roll_out()
    (pod,) = cluster.pods()
    template = pod["metadata"]["labels"][names.TEMPLATE_HASH_LABEL]
    broken = builders.container(waiting="ImagePullBackOff", message="not found")
    cluster.keep(builders.pod(pod["metadata"]["name"], template=template, node="n1", containers=(broken,)))
    plan = cluster.reconcile()
    assert plan.look_again is not None
    assert cluster.status["phase"] == "Loading"
    assert cluster.reconcile().status is None, "the beginning of patience must not move"
    cluster.restart()
    cluster.now += timedelta(seconds=plan.look_again + 1)
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"


def test_an_evicted_pod_explains_nothing_once_another_has_its_place(serving: Simulation) -> None:
    (template,) = living_templates(serving)
    serving.keep(builders.pod("old", template=template, phase="Failed", reason="Evicted", message="low on memory"))
    serving.edit(replicas=2)
    serving.now += timedelta(seconds=1)
    serving.reconcile()
    serving.roll_out()
    serving.reconcile()
    reasons = {c["type"]: c["reason"] for c in serving.status["conditions"]}
    assert reasons["Ready"] == "Scaling"
    assert serving.status["lastFailure"]["reason"] == "Evicted"


# ---- the same name again -------------------------------------------------------------------------------------


def made_again(cluster: Simulation) -> None:
    """The Model is deleted and made again; the garbage collector has not looked yet."""
    spec = cluster.model["spec"]
    cluster.drop("Model", "m")
    cluster.now += timedelta(seconds=60)
    cluster.keep(builders.model(spec=spec, uid="second", creationTimestamp=format_time(cluster.now)))


def test_a_model_made_again_waits_for_what_its_namesake_has_left(serving: Simulation) -> None:
    made_again(serving)
    plan = serving.reconcile()
    assert plan.changes == ()
    assert serving.status.get("phase", "Pending") not in ("Failed", "Ready")


def test_a_model_made_again_becomes_ready_with_servers_of_its_own(serving: Simulation) -> None:
    made_again(serving)
    serving.reconcile()
    for kind in ("Deployment", "Service", "NetworkPolicy"):
        serving.drop(kind, "m")
    serving.reconcile()
    assert serving.status.get("phase", "Pending") != "Ready", "the old Pod is another Model's"
    assert serving.deployment["spec"]["replicas"] == 0
    serving.end(serving.pods()[0])
    serving.settle()
    assert serving.status["phase"] == "Ready"
    assert serving.deployment["metadata"]["ownerReferences"][0]["uid"] == "second"


def test_servers_that_were_orphaned_on_purpose_are_adopted_without_a_restart(serving: Simulation) -> None:
    for kind in ("Deployment", "Service", "NetworkPolicy"):
        child = serving.objects[kind, "m"]
        metadata = {k: v for k, v in child["metadata"].items() if k != "ownerReferences"}
        serving.keep({**child, "metadata": metadata})
    (pod,) = serving.pods()
    made_again(serving)
    serving.settle()
    assert serving.status["phase"] == "Ready"
    assert serving.pods() == [pod]


# ---- any order, cut off anywhere -----------------------------------------------------------------------------

ACTIONS = [
    *(["reconcile"] * 4 + ["kubelet"] * 3 + ["roll out"] * 2),
    *("cut off", "restart", "image", "stop", "start", "evict", "wait", "priority"),
]
actions = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 3)), min_size=5, max_size=40)
with_crashes = st.lists(st.tuples(st.sampled_from([*ACTIONS, "crash", "crash"]), st.integers(0, 3)), max_size=40)


def act(cluster: Simulation, what: str, number: int) -> None:
    """One thing that happens."""
    cluster.now += timedelta(seconds=1)
    pods = cluster.pods()
    deeds = {
        "reconcile": cluster.reconcile,
        "cut off": lambda: cluster.reconcile(cut_off_after=number),
        "restart": cluster.restart,
        "roll out": cluster.roll_out,
        "kubelet": lambda: cluster.run_pod(pods[number % len(pods)]) if pods else None,
        "image": lambda: cluster.edit(serving=image(f"server:{number}")),
        "stop": lambda: cluster.edit(state="Stopped"),
        "start": lambda: cluster.edit(state="Running"),
        "evict": lambda: cluster.end(pods[number % len(pods)]) if pods else None,
        "priority": lambda: cluster.edit(priority=number),
        "crash": lambda: cluster.crash(number * 2),
        "wait": lambda: None,
    }
    deeds[what]()


@given(actions)
def test_whatever_happens_one_replica_in_place_never_has_company_of_another_template(
    happenings: list[tuple[str, int]],
) -> None:
    cluster = Simulation()
    for what, number in happenings:
        act(cluster, what, number)
        assert len(living_templates(cluster)) <= 1
        status = {"phase": "Pending", **cluster.status}
        expected = {"Ready": "Current", "Stopped": "Current", "Failed": "Failed"}.get(status["phase"], "InProgress")
        if status["observedGeneration"] == cluster.model["metadata"]["generation"]:
            assert kstatus(status["observedGeneration"], status) == expected


@given(actions, st.sampled_from([{}, {"gpus": {"count": 0}}, {"replicas": 3}]))
def test_whatever_happens_it_ends_as_if_nothing_had(happenings: list[tuple[str, int]], spec: dict[str, Any]) -> None:
    """A crash between any two writes included. And in the end nothing is written any more."""
    cluster = Simulation(**spec)
    for what, number in happenings:
        act(cluster, what, number)
    cluster.settle()
    undisturbed = Simulation(**cluster.model["spec"])
    undisturbed.model["metadata"]["generation"] = cluster.model["metadata"]["generation"]
    undisturbed.keep(undisturbed.model)
    undisturbed.settle()
    assert cluster.ending() == undisturbed.ending()
    cluster.now += timedelta(days=1)
    assert cluster.plan() == Plan()


@given(actions)
def test_a_plan_that_was_carried_out_leaves_nothing_to_write(happenings: list[tuple[str, int]]) -> None:
    cluster = Simulation()
    for what, number in happenings:
        act(cluster, what, number)
        if what == "reconcile":
            again = cluster.plan()
            assert again.status is None
            held = [change for change in again.changes if isinstance(change, Apply)]
            # The only second step without news: an emptied Deployment starts once it is known to be empty.
            assert sorted(change.manifest["kind"] for change in held) in ([], ["Deployment"], ["Deployment", "Service"])


@given(with_crashes)
def test_a_failed_model_stays_failed_until_its_spec_changes(happenings: list[tuple[str, int]]) -> None:
    """Whatever its Pods do, and whoever leads."""
    cluster = Simulation()
    cluster.settle()
    given_up = 0
    for what, number in happenings:
        act(cluster, what, number)
        if given_up == cluster.model["metadata"]["generation"]:
            assert cluster.status["phase"] == "Failed"
        if cluster.status["phase"] == "Failed":
            given_up = cluster.status["observedGeneration"]
            if what == "reconcile" and cluster.plan().changes == ():
                assert cluster.deployment["spec"]["replicas"] == 0
    still_crashing = [pod for pod in cluster.pods() if not ready(pod)]
    cluster.settle()
    failed_in_the_end = cluster.status["phase"] == "Failed"
    assert failed_in_the_end or still_crashing or cluster.status["phase"] in ("Ready", "Stopped")
    assert not (failed_in_the_end and cluster.pods())
    assert failed_in_the_end or given_up != cluster.model["metadata"]["generation"]


def test_a_write_on_an_outdated_version_is_refused_by_the_server_not_by_luck(serving: Simulation) -> None:
    serving.edit(priority=1, rollout={"strategy": "Surge"})
    (stale,) = serving.plan().changes
    serving.keep(serving.deployment)
    with pytest.raises(ConflictError):
        serving.carry_out(stale)


def test_policies_are_arguments() -> None:
    cluster = Simulation(Policy(crash_budget=1))
    cluster.settle()
    cluster.now += timedelta(seconds=5)
    cluster.crash(1)
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
