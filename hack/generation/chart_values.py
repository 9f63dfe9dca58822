"""The chart's values, as the comments in its values.yaml explain and bound them: a table and a JSON schema.

A value is explained by the comment right above it that begins with `# --`; a line `# @schema {…}` in that comment adds
to its schema, whose type follows from the default. What has no explanation is a group of values.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_TYPES = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}


class ValuesError(Exception):
    """values.yaml does not explain a value."""


@dataclass(frozen=True)
class Value:
    """One value: where it is, what it is by default, what it means, and what more than its type bounds it."""

    path: tuple[str, ...]
    default: Any
    meaning: str
    bounds: dict[str, Any]


def read_values(text: str) -> list[Value]:
    """Every value of a values.yaml, in its order."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return list(_read(root, (), text.splitlines()))


def _read(node: yaml.MappingNode, above: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, child in node.value:
        path = (*above, key.value)
        meaning, bounds = _comment(lines, key.start_mark.line)
        if meaning:
            yield Value(path, yaml.safe_load(yaml.serialize(child)), meaning, bounds)
        elif isinstance(child, yaml.MappingNode) and child.value:
            yield from _read(child, path, lines)
        else:
            raise ValuesError(f"values.yaml: no line `# -- …` explains {'.'.join(path)}")


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """What the comment right above a line says: the meaning in one paragraph, and the bounds."""
    found: list[str] = []
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].lstrip().removeprefix("#").strip())
    if not any(text.startswith("-- ") for text in found):
        return "", {}
    schemas = [text.removeprefix("@schema ") for text in found if text.startswith("@schema ")]
    meaning = " ".join(text.removeprefix("-- ") for text in found if not text.startswith("@schema "))
    return meaning, yaml.safe_load(schemas[0]) if schemas else {}


def values_table(values: list[Value]) -> str:
    """The values as a Markdown table."""
    rows = ["| value | default | meaning |", "|---|---|---|"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False)
        rows.append(f"| `{'.'.join(value.path)}` | `{_cell(default)}` | {_cell(value.meaning)} |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def values_schema(values: list[Value]) -> dict[str, Any]:
    """The JSON schema that Helm checks values against: closed, with every value in it."""
    schema: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "properties": {"global": {"type": "object", "description": "What charts that contain this one share."}},
    }
    for value in values:
        group = schema
        for name in value.path[:-1]:
            closed = {"type": "object", "additionalProperties": False, "properties": {}}
            group = group["properties"].setdefault(name, closed)
        group["properties"][value.path[-1]] = _value_schema(value)
    return schema


def _value_schema(value: Value) -> dict[str, Any]:
    return {
        "description": value.meaning,
        "type": _TYPES[type(value.default)],
        "default": value.default,
        **value.bounds,
    }
