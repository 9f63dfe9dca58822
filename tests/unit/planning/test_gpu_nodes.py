"""Every Node with GPUs gets a GPUNode, once, and it goes with the Node."""

from dataclasses import replace
from typing import Any

import pytest

from berth.planning.gpu_nodes import GpuNodeWorld, decide_gpu_node, has_gpus, render_gpu_node
from berth.planning.nodes import Node, node_from
from berth.planning.plan import Apply, Plan
from berth.planning.world import child_from
from support import builders


def node(**options: Any) -> Node:
    return node_from(builders.node(**options))


def observed(made_for: Node, **changes: Any) -> Any:
    manifest = render_gpu_node(made_for)
    metadata = {**manifest["metadata"], "uid": "gpu-node", "resourceVersion": "7", **changes}
    return child_from({**manifest, "metadata": metadata, "status": {"observedGeneration": -1}})


def test_a_node_with_gpus_gets_a_gpu_node_that_it_owns() -> None:
    (made,) = decide_gpu_node(GpuNodeWorld(node(name="a", gpus=8))).changes
    assert isinstance(made, Apply)
    assert made.manifest["metadata"]["name"] == "a"
    assert made.manifest["metadata"]["ownerReferences"][0]["uid"] == "node-a"
    assert "status" not in made.manifest


def test_nothing_to_do_writes_nothing() -> None:
    gpus = node(name="a", gpus=8)
    assert decide_gpu_node(GpuNodeWorld(gpus, observed(gpus))) == Plan()


def test_a_node_without_gpus_gets_none() -> None:
    assert decide_gpu_node(GpuNodeWorld(node(name="a"))) == Plan()


def test_a_node_of_the_same_name_takes_the_gpu_node_over() -> None:
    old, new = node(name="a", gpus=8), replace(node(name="a", gpus=8), uid="another")
    (made,) = decide_gpu_node(GpuNodeWorld(new, observed(old))).changes
    assert isinstance(made, Apply)
    assert made.manifest["metadata"]["ownerReferences"][0]["uid"] == "another"
    assert made.manifest["metadata"]["resourceVersion"] == "7"


def test_one_that_is_about_to_go_is_left_alone() -> None:
    gpus = node(name="a", gpus=8)
    assert decide_gpu_node(GpuNodeWorld(gpus, observed(gpus, deletionTimestamp=builders.ago()))) == Plan()


@pytest.mark.parametrize(
    ("allocatable", "labels", "expected"),
    [
        ({"nvidia.com/gpu": "4"}, {}, True),
        ({"nvidia.com/gpu": "0"}, {}, False),
        ({"nvidia.com/mig-3g.40gb": "2"}, {}, True),
        ({"cpu": "8"}, {"nvidia.com/gpu.present": "true"}, True),
        ({"cpu": "8"}, {}, False),
    ],
)
def test_gpus_are_what_the_node_offers_or_is_labelled_with(
    allocatable: dict[str, str], labels: dict[str, str], expected: bool
) -> None:
    assert has_gpus(replace(node(), allocatable=allocatable, labels=labels)) is expected
