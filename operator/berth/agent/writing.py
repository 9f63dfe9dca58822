"""Whether a status is worth a write, and the write itself. Pure.

A status changes with every look: temperatures, a few bytes. A write reaches everybody who watches. So only what
matters to placing Models, or to a person, is written at once; the rest goes along every five minutes.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from berth.api.gpu_node import GPU, GPUNodeStatus

REFRESH = timedelta(minutes=5)
"""The longest that a status stays unwritten."""

MEANINGFUL_MIB = 256
"""The least change of memory that is written for itself."""

GROWTH_PACE = timedelta(seconds=10)
"""How often growing memory is written while a model loads. Memory that became free is written at once: a Model may
be waiting for it."""


def worth_writing(previous: GPUNodeStatus, current: GPUNodeStatus, now: datetime) -> str | None:
    """Why `current` is worth a write when the object says `previous`; None when it is not."""
    age = _age(previous, now)
    if age is None:
        return "nothing is written yet"
    if not timedelta(0) <= age < REFRESH:
        return "the last write is long ago"
    if reason := _difference(previous, current):
        return reason
    before, after = _gpus(previous), _gpus(current)
    changes = [change for uuid in after for change in _memory_changes(before[uuid], after[uuid])]
    changes += _host_changes(previous, current)
    if any(change <= -MEANINGFUL_MIB for change in changes):
        return "memory became free"
    if age >= GROWTH_PACE and any(change >= MEANINGFUL_MIB for change in changes):
        return "more memory is used"
    return None


def patch(status: GPUNodeStatus) -> dict[str, Any]:
    """The merge patch that makes the object say this, and nothing of what it said before."""
    nothing: dict[str, Any] = {field.alias or name: None for name, field in GPUNodeStatus.model_fields.items()}
    return {"status": {**nothing, **status.to_json()}}


def _age(previous: GPUNodeStatus, now: datetime) -> timedelta | None:
    if previous.last_written_at is None:
        return None
    try:
        written = datetime.fromisoformat(previous.last_written_at)
    except ValueError:
        return None
    return now - (written if written.tzinfo else written.replace(tzinfo=UTC))


def _difference(previous: GPUNodeStatus, current: GPUNodeStatus) -> str | None:
    """What is different that is not an amount of memory."""
    for name in ("observed_generation", "driver_version", "cuda_version", "boot_id"):
        if getattr(previous, name) != getattr(current, name):
            return f"{name} changed"
    if _conditions(previous) != _conditions(current):
        return "a condition changed"
    before, after = _gpus(previous), _gpus(current)
    if before.keys() != after.keys():
        return "GPUs came or went"
    for uuid, gpu in after.items():
        if _identity(before[uuid]) != _identity(gpu):
            return f"{uuid} is another device"
        if before[uuid].health != gpu.health:
            return f"the health of {uuid} changed"
        if before[uuid].holders != gpu.holders:
            return f"the holders of {uuid} changed"
        if _silent(before[uuid]) != _silent(gpu):
            return f"the processes of {uuid} changed"
    return None


def _conditions(status: GPUNodeStatus) -> list[tuple[str, ...]]:
    return [(condition.type, condition.status, condition.reason) for condition in status.conditions or ()]


def _gpus(status: GPUNodeStatus) -> Mapping[str, GPU]:
    return {gpu.uuid: gpu for gpu in status.gpus or ()}


def _identity(gpu: GPU) -> tuple[object, ...]:
    total = None if gpu.memory is None else gpu.memory.total_mi_b
    return gpu.product, gpu.index, gpu.mig, gpu.parent_uuid, gpu.profile, total


def _silent(gpu: GPU) -> set[tuple[object, ...]]:
    """Whose processes of unknown memory are on it: nothing else shows that they came."""
    return {_group(process) for process in gpu.processes or () if process.memory_mi_b is None}


def _group(process: Any) -> tuple[object, ...]:
    return process.foreign, process.pod_uid, process.namespace, process.pod, process.command


def _memory_changes(before: GPU, after: GPU) -> list[int]:
    """How much more of everything is used: of the GPU, by its driver, by each group of its processes."""
    changes = [after.foreign_mi_b - before.foreign_mi_b]
    if before.memory is not None and after.memory is not None:
        changes.append(after.memory.used_mi_b - before.memory.used_mi_b)
        changes.append((after.memory.reserved_mi_b or 0) - (before.memory.reserved_mi_b or 0))
    old, new = _by_group(before), _by_group(after)
    changes += [new[group] - old[group] for group in old.keys() | new.keys()]
    return changes


def _by_group(gpu: GPU) -> Counter[tuple[object, ...]]:
    sums: Counter[tuple[object, ...]] = Counter()
    for process in gpu.processes or ():
        sums[_group(process)] += process.memory_mi_b or 0
    return sums


def _host_changes(previous: GPUNodeStatus, current: GPUNodeStatus) -> list[int]:
    """The node's memory counts where a GPU lives on it; elsewhere it moves all the time and matters to nobody."""
    if previous.host_memory is None or current.host_memory is None:
        return []
    if not any(gpu.health.healthy and gpu.memory is None for gpu in current.gpus or ()):
        return []
    return [current.host_memory.used_mi_b - previous.host_memory.used_mi_b]
