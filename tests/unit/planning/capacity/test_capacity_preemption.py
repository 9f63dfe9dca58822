"""Who makes way for whom."""

from dataclasses import replace

from berth.planning.capacity.placement import Placement, Requirement
from berth.planning.capacity.plan import CapacityPlan
from berth.planning.capacity.world import Attempts
from support.builders import NOW
from support.gpu_clusters import (
    GPU,
    LONG_AGO,
    POLICY,
    Cluster,
    decided,
    gpu,
    later,
    model,
    node,
    pod,
    remember,
    waiting,
)


def running(name: str, on: str = "node-a", gpus: int = 1, priority: int = 100, **more: object) -> tuple[object, object]:
    """A Model and its Pod."""
    held = pod(name, on, name, gpus, **more)  # type: ignore[arg-type]
    return model(name, gpus, priority=priority, replicas=1, created_at=LONG_AGO), held


def crowd(*pairs: tuple[object, object], nodes: list[object] | None = None, gpus: int = 4) -> Cluster:
    models, pods = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Cluster(nodes or [node(gpus=gpus)], models, pods)  # type: ignore[arg-type]


def victims(plan: CapacityPlan) -> list[str]:
    return sorted(one.victim.removeprefix("default/") for one in plan.preemptions)


def test_a_higher_priority_takes_the_place_of_a_lower_one() -> None:
    cluster = crowd(running("low"), gpus=1)
    cluster.models.append(model("high", priority=200))
    plan = cluster.carry_out()
    assert victims(plan) == ["low"]
    assert plan.preemptions[0].pods == ("uid-low",)
    lost = plan.models["default/low"]
    assert lost.waiting is not None
    assert (lost.admitted, lost.waiting.reason, lost.waiting.position) == (0, "Preempted", 2)
    assert lost.waiting.message == "made way for default/high, which has priority 200"
    wins = plan.models["default/high"].waiting
    assert wins is not None
    assert (wins.reason, wins.message) == (
        "WaitingForRelease",
        "needs 24576 MiB on a GPU; node-a has room once default/low made way",
    )


def test_it_is_admitted_once_the_memory_is_free_and_the_victim_returns_by_itself() -> None:
    cluster = crowd(running("low"), gpus=1)
    cluster.models.append(model("high", priority=200))
    cluster.carry_out()
    cluster.change("low", leaves_first=True)  # its Pod is not being deleted yet
    assert cluster.carry_out(1).preemptions == ()
    cluster.pods = [replace(one, deleting=True, ends_at=later(90)) for one in cluster.pods]
    assert cluster.carry_out(2).preemptions == ()
    assert waiting(cluster, "high", 3)[0] == "WaitingForRelease"
    cluster.pods = []
    assert cluster.carry_out(60).models["default/high"].admitted == 1
    cluster.pods = [pod("high", "node-a", "high")]
    reason, message = waiting(cluster, "low", 61)
    assert (reason, message.startswith("made way for default/high; needs 24576 MiB on a GPU; node-a has 0 of 1")) == (
        "Preempted",
        True,
    )
    cluster.nodes.append(node("node-b", 1))
    back = decided(cluster, "low", 62)
    assert (back.admitted, back.remembered.preempted_by) == (1, "")


def test_equal_priorities_leave_each_other_alone() -> None:
    cluster = crowd(running("one"), gpus=1)
    cluster.models.append(model("two"))
    assert victims(cluster.plan()) == []


def test_the_fewest_make_way_and_of_those_the_lowest() -> None:
    many = crowd(running("a", gpus=1, priority=1), running("b", gpus=1, priority=1), running("c", gpus=2, priority=50))
    many.models.append(model("high", 2, priority=200))
    assert victims(many.plan()) == ["c"]
    alike = crowd(running("a", priority=50), running("b", priority=10), running("c", priority=30), gpus=3)
    alike.models.append(model("high", 2, priority=200))
    assert victims(alike.plan()) == ["b", "c"]


def test_the_node_is_chosen_on_which_it_costs_least() -> None:
    cluster = crowd(running("a", "x", priority=90), running("b", "y", priority=20), nodes=[node("x", 1), node("y", 1)])
    cluster.models.append(model("high", priority=200))
    assert victims(cluster.plan()) == ["b"]


def test_what_is_free_already_is_not_taken_from_anybody() -> None:
    cluster = crowd(running("a"), running("b"), gpus=3)
    cluster.models.append(model("high", 2, priority=200))
    assert len(victims(cluster.plan())) == 1


def test_nobody_is_stopped_in_vain() -> None:
    """Neither where memory would still be short, nor where the Model may not go, nor for too few GPUs."""
    short = crowd(running("a"), nodes=[node(gpus=[gpu(foreign_mib=70000, holders=("uid-a",))])])
    short.models.append(model("high", priority=200))
    assert victims(short.plan()) == []
    beside = crowd(running("a"), nodes=[node(gpus=[gpu(0), gpu(1, foreign_mib=70000), gpu(2, foreign_mib=70000)])])
    beside.models.append(model("high", 3, priority=200))
    assert victims(beside.plan()) == []
    elsewhere = crowd(running("a"), gpus=1)
    elsewhere.models.append(model("high", priority=200, placement=Placement(((Requirement("zone", "Exists"),),))))
    assert victims(elsewhere.plan()) == []
    few = crowd(running("a"), gpus=2)
    few.pods.append(pod("foreign", "node-a"))
    few.models.append(model("high", 2, priority=200))
    assert victims(few.plan()) == []


def test_nobody_is_stopped_before_there_is_a_load_slot() -> None:
    cluster = crowd(running("a"), running("b", loading=True, ready=False, priority=500), gpus=2)
    cluster.models.append(model("high", priority=200))
    assert victims(cluster.plan()) == []
    cluster.change("b", priority=50)  # the one that loads may be the one that makes way
    assert victims(cluster.plan()) == ["b"]


def test_a_pod_of_others_that_would_take_the_freed_gpu_is_counted() -> None:
    cluster = crowd(running("a"), running("b"), gpus=2)
    cluster.pods.append(pod("foreign", unschedulable_since=LONG_AGO))
    cluster.models.append(model("high", priority=200))
    assert victims(cluster.plan()) == ["a", "b"]


def test_a_preemption_that_led_to_nothing_is_tried_again_later_and_later() -> None:
    before = remember(preempting=Attempts(2, NOW))
    cluster = crowd(running("low"), gpus=1)
    cluster.models.append(model("high", priority=200, remembered=before))
    assert victims(cluster.plan(119)) == []
    assert cluster.plan(119).look_again == 1
    assert victims(cluster.plan(120)) == ["low"]
    assert decided(cluster, "high", 120).remembered.preempting == Attempts(3, later(120))


def test_of_several_replicas_one_makes_way() -> None:
    cluster = Cluster([node(gpus=2)], [model("low", wanted=2, replicas=2)], [])
    cluster.pods = [pod("one", "node-a", "low"), pod("two", "node-a", "low", created_at=NOW)]
    cluster.models.append(model("high", priority=200))
    plan = cluster.carry_out()
    assert (plan.models["default/low"].admitted, plan.preemptions[0].pods) == (1, ("uid-two",))
    assert cluster.carry_out(1).models["default/low"].admitted == 1  # not asked for again before a Pod has ended


def test_a_replica_that_is_not_ready_goes_first_whatever_is_marked() -> None:
    cluster = Cluster([node("a", 1), node("b", 1)], [model("low", wanted=2, replicas=2)], [])
    cluster.pods = [pod("fine", "a", "low"), pod("broken", "b", "low", ready=False)]
    cluster.models.append(model("high", priority=200))
    assert cluster.plan().preemptions[0].node == "b"


def test_one_plan_stops_only_so_many() -> None:
    names = [f"low-{number}" for number in range(6)]
    cluster = crowd(*(running(name, on=name) for name in names), nodes=[node(name, 1) for name in names])
    cluster.models += [model(f"high-{number}", priority=200) for number in range(6)]
    cluster.policy = replace(POLICY, preemptions=4)
    plan = cluster.carry_out()
    assert (len(plan.preemptions), plan.look_again) == (4, 1)


def test_shares_make_way_until_every_gpu_has_room() -> None:
    sliced = node(gpus=[gpu(0, holders=("uid-a", "uid-b")), gpu(1, holders=("uid-c",))], allocatable={GPU: 8})
    cluster = Cluster([sliced], [], [])
    for name, memory in (("a", 30000), ("b", 40000), ("c", 10000)):
        cluster.models.append(model(name, memory=memory, shared=True, replicas=1, created_at=LONG_AGO))
        cluster.pods.append(pod(name, "node-a", name, memory_mib=memory, shared=True))
    cluster.models.append(model("high", memory=35000, shared=True, priority=200))
    assert victims(cluster.plan()) == ["a"]


def test_an_asking_model_waits_for_a_new_node_before_anybody_has_to_make_way() -> None:
    cluster = crowd(running("low"), gpus=1)
    cluster.models.append(model("high", priority=200, autoscaled=True))
    assert victims(cluster.carry_out()) == []
    cluster.pods.append(pod("high", of="high", unschedulable_since=NOW))
    assert victims(cluster.plan(599)) == []
    plan = cluster.plan(600)
    assert victims(plan) == ["low"]
    assert plan.models["default/high"].admitted == 0
