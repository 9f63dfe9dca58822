"""Updates: beside the old replica where there is room, otherwise in its place, and never before memory is back."""

from dataclasses import replace
from typing import Any

from berth.api.model import RolloutStrategy
from berth.planning.capacity.plan import ModelCapacity
from berth.planning.capacity.world import Rollout
from support.builders import NOW
from support.gpu_clusters import LONG_AGO, POLICY, Cluster, admitted, decided, gpu, later, model, node, pod, waiting

AUTO, SURGE, IN_PLACE = RolloutStrategy.AUTO, RolloutStrategy.SURGE, RolloutStrategy.IN_PLACE


def updating(gpus: int = 1, wish: RolloutStrategy = AUTO, **more: Any) -> Cluster:
    """A Model with one old replica on a node with so many GPUs, whose template has changed."""
    updated = model(replicas=1, rollout=Rollout(wish), created_at=LONG_AGO, **more)
    return Cluster([node(gpus=gpus)], [updated], [pod("old", "node-a", "m", outdated=True)])


def choice(found: ModelCapacity) -> tuple[RolloutStrategy, bool]:
    assert found.rollout is not None
    return found.rollout.strategy, found.rollout.begin


def test_with_a_free_gpu_the_new_replica_comes_up_beside_the_old_one() -> None:
    found = decided(updating(gpus=2))
    assert (choice(found), found.admitted, found.nodes) == ((SURGE, True), 1, ("node-a",))
    assert found.rollout is not None
    assert found.rollout.why == "node-a has room for one more replica"


def test_without_one_the_new_replica_takes_the_place_of_the_old_one() -> None:
    found = decided(updating())
    assert (choice(found), found.admitted) == ((IN_PLACE, True), 0)
    assert found.rollout is not None
    assert found.rollout.why == (
        "no GPU is free for one more replica: needs 24576 MiB on a GPU; node-a has 0 of 1 nvidia.com/gpu unallocated"
    )


def test_what_the_person_says_is_done() -> None:
    assert choice(decided(updating(gpus=2, wish=IN_PLACE))) == (IN_PLACE, True)
    found = decided(updating(wish=SURGE))
    assert (choice(found), found.admitted) == ((SURGE, False), 1)
    assert found.waiting is not None
    assert (found.waiting.reason, found.waiting.message.startswith("the update waits for room")) == (
        "WaitingForGPU",
        True,
    )


def test_one_gpu_is_updated_without_deadlock_and_not_before_memory_is_back() -> None:
    cluster = updating()
    cluster.models.append(model("queued", created_at=LONG_AGO - (NOW - LONG_AGO)))  # older, and of equal priority
    cluster.carry_out()
    cluster.change("m", rollout=Rollout(AUTO, IN_PLACE))
    assert waiting(cluster, after=1)[0] == "WaitingForRelease"  # the Pod is not being deleted yet
    cluster.change("old", deleting=True, ends_at=later(60))
    assert cluster.carry_out(2).models["default/m"].admitted == 0
    cluster.pods = []
    cluster.nodes = [node(gpus=[gpu(measured={"uid-old": 60000})])]
    assert admitted(cluster.carry_out(30)) == {"m": 0, "queued": 0}
    assert waiting(cluster, after=30)[0] == "WaitingForRelease"
    cluster.nodes = [node(gpus=1)]
    assert admitted(cluster.carry_out(40)) == {"m": 1, "queued": 0}
    cluster.change("m", rollout=None)
    cluster.pods = [pod("new", "node-a", "m")]
    assert decided(cluster, after=50).waiting is None


def test_memory_that_never_comes_back_ends_the_claim_to_the_place() -> None:
    cluster = updating()
    cluster.carry_out()
    cluster.pods = []
    cluster.nodes = [node(gpus=[gpu(measured={"uid-old": 60000})]), node("node-b", 1)]
    cluster.carry_out(10)
    assert decided(cluster, after=100).admitted == 0
    assert decided(cluster, after=10 + POLICY.release_deadline).nodes == ("node-b",)


def test_a_place_that_the_new_generation_does_not_fit_is_given_up() -> None:
    cluster = updating()
    cluster.carry_out()
    cluster.pods = []
    cluster.nodes.append(node("node-b", 2))
    cluster.change("m", need=replace(cluster.models[0].need, count=2))
    assert decided(cluster, after=10).nodes == ("node-b",)


def test_the_extra_replica_is_reserved_till_the_end() -> None:
    cluster = updating(gpus=2)
    cluster.models.append(model("other"))
    cluster.carry_out()
    cluster.change("m", rollout=Rollout(AUTO, SURGE))
    assert decided(cluster, "other").admitted == 0  # the new Pod is not made yet
    cluster.pods.append(pod("new", "node-a", "m", loading=True, ready=False))
    assert decided(cluster, "other").admitted == 0
    cluster.change("old", deleting=True, ends_at=later(60))
    cluster.change("new", loading=False, ready=True)
    assert waiting(cluster, "other")[0] == "WaitingForRelease"
    cluster.drop("old")
    cluster.change("m", rollout=None)
    assert decided(cluster, "other").admitted == 1


def test_a_surge_that_the_scheduler_cannot_place_becomes_an_update_in_place() -> None:
    cluster = updating(gpus=2)
    cluster.carry_out()
    cluster.change("m", rollout=Rollout(AUTO, SURGE))
    cluster.pods.append(pod("new", of="m", unschedulable_since=NOW))
    assert choice(decided(cluster, after=59)) == (SURGE, True)
    found = decided(cluster, after=60)
    assert (choice(found), found.admitted) == ((IN_PLACE, True), 0)


def test_several_replicas_are_updated_in_place_one_after_the_other() -> None:
    updated = model(wanted=2, replicas=2, rollout=Rollout(AUTO))
    pods = [pod(name, "node-a", "m", outdated=True) for name in ("one", "two")]
    found = decided(Cluster([node(gpus=2)], [updated], pods))
    assert (choice(found), found.admitted) == ((IN_PLACE, True), 2)


def test_an_update_waits_for_a_load_slot_with_the_old_replica_serving() -> None:
    for gpus, strategy in ((3, SURGE), (2, IN_PLACE)):
        cluster = updating(gpus=gpus)
        cluster.models.append(model("x", replicas=1))
        cluster.pods.append(pod("x", "node-a", "x", loading=True, ready=False))
        found = decided(cluster)
        assert (choice(found), found.admitted) == ((strategy, False), 1)
        assert found.waiting is not None
        assert found.waiting.reason == "WaitingForLoadSlot"


def test_a_template_changes_freely_while_nothing_runs_or_no_gpu_is_needed() -> None:
    resting = Cluster([node()], [model(rollout=Rollout(AUTO))])
    assert (choice(decided(resting)), decided(resting).admitted) == ((IN_PLACE, True), 1)
    on_cpu = Cluster([], [model(count=0, memory=None, replicas=1, rollout=Rollout(AUTO))])
    assert choice(decided(on_cpu)) == (SURGE, True)


def test_a_higher_priority_that_waits_is_served_before_an_update_takes_a_second_gpu() -> None:
    cluster = updating(gpus=2)
    cluster.models.append(model("urgent", priority=500))
    assert choice(decided(cluster)) == (IN_PLACE, False)  # the load slot is taken, too
