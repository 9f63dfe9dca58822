"""Several operators: one leads, another follows it, and none of them undoes what the other did."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from support.kube import Cluster, eventually
from support.models import Served, custom, patch, settle, stays, versions, wait_for_children
from support.operator_process import OperatorProcess
from support.proxy_thread import ProxyThread

pytestmark = pytest.mark.control_plane
Start = Callable[..., OperatorProcess]
Proxied = Callable[..., tuple[OperatorProcess, ProxyThread]]


def _get(operator: OperatorProcess, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_one_of_two_operators_leads_and_both_are_ready(where: Cluster, namespace: str, start_operator: Start) -> None:
    first = start_operator()
    second = start_operator(wait_until_leading=False)
    eventually(lambda: _get(second, "/readyz") == (200, "ok\n"), 20, "a standby that is ready")
    assert _get(second, "/healthz") == (200, "ok\n")
    assert _get(first, "/readyz") == _get(first, "/healthz") == (200, "ok\n")
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    assert (first.metric("berth_leading"), second.metric("berth_leading")) == (1, 0)
    assert second.writes() == 0
    # A clean stop gives the Lease back: nobody waits until it expires.
    began = time.monotonic()
    first.stop()
    eventually(lambda: second.metric("berth_leading") == 1, 10, "the standby leads")
    assert time.monotonic() - began < 8
    where.apply(custom("b"), namespace=namespace)
    wait_for_children(where, namespace, "b")


def test_another_takes_over_from_a_leader_that_was_killed(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    first = start_operator()
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    settle(first)
    second = start_operator(wait_until_leading=False)
    first.kill()
    where.apply(custom("b"), namespace=namespace)
    before = versions(where, namespace)
    eventually(lambda: second.metric("berth_leading") == 1, 30, "the other leads")
    wait_for_children(where, namespace, "b")
    after = versions(where, namespace)
    assert {key: after[key] for key in before if key[1] == "a"} == {k: v for k, v in before.items() if k[1] == "a"}


def test_a_leader_that_is_cut_off_ends_and_undoes_nothing(
    where: Cluster, namespace: str, start_operator: Start, proxied: Proxied
) -> None:
    first, proxy = proxied()
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    settle(first)
    second = start_operator(wait_until_leading=False)
    proxy.do(lambda p: p.hold())  # its requests hang: nobody tells it anything
    proxy.do(lambda p: p.hold_watches())
    eventually(lambda: second.metric("berth_leading") == 1, 40, "the other leads")
    eventually(first.ended, 1, "the first had ended before")
    patch(where, namespace, "a", {"spec": {"replicas": 2}})
    eventually(lambda: where.get("pdb", "a", namespace), 20)
    settle(second)
    stays(lambda: versions(where, namespace), 1)


def test_metrics_tell_of_requests_reconciliations_and_phases(served: Served, name: str) -> None:
    served.cluster.apply(custom(name, state="Stopped"), namespace=served.namespace)
    eventually(lambda: served.operator.metric("berth_models", phase="Stopped") >= 1, 20, "a Model that is counted")
    assert served.operator.metric("berth_reconciles_total", result="done") > 0
    assert served.operator.metric("berth_kubernetes_requests_total", verb="apply", resource="models", status="200") > 0
    assert served.operator.metric("berth_model_transitions_total", to_phase="Stopped") >= 1
    status, text = _get(served.operator, "/metrics")
    assert status == 200
    assert "berth_reconcile_seconds_bucket" in text
