"""Who may ask for GPUs and when: order, reservations, load slots, holding, taking back, nodes that are not there."""

from dataclasses import replace
from datetime import timedelta

import pytest

from berth.api.model import BackendName
from berth.planning.capacity.placement import Placement, Requirement, Taint, Toleration
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.sharing import can_be_capped, memory_share
from berth.planning.capacity.world import Attempts
from support.builders import NOW
from support.gpu_clusters import (
    GPU,
    LONG_AGO,
    POLICY,
    Cluster,
    admitted,
    decided,
    gpu,
    later,
    model,
    node,
    pod,
    remember,
    waiting,
)


def bind(cluster: Cluster, name: str, on: str, *, loading: bool = False, gpus: int = 1) -> None:
    """The scheduler has bound the Pod of a Model."""
    cluster.pods = [one for one in cluster.pods if one.name != name]
    cluster.pods.append(pod(name, on, name, gpus, ready=not loading, loading=loading))


# ---- order and reservation -----------------------------------------------------------------------------------


def test_priority_goes_first_then_age() -> None:
    young = model("young", created_at=NOW)
    old = model("old", created_at=LONG_AGO)
    urgent = model("urgent", priority=200)
    cluster = Cluster([node(gpus=1)], [young, old, urgent])
    plan = cluster.plan()
    assert plan.models["default/urgent"].admitted == 1
    places = {key: one.waiting.position for key, one in plan.models.items() if one.waiting}
    assert places == {"default/old": 1, "default/young": 2}


def test_an_admitted_replica_is_reserved_for_on_every_node_that_it_may_go_to() -> None:
    cluster = Cluster([node("a", 1), node("b", 1)], [model("first", created_at=LONG_AGO), model("second")])
    plan = cluster.carry_out()
    assert plan.models["default/first"].nodes == ("a", "b")
    assert plan.models["default/second"].admitted == 0
    bind(cluster, "first", "b")
    assert decided(cluster, "second").nodes == ("a",)


def test_reservations_are_read_from_deployments_not_remembered() -> None:
    taken = model("taken", replicas=1)  # nothing is stored of it
    cluster = Cluster([node("a", 1)], [taken, model("second", priority=500)])
    assert decided(cluster, "second").admitted == 0


def test_few_nodes_are_reserved_and_the_fullest_ones() -> None:
    nodes = [node(name, 4) for name in "abcdefgh"]
    cluster = Cluster(nodes, [model()], [pod("x", "g", gpus=3), pod("y", "h", gpus=2)])
    assert decided(cluster).nodes == ("a", "b", "g", "h")
    cluster.policy = replace(POLICY, candidates=0)
    assert len(decided(cluster).nodes) == 8


def test_what_does_not_fit_of_a_scaled_model_stays_queued_and_visible() -> None:
    cluster = Cluster([node(gpus=2)], [model(wanted=5, replicas=2)], [pod("m", "node-a", "m"), pod("n", "node-a", "m")])
    found = decided(cluster)
    assert (found.admitted, found.waiting.reason if found.waiting else "") == (2, "WaitingForGPU")


def test_each_replica_has_its_node_before_the_next_is_admitted() -> None:
    cluster = Cluster([node("a"), node("b")], [model(wanted=3)])
    assert cluster.carry_out().models["default/m"].admitted == 1
    assert cluster.carry_out().models["default/m"].admitted == 1
    bind(cluster, "m", "a")
    assert decided(cluster).admitted == 2


def test_what_its_next_replica_could_have_is_not_for_others() -> None:
    cluster = Cluster([node("a", 1), node("b", 1)], [model(wanted=2, priority=500), model("low")])
    cluster.policy = replace(POLICY, candidates=1)
    assert admitted(cluster.plan()) == {"m": 1, "low": 0}


def test_scaling_down_needs_no_decision() -> None:
    cluster = Cluster([node()], [model(wanted=0, replicas=1)], [pod("m", "node-a", "m")])
    found = decided(cluster)
    assert (found.admitted, found.waiting) == (0, None)


def test_without_gpus_there_is_no_queue() -> None:
    found = decided(Cluster([], [model(count=0, memory=None, wanted=7)]))
    assert (found.admitted, found.waiting, found.required_mib) == (7, None, None)


def test_a_model_without_weights_is_no_candidate_and_ages_all_the_same() -> None:
    absent = model("absent", provisioned=False, created_at=LONG_AGO)
    cluster = Cluster([node(gpus=1)], [absent, model("present")])
    plan = cluster.carry_out()
    assert (plan.models["default/absent"].waiting, plan.models["default/present"].admitted) == (None, 1)
    assert plan.models["default/absent"].remembered.queued_at == LONG_AGO


def test_age_counts_from_creation_or_from_the_last_time_it_was_woken() -> None:
    cluster = Cluster([], [model(created_at=LONG_AGO)])
    assert cluster.carry_out().models["default/m"].remembered.queued_at == LONG_AGO
    cluster.change("m", wanted=0)
    assert cluster.carry_out(1).models["default/m"].remembered.queued_at is None
    cluster.change("m", wanted=1)
    assert cluster.carry_out(2).models["default/m"].remembered.queued_at == later(2)
    assert cluster.carry_out(3).models["default/m"].remembered.queued_at == later(2)


def test_since_when_it_waits_stays_while_the_reason_stays() -> None:
    cluster = Cluster([node(gpus=1)], [model()], [pod("x", "node-a")])
    cluster.carry_out()
    found = cluster.carry_out(100).models["default/m"].waiting
    assert found is not None
    assert found.since == NOW
    cluster.nodes = [node(gpus=[gpu(foreign_mib=70000)])]
    cluster.drop("x")
    found = cluster.carry_out(200).models["default/m"].waiting
    assert found is not None
    assert (found.reason, found.since) == ("WaitingForMemory", later(200))


# ---- load slots ----------------------------------------------------------------------------------------------


def test_one_server_loads_on_a_node_at_a_time() -> None:
    cluster = Cluster([node()], [model("first", created_at=LONG_AGO), model("second")])
    cluster.carry_out()
    bind(cluster, "first", "node-a", loading=True)
    assert waiting(cluster, "second") == (
        "WaitingForLoadSlot",
        "node-a has room, and as many servers are loading there as may load at once: 1",
    )
    bind(cluster, "first", "node-a")
    assert decided(cluster, "second").admitted == 1


def test_a_slot_ends_after_a_time_even_if_the_server_still_loads() -> None:
    loading = pod("x", "node-a", "x", loading=True, ready=False)
    cluster = Cluster([node()], [model("x", replicas=1), model()], [loading])
    assert waiting(cluster)[0] == "WaitingForLoadSlot"
    assert cluster.plan().look_again == POLICY.slot_timeout
    assert decided(cluster, after=POLICY.slot_timeout).admitted == 1


def test_a_server_that_failed_or_is_held_back_has_no_slot() -> None:
    failed = pod("x", "node-a", "x", loading=False, ready=False)
    assert decided(Cluster([node()], [model("x", replicas=1), model()], [failed])).admitted == 1


def test_the_cluster_has_a_limit_of_its_own() -> None:
    cluster = Cluster([node(name, 1) for name in "abc"], [model(name) for name in "xyz"])
    cluster.policy = replace(POLICY, loads_per_cluster=2, candidates=1)
    plan = cluster.plan()
    assert sum(one.admitted for one in plan.models.values()) == 2
    assert waiting(cluster, "z") == (
        "WaitingForLoadSlot",
        "c has room, and as many servers are loading as may load at once: 2 in the cluster",
    )


# ---- the first in the queue ----------------------------------------------------------------------------------


def full() -> Cluster:
    """A large Model waits for a node on which one GPU of two is free; a smaller one comes later."""
    large, small = model("large", 2, created_at=LONG_AGO), model("small")
    return Cluster([node(gpus=2)], [large, small], [pod("x", "node-a")])


def test_nobody_passes_the_first_in_the_queue() -> None:
    assert waiting(full(), "small") == (
        "WaitingForGPU",
        "needs 24576 MiB on a GPU; node-a has room, and default/large is first in its queue",
    )


def test_until_it_has_held_its_nodes_long_enough() -> None:
    cluster = full()
    cluster.carry_out()
    assert cluster.plan(1).look_again == POLICY.hold_for - 1
    assert decided(cluster, "small", POLICY.hold_for - 1).admitted == 0
    assert decided(cluster, "small", POLICY.hold_for).admitted == 1
    assert waiting(cluster, "large", POLICY.hold_for)[1].endswith(
        "It was first in the queue for 10 minutes; smaller ones may pass it now"
    )


def test_it_holds_only_nodes_that_it_could_go_to() -> None:
    cluster = full()
    cluster.nodes.append(node("node-b", 1))
    assert decided(cluster, "small").nodes == ("node-b",)


def test_those_behind_hold_what_is_left() -> None:
    cluster = full()
    zone = Placement(((Requirement("zone", "In", ("b",)),),))
    cluster.nodes.append(node("node-b", [gpu(0), gpu(1), gpu(2)], labels={"zone": "b"}))
    cluster.pods.append(pod("y", "node-b", gpus=2))
    cluster.models.append(model("third", 3, placement=zone, created_at=LONG_AGO + timedelta(1)))
    cluster.change("small", placement=zone, created_at=NOW)
    cluster.change("large", placement=Placement(((Requirement("zone", "DoesNotExist"),),)))
    cluster.change("third", created_at=LONG_AGO)
    assert waiting(cluster, "small")[1].endswith("node-b has room, and default/third is first in its queue")


# ---- taking back ---------------------------------------------------------------------------------------------


def unschedulable(cluster: Cluster, seconds: float) -> None:
    said = "0/1 nodes are available: 1 Insufficient cpu."
    since = later(seconds)
    cluster.pods.append(pod("m", of="m", unschedulable_since=since, unschedulable_message=said))


def test_a_replica_that_the_scheduler_cannot_place_is_taken_back_and_keeps_its_age() -> None:
    cluster = Cluster([node()], [model(created_at=LONG_AGO)])
    cluster.carry_out()
    unschedulable(cluster, 0)
    assert decided(cluster, after=59).admitted == 1
    assert cluster.plan(60).models["default/m"].remembered.unbound_since is None
    back = cluster.carry_out(60).models["default/m"]
    assert (back.admitted, back.remembered.queued_at) == (0, LONG_AGO)
    assert back.waiting is not None
    assert (back.waiting.reason, "Insufficient cpu" in back.waiting.message) == ("WaitingForNode", True)
    cluster.pods = []
    assert decided(cluster, after=119).admitted == 0
    assert decided(cluster, after=120).admitted == 1


def test_each_time_it_waits_twice_as_long_and_has_more_nodes_to_choose_from() -> None:
    again = remember(taken_back=Attempts(3, NOW))
    cluster = Cluster([node(name) for name in "abcdefghi"], [model(remembered=again)])
    cluster.policy = replace(POLICY, candidates=1)
    assert decided(cluster, after=239).admitted == 0
    assert len(decided(cluster, after=240).nodes) == 8


def test_a_bound_replica_makes_that_forgotten() -> None:
    again = remember(taken_back=Attempts(3, NOW), preempting=Attempts(1, NOW), unbound_since=NOW)
    cluster = Cluster([node()], [model(wanted=2, replicas=1, remembered=again)], [pod("m", "node-a", "m")])
    assert (decided(cluster).remembered.taken_back, decided(cluster).remembered.preempting) == (None, None)


def test_one_that_was_bound_long_ago_does_not() -> None:
    again = remember(taken_back=Attempts(3, NOW), preempting=Attempts(1, NOW))
    cluster = Cluster([node()], [model(wanted=2, replicas=1, remembered=again)], [pod("m", "node-a", "m")])
    found = decided(cluster, after=100)
    assert (found.admitted, found.remembered.taken_back, found.remembered.preempting) == (
        1,
        Attempts(3, NOW),
        Attempts(1, NOW),
    )


def test_a_replica_whose_pod_is_never_made_is_taken_back_too() -> None:
    cluster = Cluster([node()], [model()])
    cluster.carry_out()
    assert decided(cluster, after=59).admitted == 1
    assert decided(cluster, after=60).admitted == 0


def test_others_may_use_the_room_while_it_waits_to_be_tried_again() -> None:
    again = model("again", remembered=remember(taken_back=Attempts(1, NOW)), created_at=LONG_AGO)
    assert decided(Cluster([node(gpus=1)], [again, model("other")]), "other").admitted == 1


# ---- nodes ---------------------------------------------------------------------------------------------------


def test_what_no_node_can_ever_hold_is_stalled_after_a_while_and_comes_back_by_itself() -> None:
    cluster = Cluster([node(gpus=[gpu(total=24000)])], [model(memory=40000)])
    found = cluster.carry_out().models["default/m"]
    assert found.waiting is not None
    assert (found.waiting.reason, found.waiting.position, found.stalled) == ("NoNodeFits", 1, False)
    found = cluster.carry_out(600).models["default/m"]
    assert found.waiting is not None
    assert (found.waiting.position, found.stalled) == (None, True)
    assert found.waiting.message == (
        "needs 40000 MiB on a GPU; the largest node that it may go to, node-a, has 24000 MiB to give on such GPUs"
    )
    cluster.nodes.append(node("node-b"))
    assert (decided(cluster, after=700).admitted, decided(cluster, after=700).stalled) == (1, False)


def test_a_placement_that_no_node_has_is_named() -> None:
    nowhere = Placement(((Requirement("nvidia.com/gpu.product", "In", ("H100",)),),))
    assert waiting(Cluster([node()], [model(placement=nowhere)])) == (
        "NoNodeFits",
        "needs 24576 MiB on a GPU; none of the 1 nodes with nvidia.com/gpu is one that its placement allows",
    )


def test_products_taints_and_cordons_decide_where_it_may_go() -> None:
    product = Placement(((Requirement("nvidia.com/gpu.product", "In", ("H100",)),),), (Toleration("gpu", "Exists"),))
    right = node("right", labels={"nvidia.com/gpu.product": "H100"}, taints=(Taint("gpu"),))
    other = node("other", labels={"nvidia.com/gpu.product": "L4"})
    cordoned = replace(right, name="cordoned", unschedulable=True)
    assert decided(Cluster([right, other, cordoned], [model(placement=product)])).nodes == ("right",)


@pytest.mark.parametrize("fields", [{"unschedulable": True}, {"taints": (Taint("node.kubernetes.io/not-ready"),)}])
def test_a_node_that_takes_no_pods_for_the_moment_is_waited_for(fields: dict[str, object]) -> None:
    cluster = Cluster([replace(node(), **fields)], [model()])  # type: ignore[arg-type]
    reason, message = waiting(cluster, after=10000)
    assert (reason, decided(cluster, after=10000).stalled) == ("WaitingForNode", False)
    assert "it is cordoned or not ready" in message


def test_a_node_that_vanishes_takes_its_room_along() -> None:
    cluster = Cluster([node("a"), node("b")], [model()])
    cluster.carry_out()
    cluster.drop("a")
    assert decided(cluster).nodes == ("b",)
    cluster.drop("b")
    assert decided(cluster).admitted == 0  # nobody has told it anything, so the scheduler will never say that
    assert waiting(cluster)[0] == "NoNodeFits"


def test_an_autoscaled_model_shows_its_pod_to_the_cluster_autoscaler() -> None:
    cluster = Cluster([node(gpus=1)], [model(autoscaled=True)], [pod("x", "node-a")])
    found = cluster.carry_out().models["default/m"]
    assert (found.admitted, found.new_nodes_only, found.nodes) == (1, True, ())
    assert found.waiting is not None
    assert found.waiting.reason == "WaitingForNode"
    unschedulable(cluster, 0)
    assert decided(cluster, after=500).admitted == 1  # that is what it is there for
    cluster.nodes.append(replace(node("new", 1), created_at=later(400)))
    cluster.models.append(model("other", priority=500))
    assert decided(cluster, "other", after=500).admitted == 0  # the new node is for the Pod that asked for it


def test_a_bounded_number_of_pods_ask_for_nodes() -> None:
    cluster = Cluster([], [model(name, autoscaled=True) for name in "xyz"])
    cluster.policy = replace(POLICY, pending_pods=2)
    assert admitted(cluster.carry_out()) == {"x": 1, "y": 1, "z": 0}
    assert waiting(cluster, "z")[0] == "NoNodeFits"
    assert not decided(cluster, "z", after=10000).stalled


def test_when_there_is_room_after_all_the_asking_pod_is_taken_back_and_admitted_there() -> None:
    cluster = Cluster([node(gpus=1)], [model(autoscaled=True)], [pod("x", "node-a")])
    cluster.carry_out()
    cluster.pods = [pod("m", of="m", unschedulable_since=NOW)]
    cluster.models.append(model("behind", created_at=later(1)))
    assert admitted(cluster.carry_out(100)) == {"m": 0, "behind": 0}
    cluster.pods = []
    assert cluster.carry_out(101).models["default/m"].nodes == ("node-a",)


def test_a_replica_that_was_told_a_node_is_taken_back_though_another_asks_for_a_new_one() -> None:
    asking = model(wanted=2, replicas=2, autoscaled=True, remembered=remember(beyond=NOW, unbound_since=NOW))
    told = pod("told", of="m", nodes=("node-a",), unschedulable_since=NOW)
    cluster = Cluster(
        [node(gpus=1)], [asking], [pod("x", "node-a"), told, pod("asks", of="m", unschedulable_since=NOW)]
    )
    assert decided(cluster, after=59).admitted == 2
    assert decided(cluster, after=60).admitted == 1


# ---- release -------------------------------------------------------------------------------------------------


def test_the_next_load_waits_until_measured_memory_is_free() -> None:
    leftover = node(gpus=[gpu(measured={"uid-gone": 70000})])
    cluster = Cluster([leftover], [model()])
    assert waiting(cluster) == (
        "WaitingForRelease",
        "needs 24576 MiB on a GPU; node-a has room once memory that an ended server has left behind is free",
    )
    cluster.nodes = [node(gpus=1)]
    assert decided(cluster).admitted == 1


def test_memory_that_stays_is_not_waited_for_for_ever() -> None:
    cluster = Cluster([node(gpus=[gpu(measured={"uid-gone": 70000})])], [model()])
    cluster.carry_out()
    assert cluster.plan().look_again == POLICY.release_deadline
    cluster.carry_out(POLICY.release_deadline)
    reason, message = waiting(cluster, after=POLICY.release_deadline + 100)
    assert (reason, "10000 MiB free" in message) == ("WaitingForMemory", True)


def test_what_is_about_to_be_released_is_for_the_first_in_the_queue() -> None:
    ending = pod("x", "node-a", "x", deleting=True, ends_at=later(30))
    small = model("small", created_at=NOW)
    cluster = Cluster([node(gpus=2)], [model("large", 2, created_at=LONG_AGO), small], [ending])
    assert waiting(cluster, "large")[0] == "WaitingForRelease"
    assert waiting(cluster, "small")[0] == "WaitingForGPU"


# ---- caches on one node --------------------------------------------------------------------------------------

CACHE = "default/models"


def test_a_cache_that_is_in_use_leads_to_its_node() -> None:
    loader = pod("loader", "b", gpus=0, cache=CACHE)
    cluster = Cluster([node("a"), node("b")], [model(cache=CACHE)], [loader])
    assert decided(cluster).nodes == ("b",)
    cluster.pods.append(pod("x", "b", gpus=8))
    reason, message = waiting(cluster)
    assert (reason, message.endswith("Its cache is in use there, and one node at a time can use it")) == (
        "WaitingForGPU",
        True,
    )


def test_a_volume_that_belongs_to_some_nodes_narrows_them() -> None:
    zone = ((Requirement("zone", "In", ("x",)),),)
    nodes = [node("a"), node("b", labels={"zone": "x"})]
    assert decided(Cluster(nodes, [model(cache=CACHE)], volumes={CACHE: zone})).nodes == ("b",)


def test_two_models_with_one_cache_go_one_after_the_other() -> None:
    cluster = Cluster([node("a"), node("b")], [model("first", cache=CACHE), model("second", cache=CACHE)])
    cluster.carry_out()
    reason, message = waiting(cluster, "second")
    assert (reason, "default/first uses the same cache" in message) == ("WaitingForNode", True)
    bind(cluster, "first", "b")
    cluster.change("first", cache=CACHE)
    cluster.pods = [replace(one, cache=CACHE) for one in cluster.pods]
    assert decided(cluster, "second").nodes == ("b",)


# ---- Pods of others ------------------------------------------------------------------------------------------


def test_waiting_pods_of_others_come_first_where_their_priority_is_not_lower() -> None:
    cluster = Cluster([node(gpus=1)], [model(pod_priority=10)], [pod("x", pod_priority=10)])
    assert decided(cluster).admitted == 0
    cluster.change("x", pod_priority=9)
    assert decided(cluster).admitted == 1


def test_where_they_cannot_go_they_count_nothing() -> None:
    elsewhere = Placement(((Requirement("zone", "In", ("x",)),),))
    cluster = Cluster([node(gpus=1)], [model()], [pod("x", placement=elsewhere)])
    assert decided(cluster).admitted == 1
    cluster.pods = [pod("x", gpus=2)]
    assert decided(cluster).admitted == 1


def test_a_pod_of_others_that_the_scheduler_cannot_place_anyway_blocks_nobody() -> None:
    cluster = Cluster([node(gpus=1)], [model()], [pod("x", unschedulable_since=NOW)])
    assert decided(cluster, after=59).admitted == 0
    assert decided(cluster, after=60).admitted == 1


# ---- sharing -------------------------------------------------------------------------------------------------

SLICED = node(gpus=1, allocatable={GPU: 4})


def test_a_shared_model_gets_its_part_of_the_memory() -> None:
    found = decided(Cluster([SLICED], [model(shared=True)]))
    assert (found.admitted, found.share) == (1, 0.307)


def test_several_share_a_gpu_as_long_as_memory_lasts() -> None:
    cluster = Cluster([SLICED], [model(name, shared=True, memory=30000) for name in "xyz"])
    cluster.policy = replace(POLICY, loads_per_node=9)
    assert admitted(cluster.plan()) == {"x": 1, "y": 1, "z": 0}
    assert waiting(cluster, "z") == (
        "WaitingForMemory",
        "needs 30000 MiB of a shared GPU; node-a has 20000 MiB free on its fullest candidate GPU",
    )


def test_all_its_nodes_have_gpus_of_one_size_so_that_its_part_is_the_same_everywhere() -> None:
    large = node("large", [gpu(total=160000)], allocatable={GPU: 4})
    found = decided(Cluster([large, SLICED], [model(shared=True)]))
    assert (found.nodes, found.share) == (("node-a",), 0.307)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"capped": False}, "its server cannot be told how much GPU memory it may use: set gpus.sharing to Exclusive"),
        ({"memory": None}, "its share is not known: set gpus.memory, or gpus.sharing to Exclusive"),
        ({"count": 2}, "several shares may be of one and the same GPU: set gpus.count to 1, or gpus.sharing to"),
        ({"resource": "amd.com/gpu"}, "no node shares its amd.com/gpu in a way that is known"),
    ],
)
def test_what_cannot_be_shared_safely_is_refused(fields: dict[str, object], said: str) -> None:
    cluster = Cluster([SLICED], [model(shared=True, **fields)])  # type: ignore[arg-type]
    found = decided(cluster)
    assert (found.admitted, found.stalled, found.waiting.position if found.waiting else 0) == (0, True, None)
    reason, message = waiting(cluster)
    assert (reason, message.startswith(said)) == ("SharingUnavailable", True)


def test_whole_nodes_cannot_be_shared() -> None:
    assert waiting(Cluster([node()], [model(shared=True)]))[0] == "SharingUnavailable"


def test_the_default_policy_is_the_one_of_the_design() -> None:
    policy = CapacityPolicy()
    assert (policy.loads_per_node, policy.hold_for, policy.no_node_after, policy.unschedulable_after) == (
        1,
        600,
        600,
        60,
    )


def test_a_share_is_never_more_than_what_is_reserved() -> None:
    assert memory_share(24576, 81559) == 0.301
    assert memory_share(24576, 81559) * 81559 <= 24576


def test_engines_that_take_what_they_find_cannot_share() -> None:
    able = {backend for backend in BackendName if can_be_capped(backend)}
    assert set(BackendName) - able == {BackendName.OLLAMA, BackendName.CUSTOM}


# ---- Pods that were not told yet -----------------------------------------------------------------------------


def test_a_pod_that_takes_the_place_of_an_evicted_one_is_told_its_nodes() -> None:
    cluster = Cluster([node("a", 1), node("b", 1)], [model(replicas=1, created_at=LONG_AGO)], [pod("x", "a")])
    cluster.pods.append(pod("new", of="m"))
    found = decided(cluster)
    assert (found.admitted, found.nodes) == (1, ("b",))


def test_where_nothing_is_free_for_it_it_is_in_the_queue_again_with_its_age_and_says_for_what_it_waits() -> None:
    cluster = Cluster([node(gpus=1)], [model(replicas=1)], [pod("x", "node-a"), pod("new", of="m")])
    assert waiting(cluster)[0] == "WaitingForGPU"
    assert cluster.carry_out().models["default/m"].admitted == 0
    assert cluster.models[0].remembered == remember(reason="WaitingForGPU", since=NOW, held_since=NOW)
    cluster.drop("new")
    cluster.drop("x")
    assert decided(cluster, after=1).admitted == 1


def test_where_the_room_for_it_is_about_to_be_free_it_waits_as_it_is() -> None:
    old = pod("old", "node-a", of="m", deleting=True, ends_at=later(30))
    cluster = Cluster([node(gpus=1)], [model(replicas=1)], [old, pod("new", of="m")])
    found = decided(cluster)
    assert (found.admitted, found.nodes) == (1, ())
    cluster.drop("old")
    assert decided(cluster).nodes == ("node-a",)


def test_a_pod_that_was_told_keeps_its_nodes_reserved() -> None:
    told = pod("m", of="m", nodes=("node-a",))
    cluster = Cluster(
        [node(gpus=1)], [model(replicas=1, remembered=remember(nodes=("node-a",))), model("other")], [told]
    )
    assert decided(cluster).nodes == ()
    assert decided(cluster, "other").admitted == 0
