"""The reference page of a kind: its names, what kubectl shows, and every field with type, default and rules."""

import json
from collections.abc import Iterator, Sequence

from berth.api.base import API_VERSION, PATTERN_MESSAGE, TYPE_WORD
from berth.api.crd import Column, Resource
from berth.api.schema import PRESERVE_UNKNOWN, RULES, Schema, described_schema


def reference_page(resource: Resource, schema_path: str) -> str:
    """The page in Markdown. `schema_path` is where the schema for editors lies in the checkout."""
    schema = described_schema(resource.type)
    parts = [f"# {resource.kind}\n\n{schema['description']}", _names(resource), _editors(schema_path)]
    parts.append(_columns(resource.columns))
    if rules := _rules(schema):
        parts.append(rules)
    for name, child in schema["properties"].items():
        parts.append(f"## {name}\n\n{child['description']}")
        parts.extend(_object(name, child))
    return "\n\n".join(parts) + "\n"


def _names(resource: Resource) -> str:
    names = ", ".join(f"`{name}`" for name in (resource.plural, resource.kind.lower(), *resource.short_names))
    rows = [
        ("apiVersion, kind", f"`{API_VERSION}`, `{resource.kind}`"),
        ("Names for kubectl", names),
        ("Scope", resource.scope),
        ("Also listed by", ", ".join(f"`kubectl get {category}`" for category in resource.categories)),
    ]
    if resource.scale is not None:
        rows.append(("Scale", f"`kubectl scale {resource.kind.lower()}/<name> --replicas=<n>`, HPA and KEDA"))
    return _table(("", ""), rows)


def _editors(schema_path: str) -> str:
    return (
        f"Editors complete and check a manifest with [`{schema_path}`](../../{schema_path}): "
        "put `# yaml-language-server: $schema=<path or URL of that file>` on the first line."
    )


def _columns(columns: tuple[Column, ...]) -> str:
    rows = [
        (f"`{column.name.upper()}`", column.description, "`-o wide`" if column.wide else "always") for column in columns
    ]
    return "## Columns of kubectl get\n\n" + _table(("Column", "What it shows", "Shown"), rows)


def _object(path: str, schema: Schema) -> Iterator[str]:
    """The plain members in one table, then a section for each member that has members of its own."""
    rows, sections = [], []
    required = schema.get("required", ())
    for name, child in schema["properties"].items():
        member = f"{path}.{name}"
        inner, suffix = _inner(child)
        meaning = child.get("description", "")
        if inner is not None:
            sections.append((f"{member}{suffix}", inner))
            meaning += f" See [{name}](#{_anchor(member + suffix)})."
        rows.append((f"`{name}`", _type(child), _default(child, name in required), meaning))
    yield _table(("Field", "Type", "Default", "Meaning"), rows)
    if rules := _rules(schema):
        yield rules
    for member, inner in sections:
        yield f"### {member}"
        if inner.get("description"):
            yield inner["description"]
        yield from _object(member, inner)


def _inner(schema: Schema) -> tuple[Schema | None, str]:
    """What has members of its own below a field, and how the path to it goes on."""
    if "properties" in schema:
        return schema, ""
    for key, suffix in (("items", "[]"), ("additionalProperties", ".*")):
        if key in schema and "properties" in schema[key]:
            return schema[key], suffix
    return None, ""


def _rules(schema: Schema) -> str:
    """What the API server checks on the object and on its plain members, in the words that it answers with."""
    lines = [f"- {rule['message']}" for rule in schema.get(RULES, ())]
    fields: dict[str, list[str]] = {}
    for name, child in schema.get("properties", {}).items():
        for node in (child, child.get("items", {}), child.get("additionalProperties", {})):
            if "properties" in node:
                continue
            messages = [node[PATTERN_MESSAGE]] if PATTERN_MESSAGE in node else []
            for message in messages + [rule["message"] for rule in node.get(RULES, ())]:
                fields.setdefault(message, []).append(f"`{name}`")
    lines += [f"- {', '.join(dict.fromkeys(names))}: {message}" for message, names in fields.items()]
    return "Refused by the API server, with these words:\n\n" + "\n".join(lines) if lines else ""


def _type(schema: Schema) -> str:
    if TYPE_WORD in schema:
        return str(schema[TYPE_WORD])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("format") == "date-time":
        return "time"
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}{_bounds(schema, 'Items', ', at most {}')}"
    if "additionalProperties" in schema:
        return f"map to {_type(schema['additionalProperties'])}"
    if schema["type"] == "object":
        return "any object" if schema.get(PRESERVE_UNKNOWN) else "object"
    if schema["type"] == "integer":
        return "integer" + _range(schema)
    return {"string": "text", "boolean": "true or false", "number": "number"}[schema["type"]]


def _bounds(schema: Schema, what: str, text: str) -> str:
    limit = schema.get(f"max{what}")
    return text.format(limit) if limit is not None else ""


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", at least {low}" if low is not None else f", at most {high}" if high is not None else ""


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "**required**"
    default = schema.get("default")
    if default is None or isinstance(default, dict):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _anchor(heading: str) -> str:
    """The anchor that GitHub and MkDocs give a heading."""
    return "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "-_")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
