"""Nodes that Pods avoid, in terms that say all of it."""

from typing import Any

from berth.planning.excluded_nodes import avoid

ELSEWHERE = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["a", "b"]}
PRODUCT = {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["L40S"]}


def template(affinity: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"metadata": {"labels": {}}, "spec": {"containers": [], **({"affinity": affinity} if affinity else {})}}


def with_terms(*terms: dict[str, Any]) -> dict[str, Any]:
    required = {"nodeSelectorTerms": list(terms)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


def test_without_nodes_to_avoid_the_template_is_as_it_was() -> None:
    assert avoid(template(), ()) == template()


def test_a_template_without_wishes_gets_one() -> None:
    assert avoid(template(), ("a", "b")) == template(with_terms({"matchExpressions": [ELSEWHERE]}))


def test_each_alternative_of_a_person_is_narrowed() -> None:
    name = {"key": "metadata.name", "operator": "In", "values": ["c"]}
    before = template(with_terms({"matchExpressions": [PRODUCT]}, {"matchFields": [name]}))
    after = avoid(before, ("a", "b"))
    first = {"matchExpressions": [PRODUCT, ELSEWHERE]}
    assert after == template(with_terms(first, {"matchFields": [name], "matchExpressions": [ELSEWHERE]}))
    assert before == template(with_terms({"matchExpressions": [PRODUCT]}, {"matchFields": [name]})), "left as it was"


def test_other_affinity_stays() -> None:
    beside = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}}
    assert avoid(template(beside), ("a", "b"))["spec"]["affinity"]["podAffinity"] == beside["podAffinity"]
