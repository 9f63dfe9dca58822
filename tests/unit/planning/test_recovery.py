"""Pods that are lost as a whole: counted, waited for, sent elsewhere, and given up in time."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from berth.planning import names
from berth.planning.model_plan import decide
from berth.planning.plan import Plan
from berth.planning.policy import Policy
from berth.planning.recovery_memory import Lost, Memory, remembered
from berth.planning.times import parse_time
from support import builders
from support.kstatus import kstatus
from support.simulation import Simulation, ready

BUDGET = Policy().crash_budget
NO_GPU = "RuntimeError: No CUDA GPUs are available"


def nodes(cluster: Simulation, *named: str) -> None:
    """So many nodes that the Model could run on."""
    cluster.places = named
    for name in named:
        cluster.keep(builders.node(name, gpus=8))


def live(cluster: Simulation, seconds: int = 20) -> None:
    """Everybody does their part for a while."""
    until = cluster.now + timedelta(seconds=seconds)
    while cluster.now < until:
        cluster.now += timedelta(seconds=1)
        before, plan = cluster.writes, cluster.reconcile()
        others = sum([cluster.roll_out(), *map(cluster.run_pod, cluster.pods())])
        if cluster.writes == before and not others:  # time alone changes something now
            wait = min(plan.look_again or seconds, (until - cluster.now).total_seconds())
            cluster.now += timedelta(seconds=max(0.0, wait))


@pytest.fixture
def serving() -> Simulation:
    """A Model of one GPU that is Ready, in a cluster of two nodes."""
    cluster = Simulation()
    nodes(cluster, "n1", "n2")
    live(cluster)
    assert cluster.status["phase"] == "Ready"
    return cluster


def living(cluster: Simulation) -> list[dict[str, Any]]:
    return [
        pod
        for pod in cluster.pods()
        if pod["status"]["phase"] != "Failed" and "deletionTimestamp" not in pod["metadata"]
    ]


def lose_all(cluster: Simulation, reason: str = "Evicted") -> None:
    for pod in living(cluster):
        cluster.lose(pod, reason)


def lost_again_and_again(cluster: Simulation, times: int = BUDGET, reason: str = "Evicted") -> None:
    """Every Pod is lost as soon as it serves."""
    for _ in range(times):
        lose_all(cluster, reason)
        live(cluster, 600)


def excluded(cluster: Simulation) -> list[str]:
    return [one["node"] for one in cluster.status.get("recovery", {}).get("excludedNodes", ())]


def lost_pods(cluster: Simulation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.status.get("recovery", {}).get("lostPods", [])
    return found


def message(cluster: Simulation) -> str:
    text: str = cluster.status["conditions"][0]["message"]
    return text


# ---- counting and waiting ------------------------------------------------------------------------------------


def test_a_pod_that_is_lost_is_named_counted_and_replaced_at_once(serving: Simulation) -> None:
    lose_all(serving)
    live(serving, 10)
    assert serving.status["phase"] == "Ready"
    assert serving.status["lastFailure"]["reason"] == "Evicted"
    (lost,) = lost_pods(serving)
    assert (lost["pod"], lost["node"], lost["reason"]) == ("p1", "n1", "Evicted")
    assert "nextAttemptAt" not in serving.status["recovery"]


def test_the_second_loss_in_a_row_leaves_the_place_empty_for_a_while(serving: Simulation) -> None:
    lost_again_and_again(serving, 1)
    lose_all(serving)
    live(serving, 5)
    assert (serving.status["phase"], serving.deployment["spec"]["replicas"], living(serving)) == ("Degraded", 0, [])
    attempt = serving.status["recovery"]["nextAttemptAt"]
    assert f"Attempt 3 of {BUDGET} begins at {attempt}" in message(serving)
    live(serving, 60)
    assert serving.status["phase"] == "Ready"
    assert serving.now > (parse_time(attempt) or serving.now)


def test_while_a_place_stays_empty_nothing_is_written(serving: Simulation) -> None:
    lost_again_and_again(serving, 1)
    lose_all(serving)
    live(serving, 10)
    before = serving.writes
    live(serving, 10)
    assert serving.writes == before


def test_the_service_stays_open_while_a_place_is_empty(serving: Simulation) -> None:
    lost_again_and_again(serving, 1)
    lose_all(serving)
    live(serving, 5)
    assert names.CLOSED_LABEL not in serving.objects["Service", "m"]["spec"]["selector"]


def test_pods_that_are_lost_one_after_the_other_end_in_failed_with_what_to_do(serving: Simulation) -> None:
    lost_again_and_again(serving)
    live(serving)
    assert (serving.status["phase"], living(serving), serving.deployment["spec"]["replicas"]) == ("Failed", [], 0)
    assert f"{BUDGET} Pods failed one after the other" in message(serving)
    assert "Set limits so that the scheduler knows" in message(serving)
    assert "berth.dev/start" in message(serving)
    assert kstatus(1, serving.status) == "Failed"
    assert len([pod for pod in serving.pods() if pod["status"]["phase"] == "Failed"]) == BUDGET


def test_it_stays_failed_whoever_leads_and_however_long_it_takes(serving: Simulation) -> None:
    lost_again_and_again(serving)
    live(serving)
    serving.restart()
    serving.now += timedelta(days=3)
    live(serving, 5)
    assert serving.status["phase"] == "Failed"
    assert serving.plan() == Plan()


def test_an_hour_in_ready_gives_the_budget_back(serving: Simulation) -> None:
    lost_again_and_again(serving, BUDGET - 1)
    serving.now += timedelta(hours=1)
    live(serving, 5)
    assert "lostPods" not in serving.status["recovery"]
    lose_all(serving)
    live(serving, 10)
    assert (serving.status["phase"], len(lost_pods(serving))) == ("Ready", 1)


def test_a_loss_after_an_hour_in_ready_is_the_first_one_even_if_nobody_looked_meanwhile(serving: Simulation) -> None:
    lost_again_and_again(serving, BUDGET - 1)
    serving.now += timedelta(hours=1)
    lose_all(serving)
    serving.restart()
    live(serving, 10)
    assert (serving.status["phase"], len(lost_pods(serving))) == ("Ready", 1)


def test_pods_that_others_take_away_count_for_nothing(serving: Simulation) -> None:
    for reason in ("", "EvictionByEvictionAPI", "PreemptionByScheduler") * 3:
        (pod,) = living(serving)
        target = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        conditions = [*pod["status"]["conditions"], *([target] if reason else [])]
        serving.keep({**pod, "status": {**pod["status"], "conditions": conditions}})
        serving.end(serving.objects["Pod", pod["metadata"]["name"]])
        live(serving, 10)
        assert serving.status["phase"] == "Ready"
    assert "recovery" not in serving.status
    assert serving.status["lastFailure"]["reason"] == "Preempted"


def test_a_node_that_is_drained_is_named(serving: Simulation) -> None:
    (pod,) = living(serving)
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    serving.keep({**pod, "status": {**pod["status"], "conditions": [*pod["status"]["conditions"], target]}})
    serving.end(serving.objects["Pod", pod["metadata"]["name"]])
    live(serving, 1)
    assert serving.status["lastFailure"]["reason"] == "Drained"


def test_while_another_replica_answers_it_is_tried_again_for_ever() -> None:
    cluster = Simulation(replicas=2)
    nodes(cluster, "n1", "n2")
    live(cluster)
    for _ in range(BUDGET + 2):
        cluster.lose(living(cluster)[-1])
        live(cluster, 700)
        assert cluster.status["phase"] == "Ready"
        assert cluster.plan().status is None
    assert len(lost_pods(cluster)) == BUDGET


def test_a_loss_leaves_the_other_replicas_alone() -> None:
    cluster = Simulation(replicas=3)
    nodes(cluster, "n1", "n2")
    live(cluster)
    for _ in range(2):
        cluster.lose(living(cluster)[-1])
        live(cluster, 3)
        assert sum(map(ready, cluster.pods())) >= 2
    assert (len(living(cluster)), cluster.deployment["spec"]["replicas"]) == (2, 2)
    assert cluster.status["phase"] == "Degraded"


def test_crashes_of_a_server_share_the_budget_with_pods_that_were_lost(serving: Simulation) -> None:
    lost_again_and_again(serving, BUDGET - 1)
    live(serving, 1)
    serving.crash(1)
    live(serving, 5)
    assert (serving.status["phase"], serving.status["conditions"][0]["reason"]) == ("Failed", "CrashLoop")


@pytest.mark.parametrize("number", range(2, 12))
def test_attempts_come_later_and_later_and_not_all_at_once(number: int) -> None:
    policy = Policy()
    memory = Memory(tuple(Lost(f"p{n}", "n1", "Evicted", builders.NOW) for n in range(number)))
    delay = min(policy.pod_retry_first * 2 ** (number - 2), policy.pod_retry_longest)
    moments = [memory.next_attempt(f"uid-{n}", policy) for n in range(20)]
    seconds = [(moment - builders.NOW).total_seconds() for moment in moments if moment]
    assert len(set(seconds)) > 3
    assert all(delay <= wait <= delay * 1.5 + 1 for wait in seconds)


def test_what_is_remembered_survives_being_written_down() -> None:
    memory = Memory((Lost("p1", "n1", "Evicted", builders.NOW),), (), 3, builders.NOW, "again")
    assert remembered({"recovery": memory.shown("uid", Policy())}) == memory
    assert remembered({"recovery": {"lostPods": [{"pod": "p", "at": "never"}]}}) == Memory()


# ---- the breaker ---------------------------------------------------------------------------------------------


def test_an_explicit_start_closes_the_breaker_once(serving: Simulation) -> None:
    lost_again_and_again(serving)
    live(serving)
    serving.annotate(start="1")
    live(serving)
    assert serving.status["phase"] == "Ready"
    assert serving.status["recovery"]["startHandled"] == "1"
    lost_again_and_again(serving)
    live(serving)
    assert serving.status["phase"] == "Failed", "a value that was obeyed is not obeyed again"
    serving.restart()
    serving.annotate(other="x")
    live(serving)
    assert serving.status["phase"] == "Failed"
    serving.annotate(start="2")
    live(serving)
    assert serving.status["phase"] == "Ready"


def test_a_value_that_was_there_before_the_failure_starts_nothing(serving: Simulation) -> None:
    serving.annotate(start="long ago")
    live(serving, 5)
    lost_again_and_again(serving)
    live(serving)
    assert serving.status["phase"] == "Failed"


def test_a_start_waits_for_the_servers_that_were_given_up(serving: Simulation) -> None:
    serving.now += timedelta(seconds=20)
    serving.crash(BUDGET)
    serving.reconcile()
    assert serving.status["phase"] == "Failed"
    serving.annotate(start="now")
    serving.reconcile()
    assert serving.status["phase"] == "Failed", "the server that failed is still there, with all its restarts"
    live(serving)
    assert serving.status["phase"] == "Ready"


def test_a_start_also_ends_the_waiting(serving: Simulation) -> None:
    lost_again_and_again(serving, BUDGET - 2)
    lose_all(serving)
    live(serving, 3)
    assert living(serving) == []
    serving.annotate(start="now")
    live(serving, 8)
    assert (serving.status["phase"], lost_pods(serving)) == ("Ready", [])


def test_a_change_of_the_spec_closes_the_breaker_and_gives_the_budget_back(serving: Simulation) -> None:
    lost_again_and_again(serving)
    live(serving)
    serving.edit(priority=7)
    live(serving)
    assert (serving.status["phase"], lost_pods(serving)) == ("Ready", [])


# ---- elsewhere -----------------------------------------------------------------------------------------------


def test_a_node_that_fails_the_only_replica_is_left(serving: Simulation) -> None:
    (before,) = {pod["metadata"]["labels"][names.TEMPLATE_HASH_LABEL] for pod in serving.pods()}
    serving.crash(1, message=NO_GPU)
    live(serving)
    (pod,) = living(serving)
    assert (serving.status["phase"], pod["spec"]["nodeName"]) == ("Ready", "n2")
    assert excluded(serving) == ["n1"]
    assert serving.status["lastFailure"]["reason"] == "GpuFault"
    assert pod["metadata"]["labels"][names.TEMPLATE_HASH_LABEL] == before, "no rollout"
    assert "upgradeAvailable" not in serving.status


def test_what_the_model_does_wrong_itself_is_blamed_on_no_node(serving: Simulation) -> None:
    serving.crash(1, message="CUDA out of memory")
    live(serving, 5)
    assert "recovery" not in serving.status
    assert living(serving)[0]["spec"]["nodeName"] == "n1"


def test_a_server_is_not_moved_away_from_a_place_that_was_found_already(serving: Simulation) -> None:
    serving.places = ("n2", "n1")
    lose_all(serving, "UnexpectedAdmissionError")
    serving.roll_out()
    serving.run_pod(living(serving)[0])
    live(serving)
    assert excluded(serving) == ["n1"]
    assert names.EXCLUDED_NODES_ANNOTATION not in serving.deployment["metadata"]["annotations"]
    assert living(serving)[0]["metadata"]["name"] == "p2"


def test_with_a_healthy_replica_the_scheduler_decides() -> None:
    cluster = Simulation(replicas=2)
    nodes(cluster, "n1", "n2")
    live(cluster)
    healthy, sick = cluster.pods()
    cluster.crash(1, message=NO_GPU)
    cluster.keep(healthy)
    live(cluster)
    assert cluster.status["phase"] == "Ready"
    assert ("Pod", sick["metadata"]["name"]) not in cluster.objects
    assert cluster.objects["Pod", healthy["metadata"]["name"]]["metadata"]["uid"] == healthy["metadata"]["uid"]
    assert names.EXCLUDED_NODES_ANNOTATION not in cluster.deployment["metadata"]["annotations"]


def test_the_only_node_is_never_excluded() -> None:
    cluster = Simulation()
    nodes(cluster, "n1")
    live(cluster)
    cluster.crash(1, message=NO_GPU)
    live(cluster)
    assert excluded(cluster) == []
    assert len(living(cluster)) == 1


def test_nodes_that_do_not_suit_the_model_are_no_others() -> None:
    cluster = Simulation()
    nodes(cluster, "n1", "n2")
    cluster.keep(builders.node("n2", gpus=0))
    live(cluster)
    cluster.crash(1, message=NO_GPU)
    live(cluster)
    assert excluded(cluster) == []


def test_few_nodes_are_excluded_at_a_time() -> None:
    cluster = Simulation()
    nodes(cluster, *(f"n{number}" for number in range(1, 9)))
    live(cluster)
    for _ in range(BUDGET - 1):
        cluster.crash(1, message=NO_GPU)
        live(cluster, 1000)
    assert len(excluded(cluster)) <= cluster.policy.most_excluded


def test_an_excluded_node_is_forgotten_after_a_while_and_the_server_stays_where_it_is(serving: Simulation) -> None:
    serving.crash(1, message=NO_GPU)
    live(serving)
    (before,) = living(serving)
    serving.now += timedelta(seconds=serving.policy.exclusion)
    live(serving, 5)
    assert (excluded(serving), living(serving)) == ([], [before])


def test_excluded_nodes_are_allowed_again_when_there_is_no_other_place(serving: Simulation) -> None:
    serving.places = ("n1",)
    serving.crash(1, message=NO_GPU)
    live(serving, 30)
    assert (excluded(serving), serving.status["conditions"][0]["reason"]) == (["n1"], "Unschedulable")
    live(serving, 60)
    assert (excluded(serving), serving.status["phase"]) == ([], "Ready")


def test_a_container_that_cannot_be_started_is_tried_elsewhere_after_a_while(serving: Simulation) -> None:
    (pod,) = living(serving)
    broken = builders.container(waiting="CreateContainerError", message="device busy")
    labels = pod["metadata"]["labels"]
    since = -serving.elapsed()
    serving.keep(
        builders.pod("p1", node="n1", created=since, scheduled_before=since, labels=labels, containers=(broken,))
    )
    live(serving, 30)
    assert (excluded(serving), serving.status["lastFailure"]["reason"]) == ([], "ContainerStartFailed")
    live(serving, 60)
    assert (excluded(serving), serving.status["phase"]) == (["n1"], "Ready")


# ---- nodes that are lost -------------------------------------------------------------------------------------


def test_a_silent_node_is_named_at_once(serving: Simulation) -> None:
    serving.keep(builders.node("n1", gpus=8, lost=True))
    (pod,) = living(serving)
    unready = [{"type": "Ready", "status": "False", "lastTransitionTime": builders.ago(-serving.elapsed())}]
    serving.keep({**pod, "status": {**pod["status"], "conditions": unready}})
    live(serving, 2)
    assert (serving.status["phase"], serving.status["lastFailure"]["reason"]) == ("Degraded", "NodeLost")
    assert lost_pods(serving) == [], "it may come back"


def test_a_pod_that_is_stranded_on_a_lost_node_is_replaced_and_holds_up_nothing(serving: Simulation) -> None:
    serving.lose_node("n1")
    live(serving)
    assert serving.status["phase"] == "Ready"
    assert [one["reason"] for one in lost_pods(serving)] == ["NodeLost"]
    serving.edit(serving={"image": "server:2"})
    live(serving)
    assert (serving.status["phase"], serving.status["observedGeneration"]) == ("Ready", 2)
    serving.edit(state="Stopped")
    live(serving)
    assert serving.status["phase"] == "Stopped"
    assert ("Pod", "p1") in serving.objects


# ---- a restart that a person asks for -------------------------------------------------------------------------


def test_a_new_value_of_the_annotation_replaces_the_servers(serving: Simulation) -> None:
    (before,) = living(serving)
    serving.annotate(restart="once")
    live(serving)
    (after,) = living(serving)
    assert serving.status["phase"] == "Ready"
    assert after["metadata"]["name"] != before["metadata"]["name"]
    assert serving.deployment["spec"]["template"]["metadata"]["annotations"]["berth.dev/restart"] == "once"


def test_a_restart_is_not_repeated_nor_undone(serving: Simulation) -> None:
    serving.annotate(restart="once")
    live(serving)
    (pod,) = living(serving)
    model = serving.model
    serving.keep({**model, "metadata": {**model["metadata"], "annotations": {}}})
    serving.restart()
    live(serving)
    assert living(serving) == [pod]


def test_without_the_annotation_nothing_is_in_the_template(serving: Simulation) -> None:
    assert "berth.dev/restart" not in str(serving.deployment)


# ---- any order, cut off anywhere -------------------------------------------------------------------------------


class Recovery(RuleBasedStateMachine):
    """Pods and nodes are lost at any moment, and the operator dies at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Simulation()

    @initialize(replicas=st.integers(1, 2))
    def a_model_is_made(self, replicas: int) -> None:
        self.cluster = Simulation(replicas=replicas)
        nodes(self.cluster, "n1", "n2", "n3")
        live(self.cluster, 5)

    @rule(seconds=st.sampled_from([1, 5, 60, 700]))
    def time_passes(self, seconds: int) -> None:
        live(self.cluster, seconds)

    @rule(number=st.integers(0, 4))
    def the_operator_dies_in_the_middle(self, number: int) -> None:
        self.cluster.now += timedelta(seconds=1)
        self.cluster.reconcile(cut_off_after=number)

    @rule()
    def the_replicaset_and_the_kubelets_work(self) -> None:
        self.cluster.roll_out()
        for pod in self.cluster.pods():
            self.cluster.run_pod(pod)

    @rule(reason=st.sampled_from(["Evicted", "UnexpectedAdmissionError", "Odd", "Terminated"]), every=st.booleans())
    def pods_are_lost(self, reason: str, every: bool) -> None:
        self.cluster.now += timedelta(seconds=1)
        for pod in living(self.cluster)[: None if every else 1]:
            self.cluster.lose(pod, reason)

    @rule(message=st.sampled_from([NO_GPU, "CUDA out of memory", "boom"]), restarts=st.integers(1, 2))
    def servers_crash(self, message: str, restarts: int) -> None:
        self.cluster.now += timedelta(seconds=1)
        for pod in living(self.cluster):
            if pod["spec"]:
                self.cluster.crash(restarts, message=message)
                break

    @rule()
    def pods_are_deleted(self) -> None:
        for pod in living(self.cluster):
            self.cluster.end(pod)

    @rule(name=st.sampled_from(["n1", "n2"]))
    def a_node_is_lost(self, name: str) -> None:
        self.cluster.now += timedelta(seconds=1)
        self.cluster.lose_node(name)

    @rule(name=st.sampled_from(["n1", "n2"]))
    def a_node_comes_back(self, name: str) -> None:
        self.cluster.keep(builders.node(name, gpus=8))

    @rule(value=st.sampled_from("ab"))
    def a_person_starts_it(self, value: str) -> None:
        self.cluster.annotate(start=value)

    @rule(number=st.integers(0, 9))
    def a_person_changes_it(self, number: int) -> None:
        self.cluster.edit(priority=number)

    @precondition(lambda self: self.cluster.status.get("phase") == "Failed")
    @rule()
    def a_failed_model_stays_failed(self) -> None:
        subject = self.cluster.world().subject
        asked = subject.annotations.get("berth.dev/start", "")
        current = subject.generation == self.cluster.status["observedGeneration"]
        obeyed = subject.status.get("recovery", {}).get("startHandled", "")
        live(self.cluster, 30)
        if current and asked in ("", obeyed):
            assert self.cluster.status["phase"] == "Failed"
            assert self.cluster.deployment["spec"]["replicas"] == 0

    @invariant()
    def the_budget_is_never_exceeded(self) -> None:
        lost = lost_pods(self.cluster)
        assert len(lost) <= BUDGET
        assert len({one["pod"] for one in lost}) == len(lost)
        if len(lost) == BUDGET and not any(map(ready, self.cluster.pods())):
            subject = self.cluster.world().subject
            if subject.generation == self.cluster.status["observedGeneration"]:
                assert self.cluster.status["phase"] == "Failed"

    @invariant()
    def some_node_is_always_left(self) -> None:
        assert len(excluded(self.cluster)) < 3

    @invariant()
    def another_process_would_do_the_same(self) -> None:
        here = self.cluster.plan()
        other = Simulation.__new__(Simulation)
        other.__dict__ |= self.cluster.__dict__
        other.restart()
        there = decide(other.world(), self.cluster.now, self.cluster.policy)
        assert (here.changes, here.hurries) == (there.changes, there.hurries)
        if here.status is not None and there.status is not None:
            assert here.status.get("recovery") == there.status.get("recovery")

    def teardown(self) -> None:
        """Left alone, it is Ready or Failed in the end, and nothing is written any more."""
        cluster = self.cluster
        for name in cluster.places:
            cluster.keep(builders.node(name, gpus=8))
        for pod in living(cluster):
            if not ready(pod):
                cluster.end(pod)
        live(cluster, 3 * 3600)
        assert cluster.status["phase"] in ("Ready", "Failed")
        if cluster.status["phase"] == "Ready":
            assert lost_pods(cluster) == []
        assert cluster.plan() == Plan()


TestRecovery = Recovery.TestCase
TestRecovery.settings = settings(max_examples=max(40, settings().max_examples // 10), stateful_step_count=30)
