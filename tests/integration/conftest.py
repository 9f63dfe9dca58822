"""One operator for all tests that need nothing special of it."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.gpu_fleet import Fleet, Pool
from support.kube import Cluster, eventually
from support.models import Served
from support.operator_process import OperatorProcess, grant
from support.proxy_thread import ProxyThread


@pytest.fixture(scope="session")
def served(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The shared namespace and operator: take a name of your own and leave the others alone."""
    namespace = f"t-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", namespace)
    grant(control_plane, namespace)
    eventually(lambda: control_plane.get("serviceaccount", "default", namespace), 30, "the default ServiceAccount")
    operator = OperatorProcess(
        control_plane, namespace, tmp_path_factory.mktemp("served"), "--refusal-interval", "1", "--crash-budget", "2"
    )
    try:
        yield Served(control_plane, namespace, operator.start())
    finally:
        operator.stop()
        control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"m-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def proxied(
    where: Cluster, namespace: str, start_operator: Callable[..., OperatorProcess], tmp_path: Path
) -> Iterator[Callable[..., tuple[OperatorProcess, ProxyThread]]]:
    """Starts an operator behind a fault proxy."""
    made: list[tuple[ProxyThread, OperatorProcess]] = []

    def start(*flags: str) -> tuple[OperatorProcess, ProxyThread]:
        folder = tmp_path / f"proxy-{len(made)}"
        folder.mkdir()
        login = where.token_kubeconfig(namespace, "berth-operator", folder / "login.kubeconfig")
        proxy = ProxyThread(login, folder).__enter__()
        operator = start_operator(*flags, kubeconfig=proxy.kubeconfig, wait_until_leading=False)
        made.append((proxy, operator))
        eventually(lambda: operator.metric("berth_leading") == 1.0, 45, "the operator leads")
        return operator, proxy

    yield start
    for proxy, operator in made:
        operator.stop()
        proxy.__exit__()


FLEET_FLAGS = ("--no-node-after", "3", "--log-level", "debug")
"""Patience short enough for tests; the rest is as people have it."""


@pytest.fixture(scope="session")
def fleet(gpu_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """An operator that serves a whole cluster, so that it plans GPU capacity. Tests bring nodes of their own."""
    folder, home = tmp_path_factory.mktemp("fleet"), f"berth-{uuid.uuid4().hex[:6]}"
    gpu_cluster.kubectl("create", "namespace", home)
    grant(gpu_cluster, home, everywhere=True)
    started: list[OperatorProcess] = []

    def start(*, wait_until_leading: bool = True) -> OperatorProcess:
        process = OperatorProcess(gpu_cluster, home, folder, *FLEET_FLAGS, everywhere=True)
        started.append(process)
        return process.start(wait_until_leading=wait_until_leading)

    try:
        yield Fleet(gpu_cluster, start, start())
    finally:
        for process in started:
            process.stop()
        gpu_cluster.kubectl("delete", "clusterrolebinding", f"berth-operator-{home}", f"berth-operator-nodes-{home}")
        gpu_cluster.kubectl("delete", "namespace", home, "--wait=false")


@pytest.fixture
def pool_of(fleet: Fleet) -> Iterator[Callable[..., Pool]]:
    """Makes nodes and a namespace for one test."""
    made: list[Pool] = []

    def make(**more: Any) -> Pool:
        made.append(fleet.pool(**more))
        return made[-1]

    yield make
    for pool in made:
        pool.close()
