"""What an agent may do in the cluster: read and write the status of its own node's GPUNode, and nothing else."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support import agents
from support.kube import Cluster

pytestmark = pytest.mark.control_plane

STATUS = {"status": {"observedGeneration": 1, "driverVersion": "580.65.06"}}


@pytest.fixture(scope="module")
def nodes(control_plane: Cluster) -> Iterator[tuple[str, str]]:
    """Two nodes with their GPUNodes. Nothing runs on them; a token only has to be bound to a Pod there."""
    agents.install(control_plane)
    names = tuple(f"gpu-{uuid.uuid4().hex[:8]}" for _ in range(2))
    for name in names:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        control_plane.apply(node, agents.gpu_node(name))
    yield names[0], names[1]
    for name in names:
        control_plane.kubectl("delete", "node/" + name, "gpunode/" + name, "--wait=false")


@pytest.fixture(scope="module")
def agent(control_plane: Cluster, nodes: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster as the agent of the first node reaches it."""
    return replace(control_plane, kubeconfig=agents.login(control_plane, nodes[0], tmp_path_factory.mktemp("agent")))


def patch(cluster: Cluster, name: str, *flags: str, body: object = STATUS) -> tuple[int, str]:
    done = cluster.kubectl(
        "patch", "gpunode", name, *flags, "--type=merge", "-p", json.dumps(body), "--v=0", check=False
    )
    return done.returncode, done.stderr


def test_it_writes_the_status_of_its_own_node(control_plane: Cluster, agent: Cluster, nodes: tuple[str, str]) -> None:
    assert patch(agent, nodes[0], "--subresource=status") == (0, "")
    assert agents.read(control_plane, nodes[0])["driverVersion"] == "580.65.06"
    done = agent.kubectl("get", "gpunode", nodes[0], "--subresource=status", "-o", "jsonpath={.status.driverVersion}")
    assert done.stdout == "580.65.06"


def test_that_of_another_node_is_refused_with_both_names(
    control_plane: Cluster, agent: Cluster, nodes: tuple[str, str]
) -> None:
    code, error = patch(agent, nodes[1], "--subresource=status")
    assert code != 0
    assert f"the agent of node {nodes[0]} may not write the GPUNode {nodes[1]}" in error
    assert agents.read(control_plane, nodes[1]) == {"observedGeneration": -1}


def test_a_token_that_names_no_node_writes_nothing(
    control_plane: Cluster, nodes: tuple[str, str], tmp_path: Path
) -> None:
    token = control_plane.kubectl("-n", agents.NAMESPACE, "create", "token", agents.ACCOUNT).stdout.strip()
    free = replace(control_plane, kubeconfig=agents.write_kubeconfig(control_plane, token, tmp_path / "free"))
    code, error = patch(free, nodes[0], "--subresource=status")
    assert code != 0
    assert "this token names none" in error


def test_others_are_not_concerned(control_plane: Cluster, nodes: tuple[str, str]) -> None:
    assert patch(control_plane, nodes[1], "--subresource=status", body={"status": {"driverVersion": None}})[0] == 0
    assert patch(control_plane, nodes[1], body={"metadata": {"labels": {"by": "admin"}}})[0] == 0


@pytest.mark.parametrize(
    "question",
    [
        ("patch", "gpunodes"),
        ("create", "gpunodes"),
        ("delete", "gpunodes"),
        ("list", "gpunodes"),
        ("update", "gpunodes", "--subresource=status"),
        ("get", "pods", "-A"),
        ("get", "secrets", "-A"),
        ("get", "nodes"),
        ("get", "models.berth.dev", "-A"),
        ("patch", "models.berth.dev", "-A", "--subresource=status"),
    ],
    ids=" ".join,
)
def test_it_has_no_other_right(agent: Cluster, question: tuple[str, ...]) -> None:
    assert agent.kubectl("auth", "can-i", *question, check=False).stdout.strip() == "no"
