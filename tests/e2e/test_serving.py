"""Models that serve on a real node: from nothing to an answer, GPUs, updates, recovery, the end."""

import json
import urllib.request

import pytest

from support.kube import eventually
from support.models import Served, children, conditions, patch, pods, wait_for_phase
from support.servers import HTTPD, Phases, Requests, address, ask, llama, shell, wait_for_reason

pytestmark = pytest.mark.cluster


def test_a_model_goes_from_pending_over_loading_to_ready_and_answers(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    with Phases(where, namespace, name) as watched:
        where.apply(llama(name, gpus=1), namespace=namespace)
        found = wait_for_phase(where, namespace, name, "Ready", 60)
        eventually(lambda: watched.phases[-1:] == ["Ready"], 10)
    assert watched.phases == ["Pending", "Loading", "Ready"], watched.seen
    assert ask(address(where, namespace, name))
    status = found["status"]
    steps = [status["timeline"][step] for step in ("queuedAt", "startedAt", "readyAt")]
    assert steps == sorted(steps)
    assert status["gpu"]["nodes"]
    assert where.get("networkpolicy", name, namespace) is not None


def test_a_server_sees_exactly_the_gpus_that_it_asked_for(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    script = f"echo $NVIDIA_VISIBLE_DEVICES > /tmp/gpus; {HTTPD}"
    where.apply(shell(name, script, gpus={"count": 2}), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    (pod,) = pods(where, namespace, name)
    shown = where.kubectl("-n", namespace, "exec", pod["metadata"]["name"], "-c", "server", "--", "cat", "/tmp/gpus")
    assert len(shown.stdout.strip().split(",")) == 2, shown.stdout
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "2"


def test_more_gpus_than_a_node_has_are_waited_for_in_the_schedulers_words(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    other = f"{name}-other"
    try:
        where.apply(shell(name, HTTPD, gpus={"count": 5}), shell(other, HTTPD), namespace=namespace)
        message = wait_for_reason(where, namespace, name, "Unschedulable")
        assert "Insufficient nvidia.com/gpu" in message
        assert where.phase(name, namespace) == "Pending"
        wait_for_phase(where, namespace, other, "Ready", 60)
        patch(where, namespace, name, {"spec": {"gpus": {"count": 1}}})
        wait_for_phase(where, namespace, name, "Ready", 60)
    finally:
        where.kubectl("-n", namespace, "delete", "model", other, "--wait=false")


def test_all_gpus_of_a_node_change_hands_in_place(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(shell(name, HTTPD, gpus={"count": 4}), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    (old,) = pods(where, namespace, name)
    patch(where, namespace, name, {"spec": {"serving": {"env": [{"name": "CHANGED", "value": "1"}]}}})
    overlaps = []

    def replaced() -> bool:
        there = {pod["metadata"]["uid"]: pod["status"]["phase"] for pod in pods(where, namespace, name)}
        if old["metadata"]["uid"] in there and len(there) > 1:
            overlaps.append(there)
        return bool(there) and old["metadata"]["uid"] not in there

    with Phases(where, namespace, name) as watched:
        eventually(replaced, 60, "the new Pod")
        wait_for_phase(where, namespace, name, "Ready", 60)
    assert overlaps == []
    assert "Failed" not in watched.phases
    (new,) = pods(where, namespace, name)
    assert {"name": "CHANGED", "value": "1"} in new["spec"]["containers"][0]["env"]


def test_an_update_without_gpus_loses_no_request(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(llama(name), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    url = address(where, namespace, name)
    with Requests(f"{url}/health") as requests, Phases(where, namespace, name) as watched:
        patch(where, namespace, name, {"spec": {"serving": {"contextLength": 512}}})
        eventually(lambda: "Updating" in watched.phases, 30, "Updating")
        wait_for_phase(where, namespace, name, "Ready", 60)
        eventually(lambda: len(pods(where, namespace, name)) == 1, 30, "the old Pod is gone")
        before = requests.answered
        eventually(lambda: requests.answered > before + 20, 20, "further answers")
    assert requests.failed == []
    assert set(watched.phases) == {"Ready", "Updating"}
    with urllib.request.urlopen(f"{url}/props", timeout=10) as answer:
        assert json.load(answer)["default_generation_settings"]["n_ctx"] == 512


def test_a_model_with_a_lost_replica_is_degraded_and_goes_on_answering(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(shell(name, HTTPD, replicas=2), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    assert where.get("pdb", name, namespace) is not None
    available = []
    with Phases(where, namespace, name) as watched, Requests(address(where, namespace, name)) as requests:
        victim = pods(where, namespace, name)[0]["metadata"]["name"]
        where.kubectl("-n", namespace, "delete", "pod", victim, "--wait=false")

        def degraded() -> bool:
            found = conditions(where, namespace, name)
            available.append(found["Available"][0])
            return "Degraded" in watched.phases

        eventually(degraded, 30, "Degraded")
        wait_for_phase(where, namespace, name, "Ready", 60)
    assert set(available) == {"True"}
    assert requests.failed == []
    assert set(watched.phases) == {"Ready", "Degraded"}


def test_a_server_that_hangs_is_restarted(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    script = f"({HTTPD}) & while ! [ -e /tmp/hang ]; do sleep 0.2; done; kill -STOP $!; wait"
    health = {"period": "1s", "timeout": "1s", "startupTimeout": "30s", "failureThreshold": 2, "path": "/"}
    where.apply(shell(name, script, health=health), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    (pod,) = pods(where, namespace, name)
    where.kubectl("-n", namespace, "exec", pod["metadata"]["name"], "-c", "server", "--", "touch", "/tmp/hang")
    wait_for_phase(where, namespace, name, "Degraded", 30)
    restarted = eventually(
        lambda: (found := where.get("model", name, namespace)) and found["status"]["restarts"] == 1 and found, 60
    )
    assert restarted["status"]["restarts"] == 1
    (same,) = pods(where, namespace, name)
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]


def test_stopping_and_starting_again(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(shell(name, HTTPD), namespace=namespace)
    first = wait_for_phase(where, namespace, name, "Ready", 60)
    with Phases(where, namespace, name) as watched:
        eventually(lambda: watched.seen, 10)
        patch(where, namespace, name, {"spec": {"state": "Stopped"}})
        wait_for_phase(where, namespace, name, "Stopped", 40)
    assert watched.phases == ["Ready", "Draining", "Stopped"]
    eventually(lambda: not pods(where, namespace, name), 10, "no Pod")
    patch(where, namespace, name, {"spec": {"state": "Running"}})
    again = wait_for_phase(where, namespace, name, "Ready", 60)
    assert again["status"]["timeline"]["readyAt"] > first["status"]["timeline"]["readyAt"]


def test_a_deleted_model_leaves_no_pod(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(shell(name, HTTPD, replicas=2), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    where.kubectl("-n", namespace, "delete", "model", name)
    eventually(lambda: not pods(where, namespace, name) and not children(where, namespace, name), 40)
