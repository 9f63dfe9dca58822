"""What the CRDs say beside the schema."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from berth.api.crd import RESOURCES, Column, Resource, custom_resource_definition
from berth.api.model import Model

CRDS = {resource.kind: custom_resource_definition(resource) for resource in RESOURCES}
MODEL = CRDS["Model"]
VERSION = MODEL["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


def _nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from _nodes(schema[name], f"{path}[]")


def test_the_name_is_plural_and_group() -> None:
    assert MODEL["metadata"]["name"] == "models.berth.dev"
    assert MODEL["spec"]["names"]["shortNames"] == ["mdl"]


def test_models_are_listed_with_their_children() -> None:
    assert MODEL["spec"]["names"]["categories"] == ["berth", "all"]


def test_columns_are_in_the_order_in_which_they_are_read() -> None:
    columns = VERSION["additionalPrinterColumns"]
    narrow = [column["name"].upper() for column in columns if not column.get("priority")]
    assert narrow == ["PHASE", "READY", "BACKEND", "GPUS", "PROGRESS", "QUEUE", "URL", "AGE"]
    assert columns[-1]["name"] == "Message", "the long one is last"


def test_a_fresh_status_says_that_nobody_has_looked_yet() -> None:
    assert SCHEMA["properties"]["status"]["default"] == {"observedGeneration": -1, "phase": "Pending"}


def test_scale_and_status_are_subresources() -> None:
    assert set(VERSION["subresources"]) == {"status", "scale"}


@pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS)
def test_every_list_map_and_text_of_the_spec_is_bounded(crd: dict[str, Any]) -> None:
    # The API server estimates what rules cost from these bounds and refuses a CRD whose rules may cost too much.
    unbounded = []
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for path, node in _nodes(properties.get("spec", {})):
        if path.startswith(".podTemplate"):
            continue  # no rule looks into it
        bound = {"string": "maxLength", "array": "maxItems"}.get(node.get("type", ""))
        if "additionalProperties" in node:
            bound = "maxProperties"
        if bound and bound not in node and "enum" not in node:
            unbounded.append(path)
    assert unbounded == []


@pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS)
def test_every_field_is_described(crd: dict[str, Any]) -> None:
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = schema["properties"].keys() & {"spec", "status"}
    nodes = (node for part in parts for node in _nodes(schema["properties"][part], part))
    assert [path for path, node in nodes if "[]" not in path[-2:] and not node.get("description")] == []


@pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS)
def test_nothing_of_ours_is_left_in_the_crd(crd: dict[str, Any]) -> None:
    assert not re.search(r"x-berth|\$ref|anyOf|'title'", str(crd))


@pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS)
def test_a_crd_fits_into_the_annotation_of_kubectl_apply(crd: dict[str, Any]) -> None:
    assert len(str(crd)) < 200_000


def test_only_the_pod_spec_is_open() -> None:
    open_nodes = [path for path, node in _nodes(SCHEMA) if node.get("x-kubernetes-preserve-unknown-fields")]
    assert open_nodes == [".spec.podTemplate.spec"]


def test_a_further_kind_is_one_entry() -> None:
    resource = Resource(
        Model,
        plural="things",
        short_names=("th",),
        columns=(Column("Phase", ".status.phase", "Its phase."),),
        scope="Cluster",
    )
    crd = custom_resource_definition(resource)
    assert crd["spec"]["scope"] == "Cluster"
    assert crd["spec"]["names"]["categories"] == ["berth"]
    assert "scale" not in crd["spec"]["versions"][0]["subresources"]
