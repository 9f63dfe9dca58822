"""How much room GPUs have, and what a Model that does not fit is told about it."""

from dataclasses import replace

import pytest

from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.rooms import BOUNDLESS, NOTHING, Room, survey
from berth.planning.capacity.words import WHOLE
from berth.planning.capacity.world import GpuPod, GpuReport, Node
from support.builders import NOW
from support.gpu_clusters import GPU, LONG_AGO, POLICY, Cluster, decided, gpu, later, model, node, pod, waiting


def room(of: Node, *pods: GpuPod, leaving: tuple[str, ...] = (), soon: bool = False, resource: str = GPU) -> Room:
    found = survey(of, pods, set(leaving), POLICY, NOW)
    return (found.soon if soon else found.now)[resource]


# ---- the formula ---------------------------------------------------------------------------------------------


def test_free_is_what_driver_processes_of_others_and_headroom_leave() -> None:
    one = node(gpus=[gpu(total=80000, driver_mib=600, foreign_mib=5000)])
    found = survey(one, [], (), CapacityPolicy(headroom_mib=400), NOW).now[GPU]
    assert (found.left, found.free) == (1, 74000)


def test_the_fullest_gpu_counts_that_the_device_plugin_may_pick() -> None:
    one = node(gpus=[gpu(0), gpu(1, foreign_mib=61800), gpu(2, foreign_mib=70000, holders=("uid-p",))])
    found = room(one, pod(on="node-a", of="m"))
    assert (found.left, found.free) == (2, 18200)


def test_an_exclusive_pod_has_the_whole_gpu_however_little_it_declares() -> None:
    one = node(gpus=[gpu(0, holders=("uid-p",))])
    assert room(one, pod(on="node-a", of="m", memory_mib=1000)).left == 0


def test_a_pod_counts_before_anybody_knows_its_gpu() -> None:
    found = room(node(gpus=2), pod(on="node-a", of="m"))
    assert (found.left, found.free) == (1, 80000)


def test_pods_of_others_hold_gpus_as_well() -> None:
    assert room(node(gpus=2), pod(on="node-a", gpus=2)).left == 0


def test_memory_that_an_ended_pod_left_behind_is_not_free_yet_but_soon() -> None:
    one = node(gpus=[gpu(measured={"uid-gone": 30000}, holders=("uid-gone",))])
    assert (room(one).left, room(one).free, room(one, soon=True).free) == (1, 50000, 80000)


def test_what_is_leaving_is_there_now_and_gone_soon() -> None:
    one = node(gpus=[gpu(measured={"uid-p": 30000}, holders=("uid-p",))])
    going = pod(on="node-a", of="m", deleting=True, ends_at=later(30))
    assert room(one, going, leaving=("uid-p",)).left == 0
    assert (room(one, going, leaving=("uid-p",), soon=True).left, room(one, soon=True).free) == (1, 80000)


def test_a_pod_whose_grace_period_is_long_over_is_not_expected_to_leave() -> None:
    stuck = pod(on="node-a", of="m", deleting=True, ends_at=LONG_AGO)
    assert room(node(gpus=1), stuck, leaving=("uid-p",), soon=True).left == 0


def test_an_unhealthy_gpu_is_no_candidate() -> None:
    one = node(gpus=[gpu(0), gpu(1, healthy=False, foreign_mib=80000)], allocatable={GPU: 1})
    assert (room(one).left, room(one).free) == (1, 80000)


def test_where_memory_cannot_be_measured_numbers_of_gpus_decide() -> None:
    assert room(node(gpus=[gpu(total=None)])).free == BOUNDLESS


# ---- shared GPUs ---------------------------------------------------------------------------------------------

SHARED = node(gpus=[gpu(0, holders=("uid-p",)), gpu(1)], allocatable={GPU: 8})


def share(memory: int | None, name: str = "p") -> GpuPod:
    return pod(name, on="node-a", of="m", memory_mib=memory, shared=True)


def test_shares_add_up_on_the_gpu_that_they_are_on() -> None:
    assert (room(SHARED, share(30000)).left, room(SHARED, share(30000)).free_shared) == (7, 50000)


def test_of_reserved_and_measured_memory_the_larger_counts() -> None:
    grown = node(gpus=[gpu(0, holders=("uid-p",), measured={"uid-p": 35000})], allocatable={GPU: 4})
    assert room(grown, share(30000)).free_shared == 45000


def test_shares_of_unknown_gpu_may_all_be_on_the_same_one() -> None:
    assert room(SHARED, share(30000, "x"), share(20000, "y")).free_shared == 30000


def test_a_gpu_takes_only_so_many_shares() -> None:
    tight = node(gpus=2, allocatable={GPU: 4})
    assert room(tight, share(30000, "x"), share(20000, "y")).free_shared == 50000  # one of them and the next


def test_an_exclusive_pod_leaves_nothing_of_a_shared_gpu() -> None:
    alone = pod(on="node-a", of="m", memory_mib=1000)
    assert room(SHARED, alone).free_shared <= 0


def test_exclusive_needs_every_shared_gpu_empty() -> None:
    assert (room(SHARED).free, room(SHARED, share(1)).free) == (80000, NOTHING)


# ---- without a report ----------------------------------------------------------------------------------------

LABELLED = node(gpus=4, labels={"nvidia.com/gpu.memory": "40000"}, report=None)


@pytest.mark.parametrize(
    "report", [None, GpuReport((gpu(),), LONG_AGO), GpuReport((gpu(),), NOW, alive=False)], ids=["none", "old", "dead"]
)
def test_without_a_report_labels_and_numbers_are_believed(report: GpuReport | None) -> None:
    found = room(replace(LABELLED, report=report), pod(on="node-a"))
    assert (found.left, found.free) == (3, 40000)


def test_and_the_plan_says_so() -> None:
    cluster = Cluster([LABELLED], [model(memory=60000), model("n", count=5, memory=1)])
    assert cluster.plan().unreported == ("node-a",)
    assert waiting(cluster) == (
        "NoNodeFits",
        "needs 60000 MiB on a GPU; the largest node that it may go to, node-a, has 40000 MiB to give on such GPUs "
        "(the GPU agent of node-a does not report: that is what its labels say)",
    )


def test_without_a_label_only_numbers_are_left() -> None:
    assert decided(Cluster([replace(LABELLED, labels={})], [model(memory=60000)])).admitted == 1


def test_shares_are_known_from_the_label_too() -> None:
    labels = {"nvidia.com/gpu.memory": "40000", "nvidia.com/gpu.replicas": "4"}
    found = room(node(gpus=1, labels=labels, report=None, allocatable={GPU: 4}), share(10000))
    assert (found.left, found.free_shared) == (3, 30000)


# ---- other resources -----------------------------------------------------------------------------------------

MIG = "nvidia.com/mig-3g.40gb"


def test_mig_devices_are_a_resource_of_their_own() -> None:
    one = node(gpus=[gpu(0), *(gpu(n, 40000, resource=MIG) for n in (1, 2))])
    assert (room(one).left, room(one, resource=MIG).left, room(one, resource=MIG).free) == (1, 2, 40000)
    assert decided(Cluster([one], [model(memory=39000, resource=MIG)])).nodes == ("node-a",)
    assert waiting(Cluster([one], [model(memory=41000, resource=MIG)]))[0] == "NoNodeFits"


def test_memory_of_mig_devices_has_a_label_of_its_own() -> None:
    labels = {"nvidia.com/gpu.memory": "80000", f"{MIG}.memory": "40000"}
    assert room(node(labels=labels, report=None, allocatable={MIG: 2}), resource=MIG).free == 40000


def test_gpus_of_other_vendors_are_counted() -> None:
    cluster = Cluster([node(report=None, allocatable={"amd.com/gpu": 1})], [model(resource="amd.com/gpu")])
    assert decided(cluster).admitted == 1
    assert waiting(Cluster([node()], [model(resource="amd.com/gpu")])) == (
        "NoNodeFits",
        "needs 24576 MiB on a GPU; no node offers amd.com/gpu",
    )


# ---- what is said --------------------------------------------------------------------------------------------


def test_too_little_memory_is_said_with_the_numbers() -> None:
    full = node(gpus=[gpu(0), gpu(1, foreign_mib=61800)])
    fuller = node("node-b", [gpu(0, foreign_mib=70000), gpu(1)])
    assert waiting(Cluster([full, fuller], [model(count=2)])) == (
        "WaitingForMemory",
        "needs 24576 MiB on each of 2 GPUs; node-a has 18200 MiB free on its fullest candidate GPU, "
        "and 1 other node no more",
    )


def test_too_few_gpus_are_said_with_the_numbers() -> None:
    cluster = Cluster([node(gpus=4)], [model(count=2)], [pod(on="node-a", gpus=3)])
    assert waiting(cluster) == (
        "WaitingForGPU",
        "needs 24576 MiB on each of 2 GPUs; node-a has 1 of 4 nvidia.com/gpu unallocated",
    )


def test_unknown_memory_takes_the_whole_gpu_and_says_so() -> None:
    cluster = Cluster([node(gpus=[gpu(foreign_mib=1)])], [model(memory=None)])
    reason, message = waiting(cluster)
    assert reason == "WaitingForMemory"
    assert message.startswith("needs a whole GPU, since gpus.memory is not set and not estimated")
    cluster.nodes = [node(gpus=1)]
    admitted = decided(cluster)
    assert (admitted.admitted, admitted.required_mib, admitted.source) == (1, None, None)
    assert admitted.notes == (WHOLE,)


def test_what_is_required_and_where_the_figure_comes_from_is_told() -> None:
    admitted = decided(Cluster([node()], [model()]))
    assert (admitted.required_mib, admitted.source) == (24576, "Declared")
