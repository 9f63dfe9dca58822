"""What a Model asks of the capacity planner: GPUs, memory, nodes, and how far its rollout is."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from berth.api.base import quantity_value
from berth.api.model import GpuSharing, ModelSpec, NodePool, RolloutStrategy
from berth.api.model_status import MemorySource
from berth.planning import names
from berth.planning.capacity.memory import from_document, to_document
from berth.planning.capacity.placement import placement_from
from berth.planning.capacity.sharing import can_be_capped
from berth.planning.capacity.world import Demand, Need, Remembered, Rollout
from berth.planning.memory_estimate import MIB, Estimate, estimate
from berth.planning.model_figures import ModelFigures
from berth.planning.pods import Pod
from berth.planning.rollout import annotation
from berth.planning.times import parse_time
from berth.planning.world import Subject

_LONG_AGO = datetime.fromtimestamp(0, UTC)
_CACHE_TYPE_FLAGS = ("--kv-cache-dtype", "--cache-type-k", "-ctk")
"""Arguments by which a person chooses the type of the KV cache; llama.cpp has one more for values."""


def demand_of(
    subject: Subject,
    spec: ModelSpec,
    *,
    wanted: int,
    provisioned: bool,
    template: Mapping[str, Any] | None,
    template_hash: str,
    need: Need,
    cache: str,
    deployment: Mapping[str, Any] | None,
    pods: Sequence[Pod],
) -> Demand:
    """What the Model asks for. `template` is the wanted Pod template, `deployment` the observed one."""
    body = ((deployment or {}).get("spec")) or {}
    priority = next((pod.priority for pod in pods if pod.priority is not None), 0)
    return Demand(
        key=f"{subject.namespace}/{subject.name}",
        created_at=subject.created_at or _LONG_AGO,
        wanted=wanted,
        replicas=body.get("replicas") or 0,
        need=need,
        priority=spec.priority,
        pod_priority=priority,
        placement=placement_from((template or {}).get("spec") or {}),
        autoscaled=spec.gpus.nodes is NodePool.AUTOSCALED,
        provisioned=provisioned,
        cache=f"{subject.namespace}/{cache}" if cache else "",
        rollout=_rollout(spec, template_hash, deployment, pods),
        remembered=remembered_of(subject, deployment),
    )


def _rollout(
    spec: ModelSpec, template_hash: str, deployment: Mapping[str, Any] | None, pods: Sequence[Pod]
) -> Rollout | None:
    """The rollout that is under way or due; None while the Deployment and every Pod have the wanted template."""
    if deployment is None or not template_hash:
        return None
    body = deployment.get("spec") or {}
    mark = (((body.get("template") or {}).get("metadata") or {}).get("labels") or {}).get(names.TEMPLATE_HASH_LABEL)
    there = [pod for pod in pods if pod.living or pod.deleting]
    if mark == template_hash and all(pod.template_hash == template_hash for pod in there):
        return None
    return Rollout(spec.rollout.strategy, strategy_of(deployment) if mark == template_hash else None)


def strategy_of(deployment: Mapping[str, Any]) -> RolloutStrategy:
    """How an observed Deployment replaces its Pods."""
    rolling = ((deployment.get("spec") or {}).get("strategy") or {}).get("rollingUpdate") or {}
    return RolloutStrategy.SURGE if rolling.get("maxSurge") else RolloutStrategy.IN_PLACE


# ---- memory -----------------------------------------------------------------------------------------------------


def need_of(spec: ModelSpec, figures: ModelFigures | None) -> tuple[Need, Estimate | None]:
    """What one replica takes, and the estimate behind it where memory is not declared."""
    gpus = spec.gpus
    guess = _estimate(spec, figures) if figures is not None and gpus.memory is None and gpus.count else None
    memory, source = None, None
    if gpus.memory is not None:
        memory, source = -(-int(quantity_value(gpus.memory)) // MIB), MemorySource.DECLARED
    elif guess is not None and guess.required_mib is not None:
        memory, source = guess.required_mib, MemorySource.ESTIMATED
    need = Need(
        count=gpus.count,
        resource=gpus.resource,
        memory_mib=memory,
        source=source,
        shared=gpus.sharing is GpuSharing.SHARED,
        capped=can_be_capped(spec.backend),
    )
    return need, guess


def _estimate(spec: ModelSpec, figures: ModelFigures) -> Estimate:
    serving = spec.serving
    return estimate(
        figures,
        backend=spec.backend,
        context_length=serving.context_length if serving else None,
        concurrency=serving.max_concurrency if serving else None,
        kv_dtype=_cache_type((serving and serving.args) or ()),
        tensor_parallel=spec.gpus.count,
        quantization=serving.quantization if serving else None,
    )


def _cache_type(arguments: Sequence[str]) -> str | None:
    """The type of the KV cache that the person's own arguments choose."""
    for place, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in _CACHE_TYPE_FLAGS:
            return value or next(iter(arguments[place + 1 : place + 2]), None)
    return None


# ---- what is stored on the Deployment ---------------------------------------------------------------------------


def remembered_of(subject: Subject, deployment: Mapping[str, Any] | None) -> Remembered | None:
    """What is stored of the Model. Before it has a Deployment, its age is what the timeline of its status says."""
    document = _stored(deployment)
    if document is not None:
        return from_document(document)
    queued = parse_time((subject.status.get("timeline") or {}).get("queuedAt"))
    return Remembered(queued_at=queued) if queued is not None else None


def share_of(deployment: Mapping[str, Any] | None) -> float | None:
    """The part of a GPU that the servers of the observed Deployment may use."""
    share = (_stored(deployment) or {}).get("share")
    return share if isinstance(share, float) and 0 < share <= 1 else None


def _stored(deployment: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    try:
        document = json.loads(annotation(deployment, names.CAPACITY_ANNOTATION))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def note_on_deployment(memory: Remembered, share: float | None) -> dict[str, Any]:
    """The document that is stored on the Deployment."""
    return {**to_document(memory), **({"share": share} if share is not None else {})}
