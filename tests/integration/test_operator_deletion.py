"""The end of Models, with and without an operator, and what comes after it."""

from collections.abc import Callable

import pytest

from support.kube import Cluster, eventually
from support.models import (
    KINDS,
    Served,
    children,
    custom,
    pods,
    settle,
    stays,
    versions,
    wait_for_children,
    wait_for_phase,
)
from support.operator_process import OperatorProcess

pytestmark = pytest.mark.control_plane
Start = Callable[..., OperatorProcess]


def _uid(where: Cluster, kind: str, name: str, namespace: str) -> str:
    found = where.get(kind, name, namespace)
    assert found is not None, f"no {kind} {name}"
    return str(found["metadata"]["uid"])


def _owner(where: Cluster, kind: str, name: str, namespace: str) -> str:
    found = where.get(kind, name, namespace)
    assert found is not None, f"no {kind} {name}"
    owners = found["metadata"].get("ownerReferences") or [{"uid": ""}]
    return str(owners[0]["uid"])


def test_a_model_deleted_while_no_operator_runs_leaves_nothing(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    operator = start_operator()
    where.apply(custom("a", replicas=2), namespace=namespace)
    wait_for_children(where, namespace, "a")
    eventually(lambda: where.get("pdb", "a", namespace) and len(pods(where, namespace, "a")) == 2, 20)
    operator.stop()
    where.kubectl("-n", namespace, "delete", "model", "a", "--timeout=10s")
    eventually(lambda: not children(where, namespace, "a") and not pods(where, namespace, "a"), 30, "nothing is left")


def test_a_deleted_model_leaves_nothing_and_nothing_is_made_again(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    wait_for_children(where, namespace, name)
    where.kubectl("-n", namespace, "delete", "model", name, "--timeout=10s")
    eventually(lambda: not children(where, namespace, name) and not pods(where, namespace, name), 30)
    stays(lambda: children(where, namespace, name), 1)


def test_a_model_deleted_in_the_foreground_gets_nothing_applied_meanwhile(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    wait_for_children(where, namespace, name)
    where.kubectl("-n", namespace, "delete", "model", name, "--cascade=foreground", "--timeout=30s")
    assert where.get("model", name, namespace) is None
    # Our ownerReferences block no deletion, so the Model may go before its objects.
    eventually(lambda: not children(where, namespace, name), 20, "nothing is left")
    stays(lambda: children(where, namespace, name), 1)


def test_a_model_made_anew_works_at_once_though_the_old_objects_still_go(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    before = wait_for_children(where, namespace, name)
    where.kubectl("-n", namespace, "delete", "model", name)
    where.apply(custom(name, image="registry.invalid/server:2"), namespace=namespace)
    uid = _uid(where, "model", name, namespace)

    def replaced() -> None:
        for kind in KINDS:
            assert _owner(where, kind, name, namespace) == uid, kind
            assert _uid(where, kind, name, namespace) != before[kind]["metadata"]["uid"], kind

    eventually(lambda: replaced() or True, 30)
    wait_for_phase(where, namespace, name, "Pending")
    stays(lambda: {kind: _uid(where, kind, name, namespace) for kind in KINDS}, 1.5)


def test_a_model_made_anew_waits_for_an_old_object_that_a_finalizer_holds(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    wait_for_children(where, namespace, name)
    finalizer = '{"metadata":{"finalizers":%s}}'
    where.kubectl("-n", namespace, "patch", "service", name, "--type=merge", "-p", finalizer % '["example.com/hold"]')
    where.kubectl("-n", namespace, "delete", "model", name)
    eventually(lambda: (where.get("service", name, namespace) or {})["metadata"].get("deletionTimestamp"), 20)
    where.apply(custom(name), namespace=namespace)
    uid = _uid(where, "model", name, namespace)
    eventually(lambda: _owner(where, "deployment", name, namespace) == uid, 20, "the rest is made meanwhile")
    assert _owner(where, "service", name, namespace) != uid
    where.kubectl("-n", namespace, "patch", "service", name, "--type=merge", "-p", finalizer % "null")
    eventually(lambda: _owner(where, "service", name, namespace) == uid, 20, "the Service follows")


def test_a_model_made_anew_adopts_what_was_orphaned_on_purpose(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    operator = start_operator()
    where.apply(custom("a"), namespace=namespace)
    before = wait_for_children(where, namespace, "a")
    eventually(lambda: pods(where, namespace, "a"))
    old_pods = {pod["metadata"]["uid"] for pod in pods(where, namespace, "a")}
    settle(operator)
    where.kubectl("-n", namespace, "delete", "model", "a", "--cascade=orphan")
    eventually(lambda: all(not _owner(where, kind, "a", namespace) for kind in KINDS), 20, "orphans")
    where.apply(custom("a"), namespace=namespace)
    uid = _uid(where, "model", "a", namespace)
    eventually(lambda: all(_owner(where, kind, "a", namespace) == uid for kind in KINDS), 20, "adopted")
    for kind in KINDS:
        assert _uid(where, kind, "a", namespace) == before[kind]["metadata"]["uid"]
    assert {pod["metadata"]["uid"] for pod in pods(where, namespace, "a")} == old_pods
    wait_for_phase(where, namespace, "a", "Pending")
    settle(operator)
    stays(lambda: (operator.writes(), versions(where, namespace)), 1)
