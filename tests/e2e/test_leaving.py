"""Servers that run while their Model, or the operator, goes and comes back: on a real node."""

import os
import subprocess
import sys

import pytest

from support.kube import eventually
from support.load import Requests
from support.models import Served, children, conditions, pods, wait_for_phase
from support.operator_process import ROOT
from support.servers import address, llama, reachable

pytestmark = pytest.mark.cluster


def uninstall(served: Served, *flags: str) -> subprocess.CompletedProcess[str]:
    namespace = served.namespace
    here = ("--kubeconfig", str(served.cluster.kubeconfig), "--namespace", namespace, "--served-namespace", namespace)
    return subprocess.run(
        [sys.executable, "-m", "berth", "uninstall", *here, *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        timeout=120,
    )


def owners(served: Served, name: str) -> set[str]:
    found = children(served.cluster, served.namespace, name).values()
    return {owner["uid"] for child in found for owner in child["metadata"].get("ownerReferences") or ()}


def starts(served: Served, name: str) -> list[tuple[str, int, str]]:
    """uid of each Pod, how often its server was restarted, and since when it runs."""
    return [
        (pod["metadata"]["uid"], status["restartCount"], status["state"]["running"]["startedAt"])
        for pod in pods(served.cluster, served.namespace, name)
        for status in pod["status"]["containerStatuses"]
    ]


def test_a_server_answers_through_the_end_of_its_model_and_its_return(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    made = llama(name, gpus=1)
    where.apply(made, namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 90)
    before = starts(served, name)
    url = address(where, namespace, name)
    reachable(url)
    with Requests(url, 2, 20) as load:
        where.kubectl("-n", namespace, "delete", "model", name, "--cascade=orphan")
        eventually(lambda: not owners(served, name), 60, "orphans")
        where.apply(made, namespace=namespace)
        found = wait_for_phase(where, namespace, name, "Ready", 60)
        eventually(lambda: owners(served, name) == {found["metadata"]["uid"]}, 30, "adopted")
        answered = load.completed
        eventually(lambda: load.completed > answered, 30, "answers still come")
    assert [one for one in load.endings if one.failure] == []
    assert starts(served, name) == before


def test_servers_finish_their_requests_before_berth_is_uninstalled(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    patient = {"drainTimeout": "60s", "gracePeriod": "2s"}
    where.apply(llama(name, gpus=1, shutdown=patient), namespace=namespace)
    wait_for_phase(where, namespace, name, "Ready", 90)
    url = address(where, namespace, name)
    reachable(url)
    try:
        with Requests(url, 2, 50) as load:
            eventually(lambda: load.completed, 30, "answers")
            ended = uninstall(served, "--timeout", "90")
        assert ended.returncode == 0, ended.stderr
        assert f"{namespace}/{name} (Draining)" in ended.stdout
        assert conditions(where, namespace, name)["Ready"][:2] == ("True", "OperatorUninstalling")
        assert pods(where, namespace, name) == []
        assert load.cut == []
    finally:
        assert uninstall(served, "--undo").returncode == 0
    wait_for_phase(where, namespace, name, "Ready", 90)
