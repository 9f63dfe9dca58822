"""How many replicas a Deployment may have now, with which Pod template, and how it replaces old Pods."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from berth.api.model import ModelSpec, RolloutStrategy, UpgradePolicy
from berth.planning import names
from berth.planning.children import template_hash
from berth.planning.pods import Pod


@dataclass(frozen=True, slots=True)
class Template:
    """The Pod template to use, and whether this version of Berth would render another."""

    body: dict[str, Any]
    upgrade_available: bool


def choose_template(
    fresh: dict[str, Any], inputs: str, deployment: Mapping[str, Any] | None, policy: UpgradePolicy
) -> Template:
    """The template that was rendered before while its inputs stay, so that an upgrade of Berth restarts no Pod.

    `inputs` is the hash of what `fresh` was rendered from; `deployment` is the observed one. A template in its
    annotation that is not the one its Pods are marked with was edited by somebody, and is rendered anew.
    """
    if annotation(deployment, names.TEMPLATE_INPUTS_ANNOTATION) != inputs:
        return Template(fresh, False)
    previous = previous_template(deployment)
    if previous is None or previous == fresh or policy is UpgradePolicy.AUTOMATIC:
        return Template(fresh, False)
    return Template(previous, True)


def previous_template(deployment: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The template of the observed Deployment as it was rendered; None when it cannot be told."""
    try:
        previous: dict[str, Any] = json.loads(annotation(deployment, names.POD_TEMPLATE_ANNOTATION))
    except ValueError:
        return None
    return previous if template_hash(previous) == template_mark(deployment) else None


def annotation(deployment: Mapping[str, Any] | None, name: str) -> str:
    """An annotation of the observed Deployment; empty when it has none of that name."""
    annotations = ((deployment or {}).get("metadata") or {}).get("annotations") or {}
    value: str = annotations.get(name, "")
    return value


def template_mark(deployment: Mapping[str, Any] | None) -> str:
    """The hash on the Pods that the Deployment makes."""
    found: Any = deployment
    for field in ("spec", "template", "metadata", "labels", names.TEMPLATE_HASH_LABEL):
        found = (found or {}).get(field)
    return found or ""


def choose_strategy(spec: ModelSpec) -> tuple[RolloutStrategy, str]:
    """Surge or in place, and why.

    `Auto` takes the place of the old server when GPUs are involved: a surge would wait for a GPU that only the
    old server can give back, which is the deadlock that other operators run into.
    """
    if spec.rollout.strategy is not RolloutStrategy.AUTO:
        return spec.rollout.strategy, "as rollout.strategy says"
    if spec.gpus.count:
        return RolloutStrategy.IN_PLACE, "the replicas hold GPUs that the new ones need"
    return RolloutStrategy.SURGE, "no GPU is needed"


def allowed_replicas(
    wanted: int,
    strategy: RolloutStrategy,
    template_hash: str,
    pods: Sequence[Pod],
    deployment: Mapping[str, Any] | None = None,
) -> int:
    """Replicas that the Deployment may have now; `deployment` is the observed one.

    A single replica is replaced in place in two steps: the new template with no replica, then, when every old
    Pod is gone with its GPU, one replica. The step follows from what is observed, so it survives a restart. The
    first step is taken for a Deployment of the old template even when none of its Pods has been seen: it may have
    made one this moment.
    """
    if wanted == 1 and strategy is RolloutStrategy.IN_PLACE:
        if any((pod.living or pod.deleting) and pod.template_hash != template_hash for pod in pods):
            return 0
        replicas = ((deployment or {}).get("spec") or {}).get("replicas")
        if replicas and template_mark(deployment) not in ("", template_hash):
            return 0
    return wanted
