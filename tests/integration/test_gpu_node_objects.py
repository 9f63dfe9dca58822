"""GPUNodes on a real API server: made for Nodes with GPUs, and gone with them."""

import uuid
from collections.abc import Callable

import pytest

from support.kube import Cluster, eventually
from support.models import settle
from support.operator_process import OperatorProcess

pytestmark = pytest.mark.control_plane


def test_a_node_with_gpus_has_a_gpu_node_as_long_as_it_exists(
    where: Cluster, namespace: str, start_operator: Callable[..., OperatorProcess]
) -> None:
    operator = start_operator()
    name = f"gpu-{uuid.uuid4().hex[:8]}"
    labels = {"nvidia.com/gpu.present": "true"}
    made = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    where.apply({**made, "spec": {"unschedulable": True}})
    try:
        found = eventually(lambda: where.get("gpunode", name), 20, "the GPUNode")
        assert found is not None
        assert found["metadata"]["ownerReferences"][0]["name"] == name
        assert found["status"]["observedGeneration"] == -1
        settle(operator)
    finally:
        where.kubectl("delete", "node", name)
    eventually(lambda: where.get("gpunode", name) is None, 40, "the GPUNode goes with its Node")
