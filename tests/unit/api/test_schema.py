"""How types become structural schemas."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from berth.api.base import ApiType, Duration, Name, Quantity, Rule, matching
from berth.api.schema import SchemaError, described_schema, structural_schema


class Colour(StrEnum):
    """A colour."""

    RED = "Red"
    BLUE = "Blue"


class Inner(ApiType):
    """Something inside."""

    rules: ClassVar = (Rule("self.size > 0", "size is too small: make it larger", ".size"),)

    size: int = 1
    """How large."""
    colour: Colour = Colour.RED
    """Which colour."""
    remark: str | None = None
    """Anything."""


def _field(annotation: Any, default: Any = ...) -> dict[str, Any]:
    """The schema of a field of this type."""
    owner = type("Owner", (ApiType,), {"__annotations__": {"field": annotation}, "field": Field(default)})
    schema: dict[str, Any] = structural_schema(owner)["properties"]["field"]
    return schema


def test_an_object_has_its_members_and_no_words_of_json_schema() -> None:
    schema = structural_schema(Inner)
    assert set(schema) == {"description", "type", "properties", "x-kubernetes-validations"}
    assert schema["description"] == "Something inside."


def test_an_attribute_docstring_is_the_description() -> None:
    assert structural_schema(Inner)["properties"]["size"]["description"] == "How large."


def test_a_reference_is_put_in_place_with_the_words_of_the_field() -> None:
    class Outer(ApiType):
        inner: Inner
        """The words of the field."""

    schema = structural_schema(Outer)
    assert schema["required"] == ["inner"]
    assert schema["properties"]["inner"]["description"] == "The words of the field."
    assert schema["properties"]["inner"]["properties"]["size"]["type"] == "integer"
    assert schema["properties"]["inner"]["x-kubernetes-validations"][0]["fieldPath"] == ".size"


def test_optional_is_the_plain_type_without_a_default() -> None:
    assert _field(int | None, None) == {"type": "integer"}


def test_a_default_object_is_complete_and_has_no_nulls() -> None:
    assert _field(Inner, Inner())["default"] == {"size": 1, "colour": "Red"}


def test_an_enumeration_lists_its_values() -> None:
    assert _field(Colour) == {"description": "A colour.", "type": "string", "enum": ["Red", "Blue"]}


def test_a_constant_is_an_enumeration_of_one() -> None:
    assert _field(Literal["only"]) == {"type": "string", "enum": ["only"]}


def test_an_exclusive_bound_has_the_form_of_openapi_3() -> None:
    assert _field(Annotated[int, Field(gt=0)]) == {"type": "integer", "minimum": 0, "exclusiveMinimum": True}


@pytest.mark.parametrize("annotation", [int | str, Quantity])
def test_numbers_and_texts_are_int_or_string(annotation: Any) -> None:
    schema = _field(annotation)
    assert schema["x-kubernetes-int-or-string"] is True
    assert "type" not in schema


def test_a_map_keeps_the_schema_of_its_values() -> None:
    assert _field(dict[str, int]) == {"type": "object", "additionalProperties": {"type": "integer"}}


def test_a_pattern_with_a_message_becomes_a_rule() -> None:
    schema = _field(Annotated[str, matching("^a+$", "only a: write a", max_length=9)])
    assert "pattern" not in schema
    assert schema["x-kubernetes-validations"] == [{"rule": "self.matches(r'^a+$')", "message": "only a: write a"}]


def test_people_see_the_pattern_and_its_message() -> None:
    class Owner(ApiType):
        field: Annotated[str, matching("^a+$", "only a: write a", max_length=9)]

    assert described_schema(Owner)["properties"]["field"]["pattern"] == "^a+$"


def test_rules_of_a_scalar_and_of_its_field_add_up() -> None:
    schema = _field(Annotated[Duration, Rule("self != '7s'", "not seven: take eight")])
    assert [rule["message"][:6] for rule in schema["x-kubernetes-validations"]] == ["this i", "not se"]


def test_a_rule_on_a_list_stays_on_the_list() -> None:
    schema = _field(Annotated[list[Name], Field(max_length=3), Rule("size(self) > 0", "empty: add one")])
    assert schema["x-kubernetes-validations"] == [{"rule": "size(self) > 0", "message": "empty: add one"}]
    assert "x-kubernetes-validations" in schema["items"]


class Recursive(ApiType):
    """Contains itself."""

    child: "Recursive | None" = None


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (int | bool, "union"),
        (Inner | str, "union"),
        (Any, "any type"),
        (dict[str, Any], "x-kubernetes-preserve-unknown-fields"),
        (tuple[int, str], "prefixItems"),
        (set[str], "uniqueItems"),
        (Annotated[str, Field(json_schema_extra={"pattern": "^(?!a)"})], "RE2"),
        (Annotated[str, Field(json_schema_extra={"pattern": r"(a)\1"})], "RE2"),
        (Annotated[str, Field(json_schema_extra={"pattern": "it's"})], "quote"),
        (Recursive, "recursion"),
    ],
)
def test_what_a_crd_cannot_say_is_an_error_that_names_the_field(annotation: Any, problem: str) -> None:
    with pytest.raises(SchemaError, match=rf"field.*{problem}"):
        _field(annotation)


def test_an_object_that_is_open_on_purpose_is_kept() -> None:
    open_object = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
    assert _field(open_object) == {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
