"""What is left behind, on a real API server: told, counted, adopted again, and deleted where that is wanted."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from support.caches import cache, jobs
from support.kube import Cluster, eventually
from support.models import KINDS, children, custom, pods, pretend_ready, settle, stays, wait_for_children
from support.operator_process import OperatorProcess

pytestmark = pytest.mark.control_plane
Start = Callable[..., OperatorProcess]
SOON = ("--sweep-interval", "1", "--orphans-grace", "2")
DELETE = (*SOON, "--orphans-policy", "Delete")
URI = "https://models.invalid/tiny.gguf"


def orphan(where: Cluster, namespace: str, name: str, kind: str = "model") -> None:
    """Delete it and spare its children."""
    where.kubectl("-n", namespace, "delete", kind, name, "--cascade=orphan")


def uids(where: Cluster, namespace: str, name: str) -> set[str]:
    found = [*children(where, namespace, name).values(), *pods(where, namespace, name)]
    return {manifest["metadata"]["uid"] for manifest in found}


def owners(where: Cluster, namespace: str, name: str) -> set[str]:
    """uids of the owners of a Model's children."""
    found = children(where, namespace, name).values()
    return {owner["uid"] for child in found for owner in child["metadata"].get("ownerReferences") or ()}


def uid_of(where: Cluster, kind: str, name: str, namespace: str) -> str:
    found = where.get(kind, name, namespace)
    assert found is not None
    return str(found["metadata"]["uid"])


def events(where: Cluster, namespace: str, reason: str = "Orphaned") -> set[tuple[str, str, str]]:
    """Kind, name and type of what Events with this reason are about."""
    return {
        (event["involvedObject"]["kind"], event["involvedObject"]["name"], event["type"])
        for event in where.list("event", namespace)
        if event["reason"] == reason
    }


def with_a_pod(where: Cluster, namespace: str, name: str) -> set[str]:
    """A Model with everything that it consists of; returns the uids of all of it."""
    where.apply(custom(name, replicas=2), namespace=namespace)
    wait_for_children(where, namespace, name)
    eventually(lambda: where.get("pdb", name, namespace) and len(pods(where, namespace, name)) == 2, 30)
    return uids(where, namespace, name)


def test_what_a_model_leaves_behind_is_told_once_and_stays(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    operator = start_operator(*SOON)
    before = with_a_pod(where, namespace, "a")
    orphan(where, namespace, "a")
    kinds = ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")
    eventually(lambda: all(operator.metric("berth_orphans", kind=kind) == 1 for kind in kinds), 60, "orphans")
    told = {(kind, "a", "Warning") for kind in kinds}
    eventually(lambda: events(where, namespace) == told, 10, "Events")
    assert operator.metric("berth_orphans", kind="Pod") == 0, "what an orphan owns is counted with it"
    assert operator.metric("berth_orphans", kind="ReplicaSet") == 0
    writes = settle(operator)
    stays(lambda: (uids(where, namespace, "a"), operator.writes()), 3)
    assert (uids(where, namespace, "a"), operator.writes()) == (before, writes)
    assert operator.log.read_text().count("left behind: Deployment") == 1


def test_a_model_made_anew_takes_everything_over_and_no_server_restarts(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    operator = start_operator("--sweep-interval", "1", "--orphans-grace", "20", "--orphans-policy", "Delete")
    before = with_a_pod(where, namespace, "a")
    pretend_ready(where, namespace, "a")
    eventually(lambda: where.phase("a", namespace) == "Ready", 30)
    orphan(where, namespace, "a")
    eventually(lambda: not owners(where, namespace, "a"), 20, "the garbage collector takes the owners away")
    where.apply(custom("a", replicas=2), namespace=namespace)
    uid = uid_of(where, "model", "a", namespace)
    eventually(lambda: owners(where, namespace, "a") == {uid}, 20, "adopted")
    eventually(lambda: where.phase("a", namespace) == "Ready", 20)
    assert uids(where, namespace, "a") == before
    settle(operator)
    assert operator.metric("berth_orphans") == 0


def test_what_a_model_made_anew_has_no_use_for_is_left_behind(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    start_operator(*DELETE)
    with_a_pod(where, namespace, "a")
    orphan(where, namespace, "a")
    where.apply(custom("a"), namespace=namespace)
    eventually(lambda: set(children(where, namespace, "a")) == set(KINDS), 40, "one server needs no budget")
    assert owners(where, namespace, "a") == {uid_of(where, "model", "a", namespace)}


def test_where_that_is_wanted_all_of_it_is_deleted(where: Cluster, namespace: str, start_operator: Start) -> None:
    operator = start_operator(*DELETE)
    with_a_pod(where, namespace, "a")
    with_a_pod(where, namespace, "kept")
    kept = uids(where, namespace, "kept")
    orphan(where, namespace, "a")
    eventually(lambda: not uids(where, namespace, "a"), 60, "nothing is left")
    eventually(lambda: operator.metric("berth_orphans") == 0, 20)
    assert uids(where, namespace, "kept") == kept


def test_a_replica_set_that_lost_its_deployment_and_its_model_goes_with_its_pods(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    operator = start_operator()
    with_a_pod(where, namespace, "a")
    operator.stop()
    orphan(where, namespace, "a", "deployment")
    orphan(where, namespace, "a")
    eventually(lambda: not owners(where, namespace, "a"), 20)
    operator = start_operator(*SOON)
    eventually(lambda: operator.metric("berth_orphans", kind="ReplicaSet") == 1, 60, "seen after the first sweep")
    assert operator.metric("berth_orphans", kind="Pod") == 0
    operator.stop()
    operator = start_operator(*DELETE)
    eventually(lambda: not pods(where, namespace, "a"), 60, "nothing is left")


def test_a_pod_that_nobody_controls_is_told(where: Cluster, namespace: str, start_operator: Start) -> None:
    operator = start_operator(*SOON)
    where.apply(stray_pod("stray"), namespace=namespace)
    eventually(lambda: operator.metric("berth_orphans", kind="Pod") == 1, 60)
    assert events(where, namespace) == {("Pod", "stray", "Warning")}


def stray_pod(name: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "berth", "berth.dev/model": "gone"}
    container = {"name": "server", "image": "registry.invalid/server:1"}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def test_of_a_vanished_cache_jobs_are_deleted_and_the_claim_is_kept(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    operator = start_operator(*DELETE)
    where.apply(cache("store", artifacts=[{"uri": URI}]), namespace=namespace)
    eventually(lambda: jobs(where, namespace, "store"), 30, "a download")
    orphan(where, namespace, "store", "modelcache")
    eventually(lambda: not jobs(where, namespace, "store"), 60, "no Job is left")
    eventually(lambda: operator.metric("berth_orphans", kind="PersistentVolumeClaim") == 1, 20)
    eventually(lambda: where.get("networkpolicy", "modelcache-store", namespace) is None, 20)
    assert where.get("persistentvolumeclaim", "modelcache-store", namespace) is not None
    assert ("PersistentVolumeClaim", "modelcache-store", "Normal") in events(where, namespace)


def test_a_cache_made_anew_takes_its_claim_and_its_downloads_over(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    start_operator(*SOON)
    made = cache("store", artifacts=[{"uri": URI}])
    where.apply(made, namespace=namespace)
    (before,) = eventually(lambda: jobs(where, namespace, "store"), 30, "a download")
    claim = uid_of(where, "persistentvolumeclaim", "modelcache-store", namespace)
    orphan(where, namespace, "store", "modelcache")
    eventually(lambda: not jobs(where, namespace, "store")[0]["metadata"].get("ownerReferences"), 20)
    where.apply(made, namespace=namespace)
    uid = uid_of(where, "modelcache", "store", namespace)

    def adopted() -> bool:
        (job,) = jobs(where, namespace, "store")
        assert job["metadata"]["uid"] == before["metadata"]["uid"]
        owners = job["metadata"].get("ownerReferences") or [{}]
        return bool(owners[0].get("uid") == uid)

    eventually(adopted, 30, "the Job that runs is the new cache's")
    assert uid_of(where, "persistentvolumeclaim", "modelcache-store", namespace) == claim


def test_a_process_whose_pod_is_gone_is_told_about_its_node(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    name = f"gpu-{namespace}"
    labels = {"nvidia.com/gpu.present": "true"}
    metadata = {"name": name, "labels": labels}
    where.apply({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"unschedulable": True}})
    try:
        operator = start_operator(*SOON)
        eventually(lambda: where.get("gpunode", name), 20, "the GPUNode")
        where.apply(stray_pod("alive"), namespace=namespace)
        alive = uid_of(where, "pod", "alive", namespace)
        report(where, name, namespace, alive)
        eventually(lambda: operator.metric("berth_orphans", kind="Pod") == 1, 60, "a look")
        assert operator.metric("berth_orphans", kind="GPUProcess") == 0
        where.kubectl("-n", namespace, "delete", "pod", "alive", "--grace-period=0", "--force")
        eventually(lambda: operator.metric("berth_orphans", kind="GPUProcess") == 1, 60, "the process")
        assert "process 7 (vllm) on node" in operator.log.read_text()
    finally:
        where.kubectl("delete", "node", name)


def report(where: Cluster, node: str, namespace: str, pod_uid: str) -> None:
    """Say what an agent would: a process of this Pod is on the node's GPU."""
    process = {"pid": 7, "command": "vllm", "memoryMiB": 1000, "podUid": pod_uid, "namespace": namespace, "pod": "p"}
    gpu = {"uuid": "GPU-1", "product": "Test", "health": {"healthy": True}, "processes": [process]}
    status = {"observedGeneration": 1, "lastWrittenAt": "2099-01-01T00:00:00Z", "gpus": [gpu]}
    body = json.dumps({"status": status})
    where.kubectl("patch", "gpunode", node, "--subresource=status", "--type=merge", "-p", body)
