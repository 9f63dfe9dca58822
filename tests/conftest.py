"""Fixtures: clusters that are shared by the whole run, a namespace and an operator for each test."""

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.kube import Cluster, eventually, install_crds
from support.operator_process import OperatorProcess, grant

ROOT = Path(__file__).resolve().parents[1]
PREFIX = os.environ.get("BERTH_TEST_CLUSTERS", "test")
"""How the names of the clusters begin: runs side by side take different ones."""


def _cluster(name: str, *, control_plane: bool, crds: bool = True) -> Iterator[Cluster]:
    from localcluster import api

    existed = api.exists(name)
    made = api.ensure(name, control_plane=control_plane)
    shared = Cluster(name, Path(made.kubeconfig), Path(made.kubectl))
    if crds:
        install_crds(shared)
    yield shared
    if not existed and not os.environ.get("BERTH_KEEP_CLUSTERS"):
        api.delete(name)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """A real API server, controller manager and scheduler with Berth's CRDs, without nodes."""
    yield from _cluster(f"{PREFIX}-api", control_plane=True)


@pytest.fixture
def lone_control_plane() -> Iterator[Cluster]:
    """A control plane like it that nobody else uses, for a test that takes the CRDs away."""
    yield from _cluster(f"{PREFIX}-lone", control_plane=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real cluster with a node that runs Pods and has 4 GPUs of its device plugin, with Berth's CRDs."""
    yield from _cluster(f"{PREFIX}-node", control_plane=False)


@pytest.fixture(scope="module")
def bare_cluster() -> Iterator[Cluster]:
    """A cluster with a node and nothing of Berth, for tests that install it; they leave it as they found it."""
    yield from _cluster(f"{PREFIX}-bare", control_plane=False, crds=False)


@pytest.fixture(scope="session")
def gpu_node_cluster() -> Iterator[Cluster]:
    """A cluster like `cluster`, for operators that serve all of it."""
    yield from _cluster(f"{PREFIX}-gpus", control_plane=False)


@pytest.fixture(scope="session")
def two_node_cluster() -> Iterator[Cluster]:
    """A cluster like `cluster`, with a simulated node of 8 GPUs of another product beside the real one."""
    from localcluster import api

    name = f"{PREFIX}-two"
    for made in _cluster(name, control_plane=False):
        if not any(node["metadata"]["name"].startswith("simulated-") for node in made.list("node", None, "")):
            api.add_nodes(name, 1)
        yield made


@pytest.fixture(scope="session")
def gpu_cluster() -> Iterator[Cluster]:
    """A control plane like `control_plane`, and what plays the kubelets of simulated nodes: see support/gpu_fleet."""
    from localcluster import api

    name = f"{PREFIX}-gpus"
    for made in _cluster(name, control_plane=True):
        api.add_nodes(name, 0)
        yield made


@pytest.fixture(scope="session")
def crds_installed(control_plane: Cluster) -> Cluster:
    """The control plane, by another name for tests of the CRDs."""
    return control_plane


@pytest.fixture
def where(request: pytest.FixtureRequest) -> Cluster:
    """The cluster that the test's marker asks for."""
    name = "cluster" if request.node.get_closest_marker("cluster") else "control_plane"
    found: Cluster = request.getfixturevalue(name)
    return found


@pytest.fixture
def namespace(where: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    where.kubectl("create", "namespace", name)
    eventually(lambda: where.get("serviceaccount", "default", name), 30, "the default ServiceAccount")
    yield name
    where.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


@pytest.fixture
def start_operator(where: Cluster, namespace: str, tmp_path: Path) -> Iterator[Callable[..., OperatorProcess]]:
    """Starts operators for the test's namespace; they are stopped after the test."""
    grant(where, namespace)
    started: list[OperatorProcess] = []

    def start(*flags: str, kubeconfig: Path | None = None, wait_until_leading: bool = True) -> OperatorProcess:
        process = OperatorProcess(where, namespace, tmp_path, *flags, kubeconfig=kubeconfig)
        started.append(process)
        return process.start(wait_until_leading=wait_until_leading)

    yield start
    for process in started:
        process.stop()


@pytest.fixture
def operator(start_operator: Callable[..., OperatorProcess]) -> OperatorProcess:
    """An operator for the test's namespace, with patience short enough for tests."""
    return start_operator("--crash-budget", "2", "--refusal-interval", "2")
