"""Stopping everything because Berth is uninstalled: what the switch says, and when nothing is left to wait for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from berth.api.model_status import Phase
from berth.planning.plan import Delete
from berth.planning.reasons import Reason
from berth.planning.world import ModelWorld

SWITCH_KEY = "stopModels"
"""In the operator's ConfigMap: `true` has every Model stopped."""
MISSING_SECONDS = 60.0
"""How long the ConfigMap has to be missing to say no.

What uninstalls Berth removes it a moment before the last operator ends, which must not start everything once more.
"""
_SERVING = ("Service", "Deployment")
"""In this order: nothing new comes to servers that end."""
_NAMED = 5
"""Models that a line of progress names."""


def asks_to_stop(config_map: Mapping[str, Any] | None, missing_for: float = 0.0) -> bool | None:
    """Whether the operator's ConfigMap asks to stop all Models; None when it is missing for a short time only."""
    if config_map is None:
        return None if missing_for < MISSING_SECONDS else False
    return str((config_map.get("data") or {}).get(SWITCH_KEY, "")).strip().lower() == "true"


def is_uninstalled(world: ModelWorld) -> bool:
    """Whether the Model is to have no servers for that; while nothing is known, what its status says holds."""
    if world.uninstalling is not None:
        return world.uninstalling
    conditions = world.subject.status.get("conditions") or ()
    return any(c["type"] == "Ready" and c["reason"] == Reason.OPERATOR_UNINSTALLING for c in conditions)


def take_down(world: ModelWorld) -> tuple[Delete, ...]:
    """The servers of a Model whose spec cannot be carried out go with their Deployment.

    There is nothing to render a smaller one from. What other Models have for their stop is in `closing`.
    """
    if not world.uninstalling:
        return ()
    found = (world.child(kind) for kind in _SERVING)
    return tuple(
        Delete(child.kind, child.namespace, child.name, child.uid, child.resource_version)
        for child in found
        if child is not None and child.owner_uid == world.subject.uid and not child.deleting
    )


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left to stop, in the words of one line."""

    total: int
    left: tuple[str, ...]
    """Those that are not stopped, as namespace/name (phase), in the order of their names."""

    def __str__(self) -> str:
        named = ", ".join(self.left[:_NAMED])
        more = len(self.left) - _NAMED
        if not self.left:
            return f"{self.total} of {self.total} Models are stopped"
        others = f" and {more} more" if more > 0 else ""
        return f"{self.total - len(self.left)} of {self.total} Models are stopped; left: {named}{others}"


def remaining(models: Iterable[Mapping[str, Any]]) -> Remaining:
    """Which of all Models still have servers, or may get some. Those that are being deleted are no concern."""
    there = [model for model in models if "deletionTimestamp" not in model["metadata"]]
    left = sorted(
        f"{model['metadata']['namespace']}/{model['metadata']['name']} ({_phase(model)})"
        for model in there
        if not _is_stopped(model)
    )
    return Remaining(len(there), tuple(left))


def _phase(model: Mapping[str, Any]) -> str:
    return str((model.get("status") or {}).get("phase", Phase.PENDING))


def _is_stopped(model: Mapping[str, Any]) -> bool:
    """What cannot be carried out stays Failed, also without servers."""
    servers = (model.get("status") or {}).get("replicas", 0)
    phase = _phase(model)
    return phase == Phase.STOPPED or (phase == Phase.FAILED and not servers)
