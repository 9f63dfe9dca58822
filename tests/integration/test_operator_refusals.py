"""What the API server or a controller refuses is said in the Model's words, and mends itself where it can."""

from collections.abc import Callable
from typing import Any

import pytest

from support.kube import Cluster, eventually
from support.models import (
    Served,
    conditions,
    custom,
    patch,
    pods,
    wait_for_children,
    wait_for_phase,
    wait_for_stall,
)
from support.operator_process import OperatorProcess

pytestmark = pytest.mark.control_plane
Start = Callable[..., OperatorProcess]


def _ready_condition(where: Cluster, namespace: str, name: str, reason: str) -> str:
    """The message of Ready, once it has the reason."""

    def told() -> str:
        found = conditions(where, namespace, name).get("Ready", ("", "", ""))
        return found[2] if found[1] == reason else ""

    return eventually(told, 30, f"{name} {reason}")


def test_an_exceeded_quota_is_shown_and_recovers(where: Cluster, namespace: str, start_operator: Start) -> None:
    start_operator()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"pods": "1"}},
    }
    where.apply(quota, namespace=namespace)
    eventually(
        lambda: (where.kubectl("-n", namespace, "get", "quota", "few", "-o", "jsonpath={.status.used.pods}")).stdout
    )
    where.apply(custom("a"), namespace=namespace)
    eventually(lambda: pods(where, namespace, "a"))
    where.apply(custom("b"), namespace=namespace)
    assert "exceeded quota: few" in _ready_condition(where, namespace, "b", "QuotaExceeded")
    assert where.phase("b", namespace) == "Pending"
    assert "Stalled" not in conditions(where, namespace, "b")
    where.kubectl("-n", namespace, "delete", "quota", "few")
    # A spec change makes the controllers try at once; by themselves they do so with growing patience.
    patch(where, namespace, "b", {"spec": {"serving": {"image": "registry.invalid/server:2"}}})
    eventually(lambda: pods(where, namespace, "b"), 30, "the Pod")
    eventually(lambda: conditions(where, namespace, "b")["Ready"][1] != "QuotaExceeded", 20)


def test_a_quota_on_deployments_themselves_is_shown_and_recovers(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    start_operator("--refusal-interval", "1")
    hard = {"count/deployments.apps": "0"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": hard}}
    where.apply(quota, namespace=namespace)
    eventually(lambda: where.kubectl("-n", namespace, "get", "quota", "none", "-o", "jsonpath={.status.hard}").stdout)
    where.apply(custom("a"), namespace=namespace)
    assert "exceeded quota" in _ready_condition(where, namespace, "a", "QuotaExceeded")
    assert where.phase("a", namespace) == "Pending"
    where.kubectl("-n", namespace, "delete", "quota", "none")
    wait_for_children(where, namespace, "a")
    eventually(lambda: conditions(where, namespace, "a")["Ready"][1] == "Unschedulable", 20)


def test_pods_that_pod_security_refuses_are_shown(where: Cluster, namespace: str, start_operator: Start) -> None:
    where.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    start_operator()
    root = {"spec": {"securityContext": {"runAsUser": 0, "runAsNonRoot": False}}}
    where.apply(custom("root", podTemplate=root), custom("good"), namespace=namespace)
    message = _ready_condition(where, namespace, "root", "PodsRefused")
    assert 'violates PodSecurity "restricted' in message
    eventually(lambda: pods(where, namespace, "good"), 20, "the other Model's Pod")


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}, "podTemplate.spec.volumes[0].hostPath"),
        ({"spec": {"foo": 1}}, "podTemplate.spec.foo"),
        ({"spec": {"hostNetwork": True}}, "podTemplate.spec.hostNetwork"),
        (
            {"spec": {"containers": [{"name": "server", "ports": [{"containerPort": 99999}]}]}},
            "podTemplate.spec.containers",
        ),
    ],
)
def test_a_pod_template_that_cannot_be_is_named_and_others_go_on(
    served: Served, name: str, template: dict[str, Any], named: str
) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name, podTemplate=template), custom(f"{name}-other"), namespace=namespace)
    message = wait_for_stall(where, namespace, name, "InvalidSpec")
    assert named in message
    shown = conditions(where, namespace, name)
    assert shown["Accepted"][0] == "False"
    assert where.phase(name, namespace) == "Failed"
    assert where.get("deployment", name, namespace) is None
    wait_for_children(where, namespace, f"{name}-other")
    patch(where, namespace, name, {"spec": {"podTemplate": None}})
    wait_for_phase(where, namespace, name, "Pending")
    assert conditions(where, namespace, name)["Accepted"][0] == "True"
    assert "Stalled" not in conditions(where, namespace, name)


def test_a_running_generation_goes_on_when_the_next_one_is_invalid(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    before = wait_for_children(where, namespace, name)["deployment"]
    patch(where, namespace, name, {"spec": {"podTemplate": {"spec": {"hostPID": True}}}})
    wait_for_stall(where, namespace, name, "InvalidSpec")
    after = where.get("deployment", name, namespace)
    assert after is not None
    assert after["spec"] == before["spec"]


def test_news_that_repeat_are_one_event_with_a_higher_count(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    wait_for_children(where, namespace, name)

    def told() -> list[int]:
        found = where.list("event", namespace)
        mine = [e for e in found if e["involvedObject"]["name"] == name and e["involvedObject"]["kind"] == "Model"]
        return [e["count"] for e in mine if e["reason"] == "Stopped"]

    for count in (1, 2, 3):
        patch(where, namespace, name, {"spec": {"state": "Stopped"}})
        wait_for_phase(where, namespace, name, "Stopped")
        eventually(lambda count=count: told() == [count], 10, f"one Event, counted {count}")  # type: ignore[misc]
        patch(where, namespace, name, {"spec": {"state": "Running"}})
        wait_for_phase(where, namespace, name, "Pending")
    shown = where.kubectl("-n", namespace, "describe", "model", name).stdout
    assert "Stopped" in shown


def test_rights_in_one_namespace_are_enough(where: Cluster, namespace: str, start_operator: Start) -> None:
    where.kubectl("delete", "clusterrolebinding", f"berth-operator-nodes-{namespace}")
    operator = start_operator()
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    assert "Nodes may not be listed" in operator.log.read_text()
    assert operator.metric("berth_watch_restarts_total") == 0
