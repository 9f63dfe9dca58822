"""What Helm 4, Flux and Argo CD make of a status: a port of kstatus (cli-utils, generic.go)."""

from collections.abc import Mapping
from typing import Any


def kstatus(generation: int, status: Mapping[str, Any]) -> str:
    """InProgress, Failed or Current."""
    observed = status.get("observedGeneration")
    if observed is not None and observed != generation:
        return "InProgress"
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Stalled") == "True":
        return "Failed"
    if "Ready" in conditions:
        return "Current" if conditions["Ready"] == "True" else "InProgress"
    return "Current"
