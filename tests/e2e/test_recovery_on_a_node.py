"""Servers that hang, Pods that a kubelet throws out, and starts that a person asks for, with real processes."""

import json
from typing import Any

import pytest

from support.kube import Cluster, eventually
from support.models import Manifest, Served, pods, wait_for_phase, wait_for_stall
from support.servers import HTTPD, address, ask, llama, shell, wait_for_reason

pytestmark = pytest.mark.cluster

HANGS = f"({HTTPD}) & server=$!; sleep 4; kill -STOP $server; wait"
"""Takes connections all the time, and answers none after 4 s."""
QUICK_LOOK: Manifest = {"path": "/index.html", "period": "1s", "timeout": "1s", "failureThreshold": 4}
PATIENT: Manifest = {"period": "1s", "timeout": "1s", "startupTimeout": "30s"}


def status(served: Served, name: str) -> Manifest:
    found = served.cluster.get("model", name, served.namespace)
    assert found is not None
    return dict(found["status"])


def annotate(served: Served, name: str, value: str, annotation: str = "start") -> None:
    where = f"berth.dev/{annotation}={value}"
    served.cluster.kubectl("-n", served.namespace, "annotate", "model", name, where, "--overwrite")


def the_pod(served: Served, name: str) -> Manifest:
    """The only Pod of a Model that is neither ending nor ended."""

    def found() -> Manifest | None:
        there = [
            pod
            for pod in pods(served.cluster, served.namespace, name)
            if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") != "Failed"
        ]
        return there[0] if len(there) == 1 else None

    return eventually(found, 30, f"the Pod of {name}")  # type: ignore[return-value]


def evict(where: Cluster, namespace: str, pod: str) -> None:
    """Ask for an eviction, as `kubectl drain` does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    where.kubectl(
        *("create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", "-f", "-"), input=json.dumps(body)
    )


def test_a_server_that_takes_connections_and_answers_nothing_is_found_out(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(shell(name, HANGS, health={**PATIENT, **QUICK_LOOK}), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    wait_for_reason(where, namespace, name, "Unresponsive", 30)
    assert status(served, name)["phase"] == "Degraded"
    message = wait_for_stall(where, namespace, name, "Unresponsive", 240)
    assert "health.failureThreshold" in message
    eventually(lambda: not pods(where, namespace, name), 30, "no Pods")
    annotate(served, name, "now")
    wait_for_phase(where, namespace, name, "Ready", 60)


def test_a_start_gives_a_crash_loop_another_try_and_only_one(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(shell(name, "echo 'out of luck'; exit 3"), namespace=namespace)
    message = wait_for_stall(where, namespace, name, "CrashLoop", 60)
    assert "out of luck" in message
    assert "berth.dev/start" in message
    annotate(served, name, "1")
    eventually(lambda: status(served, name)["phase"] != "Failed", 20, "a new try")
    assert the_pod(served, name)
    wait_for_stall(where, namespace, name, "CrashLoop", 60)
    assert status(served, name)["recovery"]["startHandled"] == "1"
    eventually(lambda: not pods(where, namespace, name), 30, "no Pods")
    assert status(served, name)["phase"] == "Failed"


def test_gpu_memory_that_ran_out_is_recognised_by_the_last_words(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    words = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 23 GiB"
    )
    where.apply(shell(name, f"echo '{words}' >&2; exit 1"), namespace=namespace)
    message = wait_for_stall(where, namespace, name, "OutOfMemory", 60)
    assert "take more or larger GPUs" in message
    assert "Tried to allocate 20.00 GiB" in message


def test_a_broken_gpu_is_recognised_by_the_last_words_and_the_only_node_stays(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(shell(name, "echo 'RuntimeError: No CUDA GPUs are available' >&2; exit 1"), namespace=namespace)
    message = wait_for_stall(where, namespace, name, "GpuFault", 60)
    assert "nvidia-smi" in message
    assert "excludedNodes" not in status(served, name)["recovery"]


def test_a_command_that_the_image_does_not_have_is_no_crash(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    model = shell(name, "")
    model["spec"]["custom"]["command"] = ["no-such-program"]
    where.apply(model, namespace=namespace)
    assert "no-such-program" in wait_for_stall(where, namespace, name, "ContainerStartFailed", 60)


@pytest.mark.slow
def test_pods_that_the_kubelet_throws_out_again_and_again_end_in_failed(served: Served, name: str) -> None:
    """A kubelet looks at the disk that Pods use once a minute."""
    where, namespace = served.cluster, served.namespace
    script = f"dd if=/dev/zero of=/tmp/much bs=1M count=40; {HTTPD}"
    limits = {"cpu": "1", "memory": "128Mi", "ephemeral-storage": "10Mi"}
    where.apply(shell(name, script, limits=limits), namespace=namespace)
    message = wait_for_stall(where, namespace, name, "Evicted", 240)
    assert "2 Pods failed one after the other" in message
    assert "storage" in message, "the kubelet's own words"
    lost = status(served, name)["recovery"]["lostPods"]
    assert [one["reason"] for one in lost] == ["Evicted", "Evicted"]
    annotate(served, name, "again")
    eventually(lambda: status(served, name)["phase"] != "Failed", 20, "a new try")
    assert "lostPods" not in status(served, name)["recovery"]


def test_pods_that_people_take_away_are_no_failures(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(shell(name, HTTPD), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    for number in range(3):
        pod = the_pod(served, name)["metadata"]

        def another(before: str = pod["uid"]) -> bool:
            return bool(the_pod(served, name)["metadata"]["uid"] != before)

        if number == 1:
            evict(where, namespace, pod["name"])
        else:
            where.kubectl("-n", namespace, "delete", "pod", pod["name"], "--wait=false")
        eventually(another, 30, "another Pod")
        wait_for_phase(where, namespace, name, "Ready", 60)
    after: dict[str, Any] = status(served, name)
    assert "recovery" not in after
    assert after["lastFailure"]["reason"] == "Drained"


def test_a_restart_replaces_the_server_once(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(llama(name), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    before = the_pod(served, name)["metadata"]["uid"]
    annotate(served, name, "now", "restart")
    eventually(lambda: the_pod(served, name)["metadata"]["uid"] != before, 30, "another Pod")
    wait_for_phase(where, namespace, name, "Ready", 60)
    assert ask(address(where, namespace, name))
    assert status(served, name)["observedGeneration"] == 1, "the spec is as it was"
