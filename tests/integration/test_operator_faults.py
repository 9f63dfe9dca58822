"""The operator behind an API server that fails: nothing ends it, and nothing stays unseen."""

from collections.abc import Callable

import pytest

from berth.controllers.sweep import WATCHED
from support.kube import Cluster, eventually
from support.models import (
    custom,
    patch,
    pods,
    settle,
    stays,
    versions,
    wait_for_children,
    wait_for_phase,
)
from support.operator_process import OperatorProcess
from support.proxy_thread import ProxyThread

pytestmark = pytest.mark.control_plane
Proxied = Callable[..., tuple[OperatorProcess, ProxyThread]]


def _watching(proxy: ProxyThread) -> None:
    eventually(lambda: proxy.do(lambda p: len(p.watches())) >= len(WATCHED), 30, "a watch of every kind")


def _still_sees(where: Cluster, namespace: str, operator: OperatorProcess, replicas: int) -> None:
    """A change made now is seen by the same process."""
    where.kubectl("-n", namespace, "scale", "model", "a", f"--replicas={replicas}")
    eventually(lambda: len(pods(where, namespace, "a")) == replicas, 30, f"{replicas} Pods")
    where.kubectl("-n", namespace, "delete", "service", "a", "--wait=false")
    eventually(lambda: where.get("service", "a", namespace), 30, "the Service is back")


def test_errors_in_watches_and_cut_watches_do_not_end_the_process(
    where: Cluster, namespace: str, proxied: Proxied
) -> None:
    operator, proxy = proxied()
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    _watching(proxy)

    proxy.do(lambda p: p.cut_watches())
    _still_sees(where, namespace, operator, 2)
    assert operator.metric("berth_watch_restarts_total") == 0

    _watching(proxy)
    proxy.do(lambda p: p.watch_error(410, reason="Expired"))
    _still_sees(where, namespace, operator, 3)
    assert operator.metric("berth_watch_restarts_total") == 0

    _watching(proxy)
    proxy.do(lambda p: p.watch_error(500, r"/models", message="etcdserver: no leader"))
    eventually(lambda: operator.metric("berth_watch_restarts_total") == 1, 30, "the watches are started again")
    _still_sees(where, namespace, operator, 2)

    _watching(proxy)
    proxy.do(lambda p: p.watch_error(500, message="etcdserver: no leader"))
    eventually(lambda: operator.metric("berth_watch_restarts_total") == 2, 30, "the watches are started again")
    _still_sees(where, namespace, operator, 1)
    assert operator.metric("berth_leading") == 1


def test_answers_500_and_429_are_tried_again(where: Cluster, namespace: str, proxied: Proxied) -> None:
    operator, proxy = proxied()
    broken = proxy.do(lambda p: p.fail(500, method="PATCH", path=r"/(deployments|services|models)/", times=4))
    busy = proxy.do(lambda p: p.fail(429, method="PATCH", path=r"/networkpolicies/", times=2, retry_after=0.2))
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    wait_for_phase(where, namespace, "a", "Pending")
    assert (broken.hits, busy.hits) == (4, 2)

    _watching(proxy)
    failing = proxy.do(lambda p: p.fail(500, method="GET", times=8))
    proxy.do(lambda p: p.cut_watches())
    eventually(lambda: failing.hits == 8, 30, "lists and watches that fail")
    _still_sees(where, namespace, operator, 2)


def test_an_answer_that_is_lost_is_no_second_object(where: Cluster, namespace: str, proxied: Proxied) -> None:
    operator, proxy = proxied()
    lost = proxy.do(
        lambda p: p.cut(method="PATCH", path=r"/(deployments|services|networkpolicies)/", times=3, after=True)
    )
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    wait_for_phase(where, namespace, "a", "Pending")
    assert lost.hits == 3
    assert where.get("deployment", "a", namespace)["metadata"]["generation"] == 1  # type: ignore[index]
    settle(operator)
    stays(lambda: (operator.writes(), versions(where, namespace)), 1)


def test_an_api_server_that_is_away_for_some_seconds_is_waited_for(
    where: Cluster, namespace: str, proxied: Proxied
) -> None:
    operator, proxy = proxied()
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    _watching(proxy)
    away = proxy.do(lambda p: p.cut())
    proxy.do(lambda p: p.cut_watches())
    where.apply(custom("b"), namespace=namespace)
    before = away.hits
    eventually(lambda: away.hits > before + 12, 30, "tries that meet nobody")
    assert where.get("deployment", "b", namespace) is None
    proxy.end(away)
    wait_for_children(where, namespace, "b")
    _still_sees(where, namespace, operator, 2)
    assert operator.metric("berth_leading") == 1


def test_what_vanished_while_the_watches_were_silent_is_noticed_by_the_sweep(
    where: Cluster, namespace: str, proxied: Proxied
) -> None:
    operator, proxy = proxied("--sweep-interval", "1")
    where.apply(custom("a"), namespace=namespace)
    before = wait_for_children(where, namespace, "a")
    settle(operator)
    _watching(proxy)
    assert proxy.do(lambda p: p.hold_watches(r"/services")) == 1
    where.kubectl("-n", namespace, "delete", "service", "a")
    made = eventually(lambda: where.get("service", "a", namespace), 30, "the Service is made anew")
    assert made["metadata"]["uid"] != before["service"]["metadata"]["uid"]
    assert operator.metric("berth_swept_objects_total", kind="Service") == 1
    # What the watch brings late, raises nothing from the dead.
    proxy.do(lambda p: p.resume_watches())
    stays(lambda: where.get("service", "a", namespace), 1.5)


def test_a_model_deleted_and_made_anew_while_the_watches_were_silent_is_the_new_one(
    where: Cluster, namespace: str, proxied: Proxied
) -> None:
    operator, proxy = proxied("--sweep-interval", "1")
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    settle(operator)
    _watching(proxy)
    proxy.do(lambda p: p.hold_watches())
    where.kubectl("-n", namespace, "delete", "model", "a", "--cascade=foreground")
    where.apply(custom("a", replicas=2), namespace=namespace)
    uid = where.get("model", "a", namespace)["metadata"]["uid"]  # type: ignore[index]

    def owned() -> bool:
        found = where.get("deployment", "a", namespace)
        return bool(found) and found["metadata"]["ownerReferences"][0]["uid"] == uid

    eventually(owned, 40, "the Deployment of the new Model")
    eventually(lambda: len(pods(where, namespace, "a")) == 2, 30)


def test_a_decision_on_an_outdated_view_undoes_nothing(where: Cluster, namespace: str, proxied: Proxied) -> None:
    """An operator whose watches are silent is told of a change only by the answers to its own writes."""
    operator, proxy = proxied()
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    settle(operator)
    _watching(proxy)
    proxy.do(lambda p: p.hold_watches(r"/deployments"))
    # Somebody else, such as another leader, writes what this operator does not see.
    patch(where, namespace, "a", {"metadata": {"annotations": {"example.com/unseen": "yes"}}}, "deployment")
    unseen = where.get("deployment", "a", namespace)
    assert unseen is not None
    where.kubectl("-n", namespace, "scale", "model", "a", "--replicas=2")
    eventually(lambda: operator.metric("berth_reconciles_total", result="stale") > 1, 20, "a refused decision")
    now = where.get("deployment", "a", namespace)
    assert now is not None
    assert now["metadata"]["annotations"] == unseen["metadata"]["annotations"]
    assert now["spec"] == unseen["spec"]
    proxy.do(lambda p: p.resume_watches())
    eventually(lambda: len(pods(where, namespace, "a")) == 2, 30, "it goes on once it sees again")
    after = where.get("deployment", "a", namespace)
    assert after is not None
    assert after["metadata"]["annotations"]["example.com/unseen"] == "yes"
