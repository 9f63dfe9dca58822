"""A restart that a person asks for: the annotation `berth.dev/restart` with a new value."""

from collections.abc import Mapping
from typing import Any

from berth.planning.canonical import content_hash

RESTART_ANNOTATION = "berth.dev/restart"
"""On a Model: a new value replaces its servers by its rollout strategy. It is handed on to their Pod template."""


def mark_restart(
    template: dict[str, Any], inputs: str, annotations: Mapping[str, str], deployment: Mapping[str, Any] | None
) -> tuple[dict[str, Any], str]:
    """The Pod template and the hash of its inputs with the restart in them; unchanged where nobody asked for one.

    `deployment` is the observed one: to remove the annotation from the Model is no reason for another restart.
    """
    asked = annotations.get(RESTART_ANNOTATION) or _handed_on(deployment)
    if not asked:
        return template, inputs
    metadata = template["metadata"]
    marks = {**(metadata.get("annotations") or {}), RESTART_ANNOTATION: asked}
    return {**template, "metadata": {**metadata, "annotations": marks}}, content_hash([inputs, asked])


def _handed_on(deployment: Mapping[str, Any] | None) -> str:
    found: Any = deployment
    for field in ("spec", "template", "metadata", "annotations", RESTART_ANNOTATION):
        found = (found or {}).get(field)
    return found or ""
