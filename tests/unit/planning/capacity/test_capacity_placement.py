"""Which nodes a Pod may go to by its own wishes."""

from typing import Any

import pytest

from berth.planning.capacity.eligibility import NodeIndex, positions
from berth.planning.capacity.placement import Placement, Taint, gpu_requests, placement_from
from berth.planning.capacity.world import Node
from support.gpu_clusters import node

A = node("a", labels={"zone": "x", "gen": "3"})
B = node("b", labels={"zone": "y", "gen": "10"})
C = node("c", labels={"gen": "new"})


def fits(placement: Placement, *nodes: Node) -> str:
    index = NodeIndex({one.name: one for one in nodes}, {one.name: {} for one in nodes})
    return "".join(index.names[number] for number in positions(index.eligible(placement)))


def affinity(*terms: list[dict[str, Any]], **more: Any) -> Placement:
    required = {"nodeSelectorTerms": [{"matchExpressions": term} for term in terms]}
    node_affinity = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    return placement_from({"affinity": {"nodeAffinity": node_affinity}, **more})


@pytest.mark.parametrize(
    ("key", "operator", "values", "expected"),
    [
        ("zone", "In", ["x", "z"], "a"),
        ("zone", "NotIn", ["x"], "bc"),
        ("zone", "Exists", [], "ab"),
        ("zone", "DoesNotExist", [], "c"),
        ("gen", "Gt", ["3"], "b"),
        ("gen", "Lt", ["10"], "a"),
        ("gen", "Gt", ["many"], ""),
        ("zone", "Near", ["x"], ""),
    ],
)
def test_node_affinity_is_what_kubernetes_makes_of_it(
    key: str, operator: str, values: list[str], expected: str
) -> None:
    assert fits(affinity([{"key": key, "operator": operator, "values": values}]), A, B, C) == expected


def test_requirements_of_a_term_hold_together_and_one_term_is_enough() -> None:
    term = [{"key": "zone", "operator": "Exists"}, {"key": "gen", "operator": "Gt", "values": ["5"]}]
    other = [{"key": "zone", "operator": "DoesNotExist"}]
    assert fits(affinity(term), A, B, C) == "b"
    assert fits(affinity(term, other), A, B, C) == "bc"


def test_a_node_selector_holds_beside_every_term() -> None:
    selector = {"gen": "3"}
    assert fits(placement_from({"nodeSelector": selector}), A, B, C) == "a"
    assert fits(affinity([{"key": "zone", "operator": "Exists"}], nodeSelector=selector), A, B, C) == "a"


@pytest.mark.parametrize("selector", [None, {"gen": "3"}])
def test_terms_without_requirements_hold_nowhere(selector: dict[str, str] | None) -> None:
    assert fits(affinity([], nodeSelector=selector), A, B, C) == ""
    assert fits(affinity(nodeSelector=selector), A, B, C) == ""


def test_the_name_of_a_node_can_be_asked_for() -> None:
    field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [field]}}
    assert fits(placement_from({"affinity": {"nodeAffinity": required}}), A, B, C) == "b"


TAINTED = node("t", taints=(Taint("team", "red"),))


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({}, "a"),
        ({"key": "team", "value": "red"}, "at"),
        ({"key": "team", "value": "blue"}, "a"),
        ({"key": "team", "operator": "Exists"}, "at"),
        ({"operator": "Exists"}, "at"),
        ({"key": "team", "operator": "Exists", "effect": "NoExecute"}, "a"),
    ],
)
def test_tainted_nodes_are_for_those_who_tolerate_them(toleration: dict[str, str], expected: str) -> None:
    assert fits(placement_from({"tolerations": [toleration] if toleration else []}), A, TAINTED) == expected


def test_a_taint_that_is_only_a_preference_keeps_nobody_away() -> None:
    assert fits(Placement(), node("t", taints=(Taint("slow", effect="PreferNoSchedule"),))) == "t"


def test_a_cordoned_node_takes_nobody() -> None:
    assert fits(Placement(), A, node("x", unschedulable=True)) == "a"


def test_gpus_of_a_pod_are_those_of_its_containers_or_of_a_larger_init_container() -> None:
    def container(number: int, **more: Any) -> dict[str, Any]:
        return {"resources": {"limits": {"nvidia.com/gpu": str(number), "cpu": "4"}}, **more}

    assert gpu_requests({"containers": [container(1), container(2)]}) == {"nvidia.com/gpu": 3}
    assert gpu_requests({"containers": [container(1)], "initContainers": [container(4)]}) == {"nvidia.com/gpu": 4}
    sidecar = container(1, restartPolicy="Always")
    assert gpu_requests({"containers": [container(1)], "initContainers": [sidecar]}) == {"nvidia.com/gpu": 2}
    assert gpu_requests({"containers": [{}]}) == {}
