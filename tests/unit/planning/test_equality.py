"""An observed object equals the desired one when every rendered leaf is there with its value."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning import names
from berth.planning.equality import MERGE_KEYS, differences, element_key, is_applied, merge_keys
from golden import cases

Path = tuple[str | int, ...]


# ---- manifests made up ---------------------------------------------------------------------------------------

SCALARS = st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b", "1Gi"])
KEYED = ("containers", "env", "volumes", "volumeMounts", "ownerReferences", "topologySpreadConstraints")


def keyed_list(field: str, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    keys = MERGE_KEYS[field]
    element = st.tuples(
        st.fixed_dictionaries({key: st.sampled_from(["k1", "k2", "k3"]) for key in keys}),
        st.dictionaries(st.sampled_from(["x", "y", "args"]), inner, max_size=3),
    ).map(lambda both: {**both[1], **both[0]})
    return st.lists(element, max_size=3, unique_by=lambda element: element_key(element, keys))


def maps(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    plain = st.dictionaries(st.sampled_from(["spec", "labels", "x", "y.z/w", "args"]), inner, max_size=3)
    lists = st.sampled_from(KEYED).flatmap(lambda field: keyed_list(field, inner).map(lambda value: {field: value}))
    return st.tuples(plain, st.just({}) | lists).map(lambda both: {**both[0], **both[1]})


MANIFESTS = maps(st.recursive(SCALARS, lambda inner: maps(inner) | st.lists(inner, max_size=3), max_leaves=12))


def with_additions(value: Any, parent: str = "", field: str = "") -> Any:
    """The value with what the API server and others may add: fields, and elements of lists with keys."""
    if isinstance(value, dict):
        return {"foreign": 1, **{key: with_additions(item, field, key) for key, item in value.items()}}
    if isinstance(value, list):
        items = [with_additions(item, parent, field) for item in value]
        keys = merge_keys(parent, field)
        return items if keys is None else [dict.fromkeys(keys, "foreign"), *reversed(items)]
    return value


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves(item, (*path, key))
    if not isinstance(value, dict | list):
        yield path


def changed(manifest: Any, path: Path) -> Any:
    """The manifest with another value at the path."""
    found = copy.deepcopy(manifest)
    holder = found
    for step in path[:-1]:
        holder = holder[step]
    old = holder[path[-1]]
    holder[path[-1]] = not old if isinstance(old, bool) else old + 1 if isinstance(old, int) else f"{old}-changed"
    return found


def without_zeros(value: Any) -> Any:
    """The value as an API server shows it that leaves out what says nothing."""
    if isinstance(value, dict):
        items = {key: without_zeros(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item or isinstance(item, dict | list) or item is None}
    return [without_zeros(item) for item in value] if isinstance(value, list) else value


@given(MANIFESTS)
def test_a_manifest_equals_itself_with_foreign_additions(manifest: dict[str, Any]) -> None:
    assert differences(manifest, manifest) == []
    assert differences(manifest, with_additions(manifest)) == []


@given(MANIFESTS)
def test_what_says_nothing_may_be_absent(manifest: dict[str, Any]) -> None:
    assert differences(manifest, without_zeros(manifest)) == []


@given(MANIFESTS, st.data())
def test_a_change_of_any_leaf_is_found(manifest: dict[str, Any], data: st.DataObject) -> None:
    paths = list(leaves(manifest))
    if paths:
        path = data.draw(st.sampled_from(paths))
        assert differences(manifest, changed(manifest, path))


@given(MANIFESTS, MANIFESTS)
def test_no_difference_means_that_every_leaf_is_there(desired: dict[str, Any], observed: dict[str, Any]) -> None:
    if not differences(desired, observed):
        assert differences(desired, with_additions(observed)) == []


# ---- real manifests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["vllm-pod-template", "llamacpp-api-key", "vllm-tensor-parallel"])
def test_a_change_of_any_leaf_of_a_real_manifest_is_found(case: str) -> None:
    for manifest in cases.render(cases.model(case)):
        observed = with_additions(manifest)
        assert is_applied(manifest, observed)
        for path in leaves(manifest):
            assert differences(manifest, changed(manifest, path)), path


def sample() -> dict[str, Any]:
    return copy.deepcopy(cases.render(cases.model("llamacpp-gpu"))[-1])


def test_differences_are_named_by_their_path() -> None:
    desired, observed = sample(), sample()
    server = observed["spec"]["template"]["spec"]["containers"][0]
    server["args"][1] = "/other"
    server["env"] = []
    server["ports"][0]["name"] = "web"
    del observed["metadata"]["labels"]["berth.dev/model"]
    observed["spec"]["template"]["spec"]["tolerations"].append({"key": "x"})
    assert differences(desired, observed) == [
        "metadata.labels[berth.dev/model]",
        "spec.template.spec.containers[name=server].args[1]",
        "spec.template.spec.containers[name=server].ports[containerPort=8080,protocol=TCP].name",
        "spec.template.spec.containers[name=server].env[name=HOME]",
        "spec.template.spec.tolerations",
    ]


def test_applied_means_the_same_hash_and_no_difference() -> None:
    desired, observed = sample(), sample()
    assert is_applied(desired, observed)
    observed["spec"]["replicas"] = 5
    assert not is_applied(desired, observed)  # someone else changed it
    observed = sample()
    observed["metadata"]["annotations"][names.APPLIED_ANNOTATION] = "older"
    assert not is_applied(desired, observed)  # a field that was dropped may still be there
    assert not is_applied(desired, {"metadata": {}})


@pytest.mark.parametrize(
    ("desired", "observed"),
    [
        ({"a": ""}, {}),
        ({"a": 0}, {}),
        ({"a": False}, {}),
        ({"a": None}, {}),
        ({"a": {}}, {}),
        ({"a": []}, {}),
        ({"a": {"b": {"c": ""}}}, {}),
        ({"ports": [{"port": 80, "protocol": "TCP"}]}, {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 1}]}),
        ({"spec": {"ports": [{"port": 80}]}}, {"spec": {"ports": [{"port": 81}, {"port": 80, "protocol": "TCP"}]}}),
        (
            {"ownerReferences": [{"uid": "1", "name": "a"}]},
            {"ownerReferences": [{"uid": "2"}, {"uid": "1", "name": "a"}]},
        ),
    ],
)
def test_these_are_equal(desired: dict[str, Any], observed: dict[str, Any]) -> None:
    assert differences(desired, observed) == []


@pytest.mark.parametrize(
    ("desired", "observed", "path"),
    [
        ({"a": 1}, {"a": True}, "a"),
        ({"a": 0}, {"a": 1}, "a"),
        ({"a": ""}, {"a": "b"}, "a"),
        ({"a": "1"}, {"a": 1}, "a"),
        ({"a": False}, {"a": True}, "a"),
        ({"a": {"b": 1}}, {"a": "b"}, "a"),
        ({"a": [1]}, {"a": {}}, "a"),
        ({"a": [1]}, {"a": [1, 2]}, "a"),
        ({"a": [2, 1]}, {"a": [1, 2]}, "a[0]"),
        ({"a": []}, {"a": [1]}, "a"),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A"}]}, "env[name=A].value"),
        ({"ingress": {"ports": [{"port": "http"}]}}, {"ingress": {"ports": [{"port": "x"}]}}, "ingress.ports[0].port"),
    ],
)
def test_these_differ(desired: dict[str, Any], observed: dict[str, Any], path: str) -> None:
    assert path in differences(desired, observed)
