"""No request is lost when a server ends: real servers under load, on a real node."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from berth.planning import names
from berth.planning.closing import CLOSED_SECONDS
from berth.planning.drain_pod import PRE_STOP_SECONDS
from berth.planning.forced_stop import FORCE_STOP_ANNOTATION
from soak.disturbing import end_drain, start_drain
from soak.judging import Fate, Happenings
from soak.observing import Deletions
from support.kube import eventually
from support.load import Ending, Requests
from support.models import Manifest, Served, patch, pods, stays, wait_for_phase
from support.servers import address, llama, reachable, shell, wait_for_reason

pytestmark = pytest.mark.cluster

NEW, KEPT = 20, 10
"""Lanes of requests on new connections, and on connections that are kept open."""
TOKENS = 100
DRAIN_SECONDS = 12
SLOW: Manifest = {
    "limits": {"cpu": "500m", "memory": "512Mi"},
    "serving": {"contextLength": 256, "maxConcurrency": NEW + KEPT},
    "health": {"period": "2s", "timeout": "5s"},
    "shutdown": {"drainTimeout": f"{DRAIN_SECONDS}s", "gracePeriod": "2s"},
}
"""A server whose streams take seconds under this load: each of its slots gets a part of half a processor."""


class Load:
    """Both kinds of requests at once."""

    def __init__(self, url: str) -> None:
        self.fresh, self.kept = Requests(url, NEW, TOKENS), Requests(url, KEPT, TOKENS, keep_alive=True)
        self.began = time.time()

    @property
    def completed(self) -> int:
        return self.fresh.completed + self.kept.completed

    def abandon(self) -> None:
        self.fresh.abandon()
        self.kept.abandon()

    def finish(self) -> None:
        """Begin no further request, and wait for those that run."""
        self.fresh.finish()
        self.kept.finish()

    def report(self) -> dict[str, Any]:
        """What came of it, new connections and kept ones apart."""
        ran = sorted(one.ended - one.began for one in (*self.fresh.endings, *self.kept.endings) if not one.failure)
        told = {
            kind: {
                "completed": load.completed,
                "cut": len(load.cut),
                "refused": len(load.refused),
                "reused": load.reused,
            }
            for kind, load in (("new", self.fresh), ("kept", self.kept))
        }
        return {**told, "median seconds": round(ran[len(ran) // 2], 1) if ran else None}


@contextmanager
def load_on(served: Served, name: str) -> Iterator[Load]:
    """Load, from the moment at which all lanes have answers until the end of the context."""
    url = address(served.cluster, served.namespace, name)
    reachable(url)
    load = Load(url)
    with load.fresh, load.kept:
        eventually(lambda: load.completed > NEW + KEPT, 60, "first answers")
        yield load
    print(json.dumps(load.report()))


@pytest.fixture
def without_operator(served: Served) -> Iterator[Callable[[], None]]:
    """Ends the operator with SIGKILL when called; it is there again after the test."""
    killed = []

    def kill() -> None:
        served.operator.kill()
        killed.append(True)

    yield kill
    if killed:
        served.operator.start()


def start(served: Served, name: str, **spec: Any) -> None:
    served.cluster.apply(llama(name, **{**SLOW, **spec}), namespace=served.namespace)
    wait_for_phase(served.cluster, served.namespace, name, "Ready", 90)


def leaving(served: Served, name: str) -> list[Manifest]:
    return [pod for pod in pods(served.cluster, served.namespace, name) if "deletionTimestamp" in pod["metadata"]]


def wait_until_gone(served: Served, name: str, uid: str) -> float:
    """The time at which a Pod was gone."""
    there = lambda: {pod["metadata"]["uid"] for pod in pods(served.cluster, served.namespace, name)}  # noqa: E731
    eventually(lambda: uid not in there(), DRAIN_SECONDS + 30, f"the end of Pod {uid}")
    return time.time()


def too_early(endings: list[Ending], deleted: float) -> list[Ending]:
    """Streams that were cut before the drain time was over."""
    return [one for one in endings if one.ended < deleted + PRE_STOP_SECONDS + DRAIN_SECONDS - 1]


# ---- one of several, or with another in its place ----------------------------------------------------------------


def change_the_template(served: Served, name: str) -> None:
    patch(served.cluster, served.namespace, name, {"spec": {"serving": {"env": [{"name": "A", "value": "b"}]}}})


def delete_a_pod(served: Served, name: str) -> None:
    pod = pods(served.cluster, served.namespace, name)[0]["metadata"]["name"]
    served.cluster.kubectl("-n", served.namespace, "delete", "pod", pod, "--wait=false")


def evict_a_pod(served: Served, name: str) -> None:
    pod = pods(served.cluster, served.namespace, name)[0]["metadata"]["name"]
    identity = {"name": pod, "namespace": served.namespace}
    eviction = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": identity})
    path = f"/api/v1/namespaces/{served.namespace}/pods/{pod}/eviction"
    served.cluster.kubectl("create", "--raw", path, "-f", "-", input=eviction)


@pytest.mark.parametrize(
    ("happens", "replicas", "operator_runs"),
    [(change_the_template, 1, True), (delete_a_pod, 2, False), (evict_a_pod, 2, True)],
    ids=["rollout", "deletion-without-operator", "eviction"],
)
def test_no_request_is_lost_when_a_server_makes_way(
    served: Served,
    name: str,
    without_operator: Callable[[], None],
    happens: Callable[[Served, str], None],
    replicas: int,
    operator_runs: bool,
) -> None:
    start(served, name, replicas=replicas)
    first = {pod["metadata"]["uid"] for pod in pods(served.cluster, served.namespace, name)}
    with load_on(served, name) as load:
        if not operator_runs:
            without_operator()
        happens(served, name)
        (pod,) = eventually(lambda: leaving(served, name), 60, "a Pod that is leaving")
        deleted = time.time()
        assert pod["metadata"]["uid"] in first
        gone = wait_until_gone(served, name, pod["metadata"]["uid"])
        answered = load.fresh.completed
        eventually(lambda: load.fresh.completed > answered + NEW, 60, "answers of those that stay")
    print(f"the Pod was gone after {gone - deleted:.1f} s")
    assert load.fresh.cut == load.fresh.refused == []
    assert load.kept.refused == []
    assert too_early(load.kept.cut, deleted) == []


# ---- a node is drained -------------------------------------------------------------------------------------------


@contextmanager
def drain_of_the_node(served: Served, name: str) -> Iterator[subprocess.Popen[str]]:
    """`kubectl drain` of the only node there is, which takes Pods again in the end."""
    node = pods(served.cluster, served.namespace, name)[0]["spec"]["nodeName"]
    draining = start_drain(served.cluster, name, node)
    try:
        yield draining
    finally:
        end_drain(served.cluster, node, draining)


def drained(draining: subprocess.Popen[str]) -> None:
    """Wait until the drain has done what it should."""
    eventually(lambda: draining.poll() is not None, 120, "the end of the drain")
    assert draining.returncode == 0, draining.communicate()[0]


def test_a_node_drain_leaves_a_server_that_answers_until_another_one_does(served: Served, name: str) -> None:
    """The new Pod waits for a node, here until the drained one is taken back, and so does the drain."""
    where, namespace = served.cluster, served.namespace
    start(served, name, replicas=2)
    old = {pod["metadata"]["uid"] for pod in pods(where, namespace, name)}
    told = Deletions(where, namespace, name)
    with load_on(served, name) as load, told, drain_of_the_node(served, name) as draining:
        left = lambda: old & {pod["metadata"]["uid"] for pod in pods(where, namespace, name)}  # noqa: E731
        eventually(lambda: len(left()) == 1, 90, "the end of one server")
        wait_for_reason(where, namespace, name, "Unschedulable")
        answered = load.fresh.completed
        eventually(lambda: load.fresh.completed > answered + NEW, 60, "answers of the one that stays")
        assert draining.poll() is None, "the disruption budget holds the last server"
        (pod,) = [pod for pod in pods(where, namespace, name) if pod["metadata"]["uid"] in left()]
        where.kubectl("uncordon", pod["spec"]["nodeName"])
        drained(draining)
        wait_for_phase(where, namespace, name, "Ready", 90)
        load.finish()
    assert load.fresh.cut == load.fresh.refused == load.kept.refused == []
    happenings = Happenings(DRAIN_SECONDS, deletions=tuple(told.told.values()))
    assert {happenings.fate(one) for one in load.kept.cut} <= {Fate.AT_DRAIN_TIMEOUT}


def test_the_only_server_of_a_drained_node_finishes_its_requests(served: Served, name: str) -> None:
    """No budget holds it: what is promised is that no request is cut. Then nothing answers, until a node has room."""
    where, namespace = served.cluster, served.namespace
    start(served, name)
    with load_on(served, name) as load:
        with drain_of_the_node(served, name) as draining:
            eventually(lambda: leaving(served, name), 30, "a Pod that is leaving")
            load.finish()
            drained(draining)
            wait_for_reason(where, namespace, name, "Unschedulable")
        wait_for_phase(where, namespace, name, "Ready", 90)
    assert load.fresh.cut == load.fresh.refused == load.kept.cut == load.kept.refused == []


# ---- all of them -------------------------------------------------------------------------------------------------


def closed_since(served: Served, name: str) -> float:
    """When the Service stopped sending requests, by its own words; 0 while it does not."""
    service = served.cluster.get("service", name, served.namespace)
    assert service is not None
    written = service["metadata"].get("annotations", {}).get(names.CLOSED_SINCE_ANNOTATION)
    return datetime.fromisoformat(written).timestamp() if written else 0.0


def test_a_stop_lets_no_request_in_and_finishes_those_that_are(
    served: Served, name: str, without_operator: Callable[[], None]
) -> None:
    start(served, name)
    with load_on(served, name) as load:
        patch(served.cluster, served.namespace, name, {"spec": {"state": "Stopped"}})
        closed = eventually(lambda: closed_since(served, name), 30, "a closed Service")
        (pod,) = eventually(lambda: leaving(served, name), 30, "a Pod that is leaving")
        deleted = time.time()
        without_operator()
        assert deleted - closed >= CLOSED_SECONDS
        gone = wait_until_gone(served, name, pod["metadata"]["uid"])
        load.abandon()
    print(f"told to end {deleted - closed:.1f} s after the Service was closed, and gone after {gone - deleted:.1f} s")
    assert load.fresh.cut == []
    assert [one for one in load.fresh.refused if one.began < closed] == []
    assert too_early(load.kept.cut, deleted) == []
    assert [one for one in load.kept.endings if not one.failure and one.began > deleted], "open connections are served"


def test_an_idle_server_ends_as_soon_as_nobody_sends_requests(served: Served, name: str) -> None:
    start(served, name)
    (pod,) = pods(served.cluster, served.namespace, name)
    (sidecar,) = [one for one in pod["status"]["initContainerStatuses"] if one["name"] == names.DRAIN_CONTAINER]
    (server,) = pod["status"]["containerStatuses"]
    sidecar_began, server_began = (one["state"]["running"]["startedAt"] for one in (sidecar, server))
    assert (datetime.fromisoformat(server_began) - datetime.fromisoformat(sidecar_began)).total_seconds() <= 1
    served.cluster.kubectl("-n", served.namespace, "delete", "pod", pod["metadata"]["name"], "--wait=false")
    deleted = time.time()
    took = wait_until_gone(served, name, pod["metadata"]["uid"]) - deleted
    print(f"gone after {took:.1f} s")
    assert PRE_STOP_SECONDS < took < PRE_STOP_SECONDS + DRAIN_SECONDS


def test_a_forced_stop_waits_for_nobody(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    start(served, name, shutdown={"drainTimeout": "10m"})
    (pod,) = pods(where, namespace, name)
    with load_on(served, name) as load:
        where.kubectl("-n", namespace, "annotate", "model", name, f"{FORCE_STOP_ANNOTATION}=now")
        patch(where, namespace, name, {"spec": {"state": "Stopped"}})
        forced = time.time()
        took = wait_until_gone(served, name, pod["metadata"]["uid"]) - forced
        load.abandon()
    print(f"gone after {took:.1f} s")
    assert took < 10
    wait_for_phase(where, namespace, name, "Stopped", 20)


def test_a_forced_stop_ends_a_drain_that_has_begun(served: Served, name: str) -> None:
    """SIGTERM comes at once. What a server does then is its own: llama-server waits for whole answers, so none runs."""
    where, namespace = served.cluster, served.namespace
    script = "echo 'busy 1' > /tmp/metrics; trap 'exit 0' TERM; httpd -f -p 9000 -h /tmp & wait"
    metrics = {"path": "/metrics", "running": "busy"}
    custom = {"command": ["sh", "-c", script], "port": 9000, "metrics": metrics}
    where.apply(shell(name, script, custom=custom, shutdown={"drainTimeout": "10m"}), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 60)
    patch(where, namespace, name, {"spec": {"state": "Stopped"}})
    (pod,) = eventually(lambda: leaving(served, name), 30, "a Pod that is leaving")
    stays(lambda: len(leaving(served, name)), PRE_STOP_SECONDS + 3)
    where.kubectl("-n", namespace, "annotate", "model", name, f"{FORCE_STOP_ANNOTATION}=now")
    forced = time.time()
    took = wait_until_gone(served, name, pod["metadata"]["uid"]) - forced
    print(f"gone {took:.1f} s after the order")
    assert took < 10
