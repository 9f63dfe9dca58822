"""From a type to the schema that the API server takes: structural, with defaults, descriptions and CEL rules.

The JSON schema that pydantic writes is more than Kubernetes allows: references, null, closed objects, unions.
`described_schema` brings it into structural form and keeps the words for people beside each pattern; the pages
for editors and readers are made of that. `structural_schema` is the same for CRDs, where a pattern becomes a rule
with a message, because the API server's own message for a pattern shows nothing but the pattern.

Anything that has no structural form raises SchemaError with its path; nothing is dropped silently.
"""

import re
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from berth.api.base import PATTERN_MESSAGE, TYPE_WORD, ApiType

Schema = dict[str, Any]

RULES = "x-kubernetes-validations"
INT_OR_STRING = "x-kubernetes-int-or-string"
PRESERVE_UNKNOWN = "x-kubernetes-preserve-unknown-fields"

# The order of keywords in everything that is generated; members come last so that a node reads from the top.
_KEYWORDS = (
    "description", "type", TYPE_WORD, "format", INT_OR_STRING, PRESERVE_UNKNOWN, "default", "enum", "pattern",
    PATTERN_MESSAGE, "minLength", "maxLength", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum",
    "minItems", "maxItems", "minProperties", "maxProperties", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-map-type", RULES, "required", "properties", "items",
    "additionalProperties",
)  # fmt: skip
_NOT_RE2 = re.compile(r"\(\?(?:[=!>]|<[=!]|P=)|\\[1-9Z]|[*+?}]\+")


class SchemaError(TypeError):
    """A type that has no structural schema."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'the type itself'}: {problem}")


class _Generator(GenerateJsonSchema):
    """Adds the CEL rules of a type to its schema."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        result = super().model_schema(schema)
        rules = [rule.to_json() for rule in getattr(schema["cls"], "rules", ())]
        return {**result, RULES: rules} if rules else result


def structural_schema(type_: type[ApiType]) -> Schema:
    """The schema of a type for a CRD."""
    return _with_rules_for_patterns(described_schema(type_))


def described_schema(type_: type[ApiType]) -> Schema:
    """The schema of a type in structural form, patterns and their messages still side by side."""
    document = type_.model_json_schema(by_alias=True, schema_generator=_Generator, mode="validation")
    definitions = document.pop("$defs", {})
    return _Converter(definitions).convert(document, "")


class _Converter:
    """Brings the JSON schema of one document into structural form."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions
        self._open: list[str] = []

    def convert(self, node: Schema, path: str) -> Schema:
        """The node and all below it. `path` is only for messages."""
        node = dict(node)
        if reference := node.pop("$ref", None):
            return self._convert_reference(reference, node, path)
        if "anyOf" in node:
            return self._convert_union(node, path)
        if len(node.get("allOf", ())) == 1:
            return self.convert(_merge(node.pop("allOf")[0], node), path)
        node.pop("title", None)
        _convert_scalars(node, path)
        if "properties" in node:
            node["properties"] = {
                name: self.convert(child, f"{path}.{name}") for name, child in node["properties"].items()
            }
        if "items" in node:
            node["items"] = self.convert(node["items"], f"{path}[]")
        self._convert_members(node, path)
        _convert_default(node)
        unknown = node.keys() - set(_KEYWORDS)
        if unknown:
            raise SchemaError(path, f"{', '.join(sorted(unknown))} cannot be said in a CRD")
        return {key: node[key] for key in _KEYWORDS if key in node}

    def _convert_reference(self, reference: str, siblings: Schema, path: str) -> Schema:
        name = reference.removeprefix("#/$defs/")
        if name in self._open:
            raise SchemaError(path, f"{name} contains itself, and CRDs know no recursion")
        self._open.append(name)
        try:
            return self.convert(_merge(self._definitions[name], siblings), path)
        finally:
            self._open.pop()

    def _convert_union(self, node: Schema, path: str) -> Schema:
        branches = [branch for branch in node.pop("anyOf") if branch.get("type") != "null"]
        if len(branches) == 1:
            return self.convert(_merge(branches[0], node), path)
        if sorted(branch.get("type", "") for branch in branches) == ["integer", "string"]:
            merged: Schema = {}
            for branch in branches:
                merged = _merge(merged, branch)
            return self.convert(_merge({**merged, INT_OR_STRING: True}, node), path)
        raise SchemaError(path, "a union of several types cannot be said in a CRD")

    def _convert_members(self, node: Schema, path: str) -> None:
        members = node.pop("additionalProperties", None)
        if isinstance(members, dict) and members:
            if "properties" in node:
                raise SchemaError(path, "an object has either named members or free ones")
            node["additionalProperties"] = self.convert(members, f"{path}.*")
        elif node.get("type") == "object" and "properties" not in node and not node.get(PRESERVE_UNKNOWN):
            raise SchemaError(path, f"an object without members needs {PRESERVE_UNKNOWN}")
        if "type" not in node and not node.get(INT_OR_STRING) and not node.get(PRESERVE_UNKNOWN):
            raise SchemaError(path, "a value of any type cannot be said in a CRD")


def _convert_scalars(node: Schema, path: str) -> None:
    if "const" in node:
        node["enum"] = [node.pop("const")]
    for bound in ("inimum", "aximum"):
        if (limit := node.pop(f"exclusiveM{bound}", None)) is not None:
            node |= {f"m{bound}": limit, f"exclusiveM{bound}": True}
    if node.get(INT_OR_STRING):
        node.pop("type", None)
    if (pattern := node.get("pattern")) is not None:
        if _NOT_RE2.search(pattern):
            raise SchemaError(path, f"the API server's expressions (RE2) do not know all of {pattern}")
        if "'" in pattern:
            raise SchemaError(path, f"a quote in {pattern} would end the rule it is put into")


def _convert_default(node: Schema) -> None:
    """Leave out null. Defaults stay complete: the API server checks them by the rules before it fills them in."""
    if (default := _without_nulls(node.pop("default", None))) is not None:
        node["default"] = default


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    return value


def _merge(node: Schema, siblings: Schema) -> Schema:
    """What stands beside a reference wins over it, but rules add up."""
    merged = {**node, **siblings}
    if rules := [*node.get(RULES, ()), *siblings.get(RULES, ())]:
        merged[RULES] = rules
    return merged


def _with_rules_for_patterns(node: Schema) -> Schema:
    """The node with a rule instead of each pattern that has a message."""
    node = dict(node)
    node.pop(TYPE_WORD, None)
    if message := node.pop(PATTERN_MESSAGE, None):
        rule = {"rule": f"self.matches(r'{node.pop('pattern')}')", "message": message}
        node[RULES] = [rule, *node.get(RULES, ())]
    for name in ("items", "additionalProperties"):
        if name in node:
            node[name] = _with_rules_for_patterns(node[name])
    if "properties" in node:
        node["properties"] = {name: _with_rules_for_patterns(child) for name, child in node["properties"].items()}
    return {key: node[key] for key in _KEYWORDS if key in node}
