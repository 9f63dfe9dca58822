"""Objects of the API as the capacity planner sees them."""

from datetime import timedelta
from typing import Any

import pytest

from berth.planning import names
from berth.planning.capacity.placement import Taint
from berth.planning.capacity.projections import (
    Told,
    concerns_gpus,
    gpu_node_from,
    gpu_pod_from,
    is_loading,
    report_from,
    told_from,
)
from berth.planning.capacity.world import GpuPod
from berth.planning.pods import pod_from
from support import builders
from support.builders import NOW
from support.gpu_clusters import GPU


def with_gpus(pod: dict[str, Any], gpus: int = 1, **spec: Any) -> dict[str, Any]:
    amounts = {GPU: str(gpus)}
    server = {"name": "server", "resources": {"requests": amounts, "limits": amounts}}
    return {**pod, "spec": {"containers": [server], **pod["spec"], **spec}}


def annotated(pod: dict[str, Any], note: str) -> dict[str, Any]:
    return {**pod, "metadata": {**pod["metadata"], "annotations": {names.CAPACITY_ANNOTATION: note}}}


def projected(pod: dict[str, Any]) -> GpuPod:
    return gpu_pod_from(pod, pod_from(pod))


# ---- Pods ----------------------------------------------------------------------------------------------------


def test_pods_that_take_no_gpu_and_no_volume_do_not_matter() -> None:
    assert not concerns_gpus(builders.pod())
    assert concerns_gpus(with_gpus(builders.pod()))
    assert concerns_gpus(builders.pod(labels={names.CACHE_LABEL: "default"}))


def test_a_server_pod_belongs_to_its_model_and_reserves_what_it_was_told() -> None:
    note = '{"nodes": ["a"], "at": "2026-01-01T11:59:00Z", "memoryMiB": 24576, "shared": true}'
    found = projected(annotated(with_gpus(builders.pod(), 2), note))
    assert (found.model, found.gpus, found.nodes) == ("models/m", {GPU: 2}, ("a",))
    assert (found.memory_mib, found.shared) == (24576, True)


def test_a_pod_of_others_belongs_to_no_model_whatever_label_it_carries() -> None:
    theirs = with_gpus(builders.pod())
    theirs["metadata"]["labels"] = {names.MODEL_LABEL: "m"}
    assert projected(theirs).model == ""


def test_a_pod_was_unschedulable_no_longer_than_it_has_been_free_to_go() -> None:
    pod = with_gpus(builders.pod(unschedulable="no room"))
    pod["status"]["conditions"][0]["lastTransitionTime"] = builders.ago(500)
    assert projected(pod).unschedulable_since == NOW - timedelta(seconds=500)
    told = annotated(pod, f'{{"nodes": ["a"], "at": "{builders.ago(20)}"}}')
    assert projected(told).unschedulable_since == NOW - timedelta(seconds=20)


@pytest.mark.parametrize("note", ["", "nonsense", "[]", '{"memoryMiB": "much"}', '{"nodes": 7}'])
def test_a_note_that_cannot_be_read_says_nothing(note: str) -> None:
    assert told_from(note) is None
    assert projected(annotated(with_gpus(builders.pod()), note)).nodes == ()


def test_a_note_says_where_to_and_how_much() -> None:
    assert told_from('{"beyond": true}') == Told(beyond=True)


LOADING = builders.container(running_for=5)


@pytest.mark.parametrize(
    ("pod", "loads"),
    [
        (builders.pod(), False),  # it has no node
        (builders.pod(node="n1"), True),
        (builders.pod(node="n1", phase="Running", containers=(LOADING,)), True),
        (builders.pod(node="n1", phase="Running", containers=(LOADING,), deleting=True), False),
        (builders.serving_pod(), False),
        (builders.pod(node="n1", containers=(builders.container(waiting="ImagePullBackOff"),)), False),
        (builders.pod(node="n1", containers=(builders.container(waiting="CrashLoopBackOff", restarts=1),)), False),
        (builders.pod(node="n1", containers=(builders.container(running_for=5, started=True),)), False),
    ],
)
def test_a_server_loads_until_it_is_ready_for_the_first_time_or_fails(pod: dict[str, Any], loads: bool) -> None:
    assert is_loading(pod_from(pod)) is loads


# ---- nodes ---------------------------------------------------------------------------------------------------


def test_a_node_offers_its_extended_resources_and_nothing_else() -> None:
    node = builders.node("n1", gpus=8, cordoned=True)
    node["spec"]["taints"] = [{"key": "gpu", "effect": "NoSchedule"}]
    found = gpu_node_from(node)
    assert (found.name, found.allocatable, found.unschedulable) == ("n1", {GPU: 8}, True)
    assert found.taints == (Taint("gpu", "", "NoSchedule"),)


MIG = {"uuid": "MIG-1", "profile": "1g.10gb", "memory": {"totalMiB": 9984}, "health": {"healthy": True}}
WHOLE: dict[str, Any] = {
    "uuid": "GPU-1",
    "memory": {"totalMiB": 80000, "usedMiB": 500, "reservedMiB": 400},
    "foreignMiB": 300,
    "health": {"healthy": False},
    "holders": [{"namespace": "a", "pod": "p", "container": c} for c in ("x", "y")],
    "processes": [
        {"pid": 1, "podUid": "u1", "memoryMiB": 70},
        {"pid": 2, "podUid": "u1", "memoryMiB": 30},
        {"pid": 3, "podUid": "u2"},
        {"pid": 4, "memoryMiB": 300, "foreign": True},
    ],
}


def report(*gpus: dict[str, Any], **labels: str) -> Any:
    status = {"lastWrittenAt": builders.ago(1), "gpus": list(gpus)}
    return report_from(status, labels, alive=True, uid_of=lambda namespace, name: f"uid of {namespace}/{name}")


def test_a_gpu_is_what_its_agent_measured() -> None:
    (gpu,) = report(WHOLE).gpus
    assert (gpu.uuid, gpu.resource, gpu.healthy) == ("GPU-1", GPU, False)
    assert (gpu.total_mib, gpu.driver_mib, gpu.foreign_mib) == (80000, 400, 300)
    assert gpu.measured == {"u1": 100, "u2": 0}
    assert gpu.holders == ("uid of a/p",)


def test_mig_devices_are_offered_by_their_profile_unless_the_whole_node_is_cut_alike() -> None:
    cut = {"uuid": "GPU-1", "mig": True, "health": {"healthy": True}}
    assert [gpu.resource for gpu in report(cut, MIG).gpus] == ["nvidia.com/mig-1g.10gb"]
    assert [gpu.resource for gpu in report(cut, MIG, **{"nvidia.com/mig.strategy": "single"}).gpus] == [GPU]


def test_memory_that_the_agent_cannot_see_is_not_known() -> None:
    (gpu,) = report({"uuid": "GPU-1", "health": {"healthy": True}}).gpus
    assert gpu.total_mib is None


def test_an_agent_that_never_wrote_has_said_nothing() -> None:
    assert report_from({"observedGeneration": -1}, {}, alive=True, uid_of=lambda *_: "") is None
