"""JSON schema (draft 7) for editors and linters: the same fields as the CRD, closed against typing errors."""

from typing import Any

from berth.api.base import API_VERSION, PATTERN_MESSAGE
from berth.api.crd import Resource, root_schema
from berth.api.schema import INT_OR_STRING, PRESERVE_UNKNOWN, RULES, Schema, described_schema


def editor_schema(resource: Resource) -> Schema:
    """The schema of a whole object as editors take it."""
    root = root_schema(resource, described_schema(resource.type))
    schema = _convert(root)
    properties = schema["properties"]
    properties["apiVersion"] = {**properties["apiVersion"], "const": API_VERSION}
    properties["kind"] = {**properties["kind"], "const": resource.kind}
    # Kubernetes checks the rest of metadata.
    properties["metadata"] = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"{resource.kind} ({API_VERSION})",
        **schema,
        "required": ["apiVersion", "kind", "metadata", *root.get("required", ())],
    }


def _convert(node: Schema) -> Schema:
    out: dict[str, Any] = {key: value for key, value in node.items() if not key.startswith("x-")}
    if messages := [rule["message"] for rule in node.get(RULES, ())]:
        rules = "\n".join(f"- {message}" for message in messages)
        out["markdownDescription"] = f"{node.get('description', '')}\n\n{rules}".strip()
    if node.get(INT_OR_STRING):
        out["type"] = ["integer", "string"]
    if message := node.get(PATTERN_MESSAGE):
        out["patternErrorMessage"] = message
    if node.get("x-kubernetes-list-type") == "set":
        out["uniqueItems"] = True
    for bound in ("inimum", "aximum"):
        if out.pop(f"exclusiveM{bound}", False):
            out[f"exclusiveM{bound}"] = out.pop(f"m{bound}")
    for name in ("items", "additionalProperties"):
        if name in node:
            out[name] = _convert(node[name])
    if "properties" in node:
        out["properties"] = {name: _convert(child) for name, child in node["properties"].items()}
        if not node.get(PRESERVE_UNKNOWN):
            out["additionalProperties"] = False
    return out
