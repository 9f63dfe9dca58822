"""A Model that nobody uses is unloaded, and started again: a real llama-server on a real node."""

import http.client
import json
import time
import urllib.error
import urllib.request
from datetime import datetime
from typing import Any

import pytest

from berth.planning import names
from berth.planning.starting import START_ANNOTATION
from support.kube import eventually
from support.load import Requests
from support.models import Manifest, Served, conditions, patch, pods, stays, wait_for_phase
from support.servers import Phases, address, ask, llama, reachable

pytestmark = pytest.mark.cluster

AFTER = 15
"""Longer than an operator watches a Model before it unloads it."""
ON_DEMAND: Manifest = {"state": "OnDemand", "idle": {"after": f"{AFTER}s"}, "shutdown": {"drainTimeout": "20s"}}
SLOW: Manifest = {"limits": {"cpu": "200m", "memory": "512Mi"}, "health": {"period": "2s", "timeout": "5s"}}
"""A server whose streams take seconds."""
KEY = "sesame"


def begin(served: Served, name: str, value: str, **spec: Any) -> None:
    """Apply a Model with a value of the annotation that starts it."""
    manifest = llama(name, **{**ON_DEMAND, **spec})
    manifest["metadata"]["annotations"] = {START_ANNOTATION: value}
    served.cluster.apply(manifest, namespace=served.namespace)
    wait_for_phase(served.cluster, served.namespace, name, "Ready", 60)


def start(served: Served, name: str, value: str) -> None:
    patch(served.cluster, served.namespace, name, {"metadata": {"annotations": {START_ANNOTATION: value}}})


def status(served: Served, name: str) -> Manifest:
    found = served.cluster.get("model", name, served.namespace)
    assert found is not None
    told: Manifest = found["status"]
    return told


def wait_for_load(served: Served, name: str, state: str, timeout: float = 20) -> Manifest:
    """The load, once it has the state."""

    def told() -> Manifest:
        load: Manifest = status(served, name).get("load", {})
        assert load.get("state") == state, load
        return load

    return eventually(told, timeout, f"{name} is {state}")


def requests_running(served: Served, name: str) -> float:
    return served.operator.metric("berth_model_requests_running", namespace=served.namespace, model=name)


def completion(tokens: int = 1) -> bytes:
    return json.dumps({"prompt": "a", "max_tokens": tokens, "ignore_eos": True}).encode()


def complete(url: str, key: str = "") -> None:
    """One completion."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}/v1/completions", completion(), headers), timeout=30
    ) as answer:
        assert answer.status == 200
        answer.read()


def test_a_model_is_busy_while_it_streams_and_idle_after_that(served: Served, name: str) -> None:
    served.cluster.apply(llama(name, **SLOW), namespace=served.namespace)
    wait_for_phase(served.cluster, served.namespace, name, "Ready", 90)
    wait_for_load(served, name, "Idle")
    url = address(served.cluster, served.namespace, name)
    reachable(url)
    with Requests(url, lanes=2, tokens=200):
        busy = wait_for_load(served, name, "Busy")
        eventually(lambda: requests_running(served, name) > 0, 10, "requests in the operator's metrics")
    idle = wait_for_load(served, name, "Idle")
    assert idle["since"] > busy["since"]
    eventually(lambda: requests_running(served, name) == 0, 10, "no request in the operator's metrics")


def test_a_model_whose_metrics_need_a_key_tells_its_load(served: Served, name: str) -> None:
    serving = {"contextLength": 256, "env": [{"name": "LLAMA_API_KEY", "value": KEY}]}
    served.cluster.apply(llama(name, serving=serving), namespace=served.namespace)
    wait_for_phase(served.cluster, served.namespace, name, "Ready", 60)
    wait_for_load(served, name, "Idle")
    url = address(served.cluster, served.namespace, name)
    reachable(url)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        complete(url)
    complete(url, key=KEY)
    wait_for_load(served, name, "Busy")  # by its counter alone: the request is over before anybody looks


def test_a_model_that_nobody_uses_is_unloaded_and_started_again(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    begin(served, name, "1")
    url = address(where, namespace, name)
    assert ask(url)
    (pod,) = pods(where, namespace, name)
    began = time.time()
    while time.time() < began + AFTER + 5:  # each of them is over before anybody looks
        complete(url)
        used = time.time()
        time.sleep(1)
    assert status(served, name)["phase"] == "Ready"

    with Phases(where, namespace, name) as watched:
        found = wait_for_phase(where, namespace, name, "Stopped", AFTER + 40)
    assert watched.phases == ["Ready", "Draining", "Stopped"]
    assert conditions(where, namespace, name)["Ready"][:2] == ("True", "Idle")
    unloaded = datetime.fromisoformat(found["status"]["start"]["unloadedAt"]).timestamp()
    assert AFTER - 1 <= unloaded - used <= AFTER + 5, found["status"]
    assert "load" not in found["status"]
    service = where.get("service", name, namespace)
    assert service is not None
    closed = datetime.fromisoformat(service["metadata"]["annotations"][names.CLOSED_SINCE_ANNOTATION]).timestamp()
    eventually(lambda: not pods(where, namespace, name), 10, "no Pod")
    print(json.dumps({"unloaded after the last request": round(unloaded - used, 1), "closed": round(closed - used, 1)}))

    served.operator.kill()
    served.operator.start()
    stays(lambda: (status(served, name)["phase"], len(pods(where, namespace, name))), 5)

    began = time.time()
    start(served, name, "2")
    wait_for_phase(where, namespace, name, "Ready", 60)
    assert ask(url)
    print(json.dumps({"answers after the annotation": round(time.time() - began, 1)}))
    (another,) = pods(where, namespace, name)
    assert another["metadata"]["uid"] != pod["metadata"]["uid"]
    assert status(served, name)["start"]["value"] == "2"


def test_a_start_while_it_drains_brings_it_back(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    begin(served, name, "1")
    wait_for_phase(where, namespace, name, "Draining", AFTER + 40)
    start(served, name, "2")
    wait_for_phase(where, namespace, name, "Ready", 60)
    url = address(where, namespace, name)
    assert ask(url)
    eventually(lambda: len(pods(where, namespace, name)) == 1, 40, "one Pod")


def test_a_client_that_is_connected_when_the_model_is_unloaded_gets_its_answer(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    begin(served, name, "1", **SLOW)
    host = address(where, namespace, name).removeprefix("http://")
    reachable(f"http://{host}")
    connection = http.client.HTTPConnection(host, timeout=60)

    def decided() -> bool:
        """A server drops connections that say nothing for a few seconds, so there is always a new one."""
        nonlocal connection
        if "unloadedAt" in status(served, name)["start"]:
            return True
        connection.close()
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.connect()
        return False

    eventually(decided, AFTER + 40, "the decision to unload")
    connection.request("POST", "/v1/completions", completion(200), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert (answer.status, len(answer.read()) > 200) == (200, True)
    connection.close()
    wait_for_phase(where, namespace, name, "Stopped", 60)


def test_another_operator_neither_forgets_the_idle_time_nor_unloads_early(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    begin(served, name, "1")
    idle = wait_for_load(served, name, "Idle")
    assert idle["mark"]
    since = datetime.fromisoformat(idle["since"]).timestamp()
    served.operator.kill()
    served.operator.start()
    eventually(lambda: "unloadedAt" in status(served, name)["start"], AFTER + 60, "the decision to unload")
    unloaded = datetime.fromisoformat(status(served, name)["start"]["unloadedAt"]).timestamp()
    assert unloaded - since >= AFTER - 1
    wait_for_phase(where, namespace, name, "Stopped", 60)
