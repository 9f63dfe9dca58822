"""What the capacity planner rests on: gathered from news in any order, and derived from nothing else."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from berth.controllers.capacity_store import PATIENCE
from berth.controllers.store import Key, Store
from berth.planning import names
from berth.planning.capacity.placement import Requirement
from berth.planning.capacity.plan import CapacityPlan, ModelCapacity, Preemption
from berth.planning.capacity.planner import plan_capacity
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.world import CapacityWorld, Demand, GpuPod
from berth.planning.pods import pod_from
from support import builders
from support.builders import NAMESPACE, NOW
from support.gpu_clusters import GPU, model, remember

KEY = Key("Model", "default", "m")
AGENT = {"app.kubernetes.io/name": "berth", names.COMPONENT_LABEL: "agent"}


@pytest.fixture
def store() -> Store:
    """A store that knows a node with two GPUs."""
    store = Store()
    store.observe(node())
    return store


def node(name: str = "n1", gpus: int = 2, version: int = 1) -> dict[str, Any]:
    return builders.node(name, gpus=gpus, version=version)


def server(name: str = "p", version: int = 1, gates: bool = False, **more: Any) -> dict[str, Any]:
    pod = builders.pod(name, version=version, **more)
    amounts = {GPU: "1"}
    spec = {"containers": [{"name": "server", "resources": {"requests": amounts, "limits": amounts}}], **pod["spec"]}
    if gates:
        spec["schedulingGates"] = [{"name": names.CAPACITY_GATE}]
    return {**pod, "spec": spec}


def foreign(name: str = "f", version: int = 1, *gates: str, **more: Any) -> dict[str, Any]:
    pod = server(name, version, **more)
    pod["metadata"]["labels"] = {}
    pod["spec"]["schedulingGates"] = [{"name": gate} for gate in gates]
    return pod


def agent(node: str = "n1", version: int = 1, *, ready: bool = True) -> dict[str, Any]:
    pod = builders.pod("agent", node=node, ready=ready, version=version)
    pod["metadata"] |= {"namespace": "berth-agent", "labels": AGENT}
    return pod


def gpu_node(name: str = "n1", version: int = 1, **gpu: Any) -> dict[str, Any]:
    known = {"uuid": "GPU-1", "memory": {"totalMiB": 80000}, "health": {"healthy": True}, **gpu}
    return {
        "kind": "GPUNode",
        "metadata": {"name": name, "uid": f"gpunode-{name}", "resourceVersion": str(version)},
        "status": {"lastWrittenAt": builders.ago(1), "gpus": [known]},
    }


def world(store: Store) -> CapacityWorld:
    return store.capacity.world(NOW)


def pods(store: Store) -> dict[str, GpuPod]:
    return {pod.name: pod for pod in world(store).pods.values()}


# ---- news ----------------------------------------------------------------------------------------------------


def test_only_what_changes_something_calls_for_a_plan(store: Store) -> None:
    world(store)
    store.observe(node(version=2))
    store.observe(builders.pod("without-gpus"))
    assert not store.capacity.changed.is_set()
    store.observe(node(gpus=4, version=3))
    assert store.capacity.changed.is_set()
    assert world(store).nodes["n1"].allocatable == {GPU: 4}


def test_a_report_counts_as_alive_while_the_agent_is_ready_whichever_is_seen_first(store: Store) -> None:
    store.observe(gpu_node())
    assert world(store).nodes["n1"].report.alive is False  # type: ignore[union-attr]
    store.observe(agent())
    assert world(store).nodes["n1"].report.alive is True  # type: ignore[union-attr]
    store.observe(agent(version=2, ready=False))
    assert world(store).nodes["n1"].report.alive is False  # type: ignore[union-attr]
    store.forget("GPUNode", "", "n1", "gpunode-n1")
    assert world(store).nodes["n1"].report is None


def test_a_report_that_comes_before_its_node_is_not_lost() -> None:
    store = Store()
    store.observe(gpu_node())
    assert world(store).nodes == {}
    store.observe(node())
    assert world(store).nodes["n1"].report is not None


def test_holders_are_known_by_uid_even_if_kubelet_told_them_first(store: Store) -> None:
    holder = {"namespace": NAMESPACE, "pod": "p", "container": "server"}
    store.observe(gpu_node(holders=[holder]))
    assert world(store).nodes["n1"].report.gpus[0].holders == ("models/p",)  # type: ignore[union-attr]
    store.observe(server(node="n1"))
    assert world(store).nodes["n1"].report.gpus[0].holders == ("pod-p",)  # type: ignore[union-attr]


def test_pods_of_others_count_while_they_are_there(store: Store) -> None:
    store.observe(foreign(node="n1"))
    assert pods(store)["f"].model == ""
    store.forget("Pod", NAMESPACE, "f", "pod-f")
    assert pods(store) == {}


def test_a_pod_that_has_ended_holds_nothing(store: Store) -> None:
    store.observe(server(node="n1"))
    store.observe(server(node="n1", version=2, phase="Failed"))
    assert pods(store) == {}


def test_a_pod_of_others_that_somebody_holds_back_does_not_count_until_it_is_let_go(store: Store) -> None:
    store.observe(foreign("f", 1, "kueue.x-k8s.io/admission"))
    assert pods(store) == {}
    store.observe(foreign("f", 2))
    assert pods(store)["f"].node == ""


def test_a_server_that_nobody_holds_back_may_be_on_any_node(store: Store) -> None:
    store.observe(server())
    assert pods(store)["p"].nodes == ("n1",)
    store.observe(server("held", gates=True))
    assert pods(store)["held"].nodes == ()


def test_a_pod_of_the_same_name_is_another_one(store: Store) -> None:
    store.observe(server(node="n1"))
    store.observe(server(version=2, uid="another"))
    assert [pod.uid for pod in world(store).pods.values()] == ["another"]
    store.forget("Pod", NAMESPACE, "p", "pod-p")
    assert [pod.uid for pod in world(store).pods.values()] == ["another"]


def test_whether_a_pod_is_outdated_follows_from_the_template_that_is_wanted_now(store: Store) -> None:
    store.observe(server(template="t1"))
    assert not pods(store)["p"].outdated
    store.capacity.ask(Key("Model", NAMESPACE, "m"), model(), "t2")
    assert pods(store)["p"].outdated
    store.observe(server("q", template="t1"))
    assert pods(store)["q"].outdated


# ---- volumes that one node at a time can use -------------------------------------------------------------------


def volume(zone: str = "a") -> dict[str, Any]:
    term = {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}
    meta = {"name": "pv", "uid": "pv", "resourceVersion": "1"}
    spec = {"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}
    return {"kind": "PersistentVolume", "metadata": meta, "spec": spec}


def bound_claim() -> dict[str, Any]:
    claim = builders.claim()
    return {**claim, "spec": {**claim["spec"], "volumeName": "pv"}}


def test_where_the_volume_of_a_cache_can_be_used_is_known_once_it_is_bound(store: Store) -> None:
    store.observe(builders.model_cache(status={"accessMode": "ReadWriteOnce"}))
    store.observe(volume())
    assert world(store).volumes == {}
    store.observe(bound_claim())
    assert world(store).volumes == {"models/default": ((Requirement("zone", "In", ("a",)),),)}
    store.forget("PersistentVolumeClaim", NAMESPACE, "modelcache-default", "persistentvolumeclaim-modelcache-default")
    assert world(store).volumes == {}


def test_a_model_goes_only_where_its_cache_can_be_used(store: Store) -> None:
    store.observe(builders.model_cache(status={"accessMode": "ReadWriteOnce"}))
    store.observe(volume())
    store.observe(bound_claim())
    near = node("near", 1)
    near["metadata"]["labels"] = {**near["metadata"]["labels"], "zone": "a"}
    store.observe(near)
    store.capacity.ask(KEY, replace(model(), cache="models/default"), "t1")
    found = plan_capacity(world(store), NOW, CapacityPolicy()).models["default/m"]
    assert (found.admitted, found.nodes) == (1, ("near",))
    # From the moment that a Pod uses it there, all others have to go there, too.
    store.observe(server("user", node="near", labels={names.CACHE_LABEL: "default"}))
    assert plan_capacity(world(store), NOW, CapacityPolicy()).models["default/m"].admitted == 0


def test_a_cache_that_many_nodes_can_use_ties_nobody_to_a_node(store: Store) -> None:
    store.observe(server(node="n1", labels={names.CACHE_LABEL: "default"}))
    store.observe(builders.model_cache(status={"accessMode": "ReadWriteOnce"}))
    assert pods(store)["p"].cache == "models/default"
    store.observe(builders.model_cache(status={"accessMode": "ReadWriteMany"}, version=2))
    assert pods(store)["p"].cache == ""


# ---- decisions -------------------------------------------------------------------------------------------------


def ask(store: Store, demand: Demand | None = None) -> None:
    store.capacity.ask(KEY, demand or model(), "t1")


def decide(store: Store, seconds: float = 0, **fields: Any) -> list[Key]:
    capacity = ModelCapacity(fields.pop("admitted", 1), fields.pop("remembered", remember()), **fields)
    return store.capacity.decide(CapacityPlan({"default/m": capacity}), NOW + timedelta(seconds=seconds))


def test_a_model_hears_of_a_decision_once(store: Store) -> None:
    ask(store)
    assert decide(store) == [KEY]
    assert decide(store) == []
    assert store.capacity.decision(KEY).capacity.admitted == 1  # type: ignore[union-attr]


def test_nodes_are_told_by_the_label_that_affinities_know(store: Store) -> None:
    renamed = node("n2")
    renamed["metadata"]["labels"] = {**renamed["metadata"]["labels"], "kubernetes.io/hostname": "host-2"}
    store.observe(renamed)
    ask(store)
    decide(store, nodes=("n1", "n2", "gone"))
    assert store.capacity.decision(KEY).hostnames == ("host-2", "n1")  # type: ignore[union-attr]


def test_what_is_under_way_counts_as_done_until_the_model_asks_for_something_else(store: Store) -> None:
    ask(store)
    decide(store)
    assert world(store).models["default/m"].replicas == 1
    assert decide(store, admitted=0) == []
    ask(store, model(replicas=1, priority=7))
    assert world(store).models["default/m"].priority == 7
    assert decide(store, admitted=0) == [KEY]


def test_what_nobody_carries_out_is_not_done_after_a_while(store: Store) -> None:
    ask(store)
    decide(store)
    assert store.capacity.world(NOW + PATIENCE - timedelta(seconds=1)).models["default/m"].replicas == 1
    assert store.capacity.world(NOW + PATIENCE).models["default/m"].replicas == 0


def test_who_has_to_make_way_is_told_which_pods(store: Store) -> None:
    ask(store, model(replicas=2))
    plan = CapacityPlan(
        {"default/m": ModelCapacity(1, remember())},
        (Preemption("default/m", "default/other", "n1", ("pod-p",), "made way for default/other"),),
    )
    assert store.capacity.decide(plan, NOW) == [KEY]
    decision = store.capacity.decision(KEY)
    assert decision is not None
    assert (decision.leaves_first, decision.preempted) == ({"pod-p"}, "made way for default/other")


def test_after_a_pod_was_told_the_next_one_needs_another_decision(store: Store) -> None:
    ask(store)
    decide(store)
    world(store)
    store.capacity.told(KEY)
    assert store.capacity.decision(KEY).told  # type: ignore[union-attr]
    assert store.capacity.changed.is_set()


def test_the_memory_that_a_model_uses_is_that_of_its_largest_pod_as_it_was_measured_last(store: Store) -> None:
    store.observe(server(node="n1"))
    store.observe(gpu_node(processes=[{"podUid": "pod-p", "memoryMiB": 700}, {"podUid": "other", "memoryMiB": 9000}]))
    key = Key("Model", NAMESPACE, "m")
    store.capacity.ask(key, replace(model(replicas=1), key=f"{NAMESPACE}/m"), "t1")
    plan = CapacityPlan({f"{NAMESPACE}/m": ModelCapacity(1, remember())})
    store.capacity.decide(plan, NOW)
    assert store.capacity.decision(key).measured_mib == 700  # type: ignore[union-attr]
    store.capacity.ask(key, replace(model(replicas=1, remembered=remember()), key=f"{NAMESPACE}/m"), "t1")
    assert store.capacity.decide(plan, NOW) == [key]
    assert store.capacity.decide(plan, NOW) == []
    store.observe(gpu_node(version=2, processes=[{"podUid": "pod-p", "memoryMiB": 800}]))
    assert store.capacity.decide(plan, NOW) == [key]
    assert store.capacity.decision(key).measured_mib == 800  # type: ignore[union-attr]


def test_nothing_is_planned_before_every_model_that_is_there_has_asked(store: Store) -> None:
    other, gone = Key("Model", "default", "other"), Key("Model", "default", "gone")
    store.capacity.expect([KEY, other, gone, Key("Node", "", "n1")])
    ask(store)
    store.capacity.ask(other, None, "")  # it needs no GPUs
    assert not store.capacity.complete.is_set()
    store.capacity.forget_model("default", "gone")
    assert store.capacity.complete.is_set()


def test_where_there_are_no_models_the_first_one_that_comes_is_planned_at_once(store: Store) -> None:
    store.capacity.expect([])
    assert store.capacity.complete.is_set()


def test_a_model_that_asks_for_nothing_any_more_is_forgotten_and_its_pods_are_not(store: Store) -> None:
    key = Key("Model", NAMESPACE, "m")
    store.observe(server(node="n1"))
    store.capacity.ask(key, model(), "t1")
    store.capacity.ask(key, None, "")
    assert (world(store).models, store.capacity.decision(key)) == ({}, None)
    assert "p" in pods(store)
    assert pod_from(server()).model == "m"
