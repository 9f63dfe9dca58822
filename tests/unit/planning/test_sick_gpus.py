"""A GPU that its node's agent calls unhealthy: who holds it is told, and goes elsewhere when it does not answer."""

from typing import Any

from berth.controllers.store import Key, Store
from berth.planning.failures import Circumstances, diagnose
from berth.planning.model_plan import decide
from berth.planning.plan import Apply
from berth.planning.pods import pod_from
from berth.planning.policy import Policy
from berth.planning.reasons import Reason
from berth.planning.world import ModelWorld
from support import builders
from support.builders import NOW, container, pod, serving_pod

SICK = {"pod-p": "GPU GPU-1 of node n1 is not healthy: Xid 79, it fell off the bus"}
KEY = Key("Model", builders.NAMESPACE, "m")


def test_a_server_that_does_not_answer_on_an_unhealthy_gpu_is_the_gpus_fault() -> None:
    loading = pod_from(pod(node="n1", containers=(container(running_for=5),)))
    failure = diagnose(loading, 600, Policy(), NOW, None, Circumstances(sick_gpus=SICK))
    assert failure is not None
    assert (failure.reason, failure.message) == (Reason.GPU_FAULT, SICK["pod-p"])


def test_a_server_that_answers_is_left_alone() -> None:
    assert diagnose(pod_from(serving_pod()), 600, Policy(), NOW, None, Circumstances(sick_gpus=SICK)) is None


def gpu_node(version: int, **health: Any) -> dict[str, Any]:
    holder = {"namespace": builders.NAMESPACE, "pod": "p", "container": "server"}
    gpu = {"uuid": "GPU-1", "product": "x", "health": health, "holders": [holder]}
    status = {"lastWrittenAt": builders.ago(), "gpus": [gpu]}
    metadata = {"name": "n1", "uid": "gpu-node", "resourceVersion": str(version)}
    return {"apiVersion": "berth.dev/v1alpha1", "kind": "GPUNode", "metadata": metadata, "status": status}


def world(store: Store) -> ModelWorld:
    found = store.gather(KEY)
    assert isinstance(found, ModelWorld)
    return found


def store_with_a_server() -> Store:
    """A Model whose server has been loading on the one GPU of a node."""
    store = Store()
    store.observe(builders.model(spec=builders.spec(gpus={"count": 1})))
    (template,) = (
        change.manifest["spec"]["template"]["metadata"]["labels"]["berth.dev/template-hash"]
        for change in _all_changes(store)
        if change.manifest["kind"] == "Deployment"
    )
    made = pod(node="n1", template=template, containers=(container(running_for=5),))
    resources = {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "1"}}
    made["spec"]["containers"] = [{"name": "server", "resources": resources}]
    store.observe(made)
    node = {"name": "n1", "uid": "node", "resourceVersion": "1", "creationTimestamp": builders.ago(60)}
    store.observe({"kind": "Node", "metadata": node, "status": {"allocatable": {"nvidia.com/gpu": "1"}}})
    return store


def _all_changes(store: Store) -> list[Apply]:
    """What is applied until there is a Deployment."""
    found: list[Apply] = []
    for _ in range(3):
        for change in decide(world(store), NOW, Policy()).changes:
            assert isinstance(change, Apply)
            found.append(change)
            metadata = builders.metadata(change.manifest["kind"], "m", len(found), None)
            store.observe({**change.manifest, "metadata": {**change.manifest["metadata"], **metadata}})
    return found


def test_whoever_holds_a_gpu_that_falls_ill_is_looked_at_at_once_and_again_when_it_is_well() -> None:
    store = store_with_a_server()
    assert KEY not in store.observe(gpu_node(1, healthy=True))
    assert KEY in store.observe(gpu_node(2, healthy=False, message="Xid 79, it fell off the bus"))
    assert world(store).sick_gpus == SICK
    assert KEY in store.observe(gpu_node(3, healthy=True))
    assert world(store).sick_gpus == {}


def test_the_status_names_the_gpu_as_the_last_failure() -> None:
    store = store_with_a_server()
    store.observe(gpu_node(2, healthy=False, message="Xid 79, it fell off the bus"))
    status = decide(world(store), NOW, Policy()).status
    assert status is not None
    assert status["lastFailure"]["reason"] == Reason.GPU_FAULT
    assert status["lastFailure"]["message"] == SICK["pod-p"]
