"""The schema of `spec.podTemplate`: a partial PodTemplateSpec, whose fields follow the version of the cluster."""

from typing import Annotated, Any

from pydantic import WithJsonSchema

# Only `spec` is open, for its fields follow the version of the cluster. The rest is closed, so that tolerations
# that are written one level too high, for example, are refused instead of lost.
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_SCHEMA = {
    "type": "object",
    "properties": {
        "metadata": {
            "type": "object",
            "description": "Labels and annotations that are added to the Pods.",
            "properties": {
                "labels": {**_STRINGS, "description": "Further labels."},
                "annotations": {**_STRINGS, "description": "Further annotations."},
            },
        },
        "spec": {
            "type": "object",
            "description": "A partial PodSpec, as `kubectl explain pod.spec` shows it.",
            "x-kubernetes-preserve-unknown-fields": True,
        },
    },
}

PodTemplate = Annotated[dict[str, Any], WithJsonSchema(_SCHEMA)]
"""A partial PodTemplateSpec that is merged over what Berth renders."""
