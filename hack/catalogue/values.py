"""The JSON schema that Helm checks the values of charts/models against; specs follow from the types of the API."""

from typing import Any

from berth.api.crd import RESOURCES
from berth.api.schema import Schema
from generation.editor_schema import editor_schema

_KEPT = frozenset({
    "type", "description", "enum", "properties", "items", "additionalProperties", "required", "pattern", "minimum",
    "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems",
})  # fmt: skip
"""Defaults stay out: what the chart does not say is left to the API server."""

_OF_ALL_MODELS = (
    "state", "priority", "idle", "gpus", "limits", "requests", "rollout", "health", "shutdown", "network",
    "podTemplate",
)  # fmt: skip
_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def values_schema() -> Schema:
    """The schema of values.yaml, closed against typing errors."""
    model, cache = _spec("Model"), _spec("ModelCache")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "global": {"type": "object", "description": "What charts that contain this one share."},
            "models": _map("#/definitions/override", "Models of the catalogue, by their names in it."),
            "extraModels": _map("#/definitions/model", "Models of your own, by name: full specs."),
            "caches": _map("#/definitions/cache", "ModelCaches, by name."),
            "defaults": {"$ref": "#/definitions/defaults"},
            "commonLabels": {**_TEXTS, "description": "Labels of every object."},
            "commonAnnotations": {**_TEXTS, "description": "Annotations of every object."},
        },
        "definitions": {
            "override": _with_extras(_partial(model), name=True),
            "model": _with_extras(model),
            "cache": _with_extras(cache),
            "defaults": _defaults(_partial(model)),
        },
    }


def _map(reference: str, description: str) -> Schema:
    return {"type": "object", "description": description, "additionalProperties": {"$ref": reference}}


def _spec(kind: str) -> Schema:
    resource = next(one for one in RESOURCES if one.kind == kind)
    found: Schema = _plain(editor_schema(resource)["properties"]["spec"])
    return found


def _plain(node: Any) -> Any:
    """A schema without what Helm has no use for."""
    if not isinstance(node, dict):
        return node
    out = {key: value for key, value in node.items() if key in _KEPT}
    for key in ("items", "additionalProperties"):
        if key in out:
            out[key] = _plain(out[key])
    if "properties" in out:
        out["properties"] = {name: _plain(child) for name, child in out["properties"].items()}
    return out


def _partial(node: Schema) -> Schema:
    """The same with nothing required, and null for what an override takes away. Items of lists stay whole."""
    out = {key: value for key, value in node.items() if key != "required"}
    if "properties" in out:
        out["properties"] = {name: _or_null(_partial(child)) for name, child in out["properties"].items()}
    return out


def _or_null(node: Schema) -> Schema:
    if "type" not in node:
        return node
    types = node["type"] if isinstance(node["type"], list) else [node["type"]]
    enum = {"enum": [*node["enum"], None]} if "enum" in node else {}
    return {**node, "type": [*types, "null"], **enum}


def _with_extras(spec: Schema, *, name: bool = False) -> Schema:
    extras: dict[str, Schema] = {
        "enabled": {"type": "boolean", "description": "Whether it is installed."},
        "labels": {**_TEXTS, "description": "Further labels."},
        "annotations": {**_TEXTS, "description": "Further annotations."},
    }
    if name:
        extras["name"] = {"type": "string", "description": "Name of the Model; the name in the catalogue if omitted."}
    return {**spec, "type": ["object", "null"], "properties": {**extras, **spec["properties"]}}


def _defaults(spec: Schema) -> Schema:
    own = {name: spec["properties"][name] for name in _OF_ALL_MODELS}
    return {
        "type": "object",
        "description": "What holds for every Model that says nothing else.",
        "additionalProperties": False,
        "properties": {
            "cache": {"type": ["string", "null"], "description": "The ModelCache that keeps downloads."},
            "secretRef": {
                "type": ["object", "null"],
                "description": "Secret whose key `token` opens the Hugging Face hub.",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {"name": {"type": "string", "minLength": 1}},
            },
            **own,
        },
    }
