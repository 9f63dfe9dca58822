"""Leaving: Models go on without an operator, stop where that is wished, and nothing hangs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.caches import cache
from support.kube import Cluster, eventually
from support.models import (
    Manifest,
    conditions,
    custom,
    pods,
    pretend_ready,
    settle,
    stays,
    wait_for_children,
    wait_for_phase,
)
from support.operator_process import ROOT, OperatorProcess, grant

pytestmark = pytest.mark.control_plane
Start = Callable[..., OperatorProcess]
CONFIG_MAP = "berth-operator"


def rights(cluster: Cluster, namespace: str, folder: Path) -> Path:
    """A login with exactly what docs/uninstalling.md asks for, in one namespace."""
    account = {"name": "leaver", "namespace": namespace}
    where = {"name": "leaver", "namespace": namespace}
    rbac = "rbac.authorization.k8s.io"
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "Role",
            "metadata": where,
            "rules": [
                {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
                {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [CONFIG_MAP], "verbs": ["patch"]},
                {"apiGroups": ["berth.dev"], "resources": ["models"], "verbs": ["list"]},
            ],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": where,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "leaver"},
            "subjects": [{"kind": "ServiceAccount", **account}],
        },
    )
    return cluster.token_kubeconfig(namespace, "leaver", folder / "leaver.kubeconfig")


@pytest.fixture
def uninstall(where: Cluster, namespace: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`berth uninstall` in the test's namespace."""
    login = rights(where, namespace, tmp_path)

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        here = ("--kubeconfig", str(login), "--namespace", namespace, "--served-namespace", namespace)
        return subprocess.run(
            [sys.executable, "-m", "berth", "uninstall", *here, *flags],
            env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
            capture_output=True,
            text=True,
            timeout=90,
        )

    return run


def serve(where: Cluster, namespace: str, name: str) -> None:
    """A Model whose server answers, as far as anybody can tell."""
    where.apply(custom(name), namespace=namespace)
    eventually(lambda: pods(where, namespace, name), 30)
    pretend_ready(where, namespace, name)
    wait_for_phase(where, namespace, name, "Ready")


def wish(where: Cluster, namespace: str, value: str) -> None:
    metadata = {"name": CONFIG_MAP, "namespace": namespace}
    where.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"stopModels": value}})


def why(where: Cluster, namespace: str, name: str) -> str:
    return conditions(where, namespace, name).get("Ready", ("", "", ""))[1]


def replicas(where: Cluster, namespace: str, name: str) -> int:
    deployment = where.get("deployment", name, namespace)
    assert deployment is not None
    return int(deployment["spec"]["replicas"])


def test_all_models_are_stopped_before_the_operator_goes_and_come_back_with_it(
    where: Cluster, namespace: str, start_operator: Start, uninstall: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    operator = start_operator()
    serve(where, namespace, "a")
    where.apply(custom("b", state="Stopped"), custom("c"), namespace=namespace)
    eventually(lambda: pods(where, namespace, "c") and why(where, namespace, "b") == "StoppedByUser", 30)
    ended = uninstall("--timeout", "60")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == f"ConfigMap {namespace}/{CONFIG_MAP}: all Models are to stop"
    assert f"{namespace}/a (Ready)" in lines[1]
    assert lines[-1] == "3 of 3 Models are stopped"
    assert [why(where, namespace, name) for name in "abc"] == [
        "OperatorUninstalling",
        "StoppedByUser",
        "OperatorUninstalling",
    ]
    assert [pods(where, namespace, name) for name in "abc"] == [[], [], []]
    settle(operator)
    where.kubectl("-n", namespace, "delete", "configmap", CONFIG_MAP)
    stays(lambda: (replicas(where, namespace, "a"), operator.writes()), 5)
    operator.stop()
    start_operator()
    stays(lambda: replicas(where, namespace, "a"), 3)
    wish(where, namespace, "false")
    eventually(lambda: pods(where, namespace, "a") and pods(where, namespace, "c"), 30, "they are back")
    assert not pods(where, namespace, "b")


def test_a_wish_is_taken_back(
    where: Cluster, namespace: str, start_operator: Start, uninstall: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    start_operator()
    serve(where, namespace, "a")
    assert uninstall("--timeout", "60").returncode == 0
    ended = uninstall("--undo")
    assert (ended.returncode, ended.stderr) == (0, "")
    eventually(lambda: pods(where, namespace, "a"), 30, "it is back")


def test_without_an_operator_the_models_that_are_left_are_named(
    where: Cluster, namespace: str, start_operator: Start, uninstall: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    operator = start_operator()
    serve(where, namespace, "a")
    operator.stop()
    ended = uninstall("--timeout", "2")
    assert ended.returncode == 1
    assert f"not stopped after 2 s: {namespace}/a (Ready). Is the operator running?" in ended.stderr


def test_servers_of_a_spec_that_became_invalid_stop_as_well(
    where: Cluster, namespace: str, start_operator: Start, uninstall: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    start_operator()
    serve(where, namespace, "a")
    where.apply(custom("a", podTemplate={"spec": {"nodeName": "n1"}}), namespace=namespace)
    wait_for_phase(where, namespace, "a", "Failed")
    assert pods(where, namespace, "a")
    ended = uninstall("--timeout", "60")
    assert ended.returncode == 0, ended.stderr
    eventually(lambda: not pods(where, namespace, "a"), 20)


def test_an_operator_that_may_not_read_its_config_map_says_so_and_works(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    operator = start_operator("--config-map", "another-name")
    where.apply(custom("a"), namespace=namespace)
    wait_for_children(where, namespace, "a")
    assert operator.log.read_text().count("an uninstallation would not be noticed") == 1


def test_models_serve_on_when_the_operator_goes_without_a_word(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    operator = start_operator()
    serve(where, namespace, "a")
    operator.stop()
    stays(lambda: [pod["metadata"]["uid"] for pod in pods(where, namespace, "a")], 2)


# ---- nothing hangs -------------------------------------------------------------------------------------------


def everything(where: Cluster, namespace: str) -> None:
    """Models and a ModelCache, with all that belongs to them."""
    serve(where, namespace, "a")
    uri = "https://models.invalid/tiny.gguf"
    retained = cache("store", storage={"size": "1Gi"}, artifacts=[{"uri": uri}])
    where.apply(custom("b", replicas=2), retained, namespace=namespace)
    eventually(lambda: where.get("pdb", "b", namespace) and where.list("job", namespace), 30)


def finalizers(where: Cluster, namespace: str) -> dict[str, list[str]]:
    """Of everything that Berth writes; Kubernetes itself guards claims in use, and the Pods of Jobs."""
    kinds = ("model", "modelcache", "deployment", "service", "networkpolicy", "pdb", "job")
    items: list[Manifest] = [item for kind in kinds for item in where.list(kind, namespace)]
    return {
        f"{item.get('kind', '')}{item['metadata']['name']}": item["metadata"]["finalizers"]
        for item in items
        if item["metadata"].get("finalizers")
    }


def test_a_namespace_is_deleted_though_no_operator_is_there(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    operator = start_operator()
    everything(where, namespace)
    assert finalizers(where, namespace) == {}
    operator.kill()
    where.kubectl("delete", "namespace", namespace, "--timeout=90s")
    assert where.get("namespace", namespace) is None


def garbage_is_collected(where: Cluster, namespace: str) -> None:
    """Kubernetes looks for new kinds twice a minute: before that it knows no owners of these kinds."""
    for made in (custom("probe"), cache("probe")):
        where.apply(made, namespace=namespace)
    eventually(lambda: where.get("networkpolicy", "modelcache-probe", namespace), 30)
    wait_for_children(where, namespace, "probe")
    where.kubectl("-n", namespace, "delete", "model/probe", "modelcache/probe")
    eventually(lambda: where.get("deployment", "probe", namespace) is None, 90, "the garbage collector knows Models")
    eventually(lambda: where.get("networkpolicy", "modelcache-probe", namespace) is None, 90, "… and ModelCaches")


def test_the_crds_are_deleted_though_no_operator_is_there(lone_control_plane: Cluster, tmp_path: Path) -> None:
    where, namespace = lone_control_plane, "leaving"
    where.kubectl("create", "namespace", namespace)
    eventually(lambda: where.get("serviceaccount", "default", namespace), 30)
    grant(where, namespace)
    operator = OperatorProcess(where, namespace, tmp_path)
    try:
        operator.start()
        everything(where, namespace)
        garbage_is_collected(where, namespace)
    finally:
        operator.kill()
    where.kubectl("delete", "-f", str(ROOT / "crds"), "--timeout=60s")
    crds = json.loads(where.kubectl("get", "crds", "-o", "json").stdout)["items"]
    assert [crd["metadata"]["name"] for crd in crds if crd["spec"]["group"] == "berth.dev"] == []
    kinds = ("deployment", "service", "networkpolicy", "pdb", "job", "pod")
    eventually(lambda: not any(where.list(kind, namespace) for kind in kinds), 60, "the children go with their Models")
    assert where.get("persistentvolumeclaim", "modelcache-store", namespace) is not None, "data stays"
    where.kubectl("delete", "namespace", namespace, "--timeout=60s")
