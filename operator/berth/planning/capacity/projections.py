"""From objects of the API to what the capacity planner sees of nodes and Pods."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from berth.planning import names
from berth.planning.capacity.placement import Taint, gpu_requests, is_extended, placement_from
from berth.planning.capacity.world import Gpu, GpuPod, GpuReport, Node
from berth.planning.pods import Pod
from berth.planning.times import parse_time

MIG_STRATEGY = "nvidia.com/mig.strategy"
_LONG_AGO = datetime.fromtimestamp(0, UTC)
_BACK_OFF = ("CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError")


@dataclass(frozen=True, slots=True)
class Told:
    """What was written on a Pod when it was told its nodes."""

    nodes: tuple[str, ...] = ()
    beyond: bool = False
    """Whether it may go to nodes only that did not exist then."""
    memory_mib: int | None = None
    """Memory reserved on each of its GPUs; None: all of it."""
    shared: bool = False
    at: datetime | None = None


def told_from(annotation: str) -> Told | None:
    """What the annotation says; None when it says nothing that can be read."""
    try:
        document = json.loads(annotation)
        memory = document.get("memoryMiB")
        return Told(
            tuple(str(name) for name in document.get("nodes") or ()),
            bool(document.get("beyond")),
            int(memory) if memory is not None else None,
            bool(document.get("shared")),
            parse_time(document.get("at")),
        )
    except (ValueError, TypeError, AttributeError):
        return None


def concerns_gpus(manifest: Mapping[str, Any]) -> bool:
    """Whether a Pod takes GPUs, or the volume of a ModelCache."""
    labels = manifest["metadata"].get("labels") or {}
    if names.CACHE_LABEL in labels and labels.get(names.MANAGED_BY_LABEL) == names.MANAGED_BY:
        return True
    spec = manifest.get("spec") or {}
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return any(is_extended(name) for one in containers for name in (one.get("resources") or {}).get("requests") or ())


def gpu_pod_from(manifest: Mapping[str, Any], pod: Pod) -> GpuPod:
    """The projection of a Pod that is not finished; `pod` is that for phases. Which template is wanted is not known.

    Where a Pod without a node was not told any, and no gate holds it, the planner has to count with every node:
    `gpu_pod_in` sees to that.
    """
    metadata, spec = manifest["metadata"], manifest.get("spec") or {}
    told = told_from(pod.capacity_note) or Told()
    ours = (metadata.get("labels") or {}).get(names.MANAGED_BY_LABEL) == names.MANAGED_BY and pod.model
    unschedulable = pod.unschedulable_since
    if unschedulable is not None and told.at is not None:
        unschedulable = max(unschedulable, told.at)  # the time of the condition is that of the gate
    return GpuPod(
        uid=pod.uid,
        name=pod.name,
        created_at=pod.created_at or _LONG_AGO,
        gpus=gpu_requests(spec),
        model=f"{pod.namespace}/{pod.model}" if ours else "",
        node=pod.node,
        memory_mib=told.memory_mib,
        shared=told.shared,
        pod_priority=spec.get("priority") or 0,
        placement=placement_from(spec),
        ready=pod.ready,
        loading=bool(ours) and is_loading(pod),
        nodes=told.nodes,
        bound_at=pod.scheduled_since,
        deleting=pod.deleting,
        ends_at=parse_time(metadata.get("deletionTimestamp")),
        unschedulable_since=unschedulable,
        unschedulable_message=pod.unschedulable_message,
        leaves_first=pod.leaves_first,
        cache=f"{pod.namespace}/{pod.cache}" if pod.cache else "",
    )


def is_loading(pod: Pod) -> bool:
    """Whether its server is on its way to ready for the first time, and neither failed nor held back."""
    if not pod.node or pod.ready or not pod.living or pod.deleting:
        return False
    if any(container.waiting_reason in _BACK_OFF for container in pod.containers):
        return False
    server, download = pod.server, pod.provisioner
    if download is not None and download.terminated is None:
        return False  # a download must not hold up those whose weights are there
    return server is None or (not server.started and not server.restarts and server.terminated is None)


def is_held(pod: Pod) -> bool:
    """Whether the gate holds it back."""
    return names.CAPACITY_GATE in pod.gates and not pod.deleting


# ---- nodes ------------------------------------------------------------------------------------------------------


def gpu_node_from(manifest: Mapping[str, Any]) -> Node:
    """The projection of a Node, without what its agent says."""
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    allocatable = status.get("allocatable") or {}
    return Node(
        name=metadata["name"],
        created_at=parse_time(metadata.get("creationTimestamp")) or _LONG_AGO,
        allocatable={name: int(value) for name, value in allocatable.items() if is_extended(name) and value.isdigit()},
        labels=metadata.get("labels") or {},
        taints=tuple(Taint(t["key"], t.get("value") or "", t["effect"]) for t in spec.get("taints") or ()),
        unschedulable=bool(spec.get("unschedulable")),
    )


def sick_gpus(node: Node) -> dict[str, str]:
    """What is wrong with GPUs of the node, as a sentence, by uid of each Pod that holds one."""
    found: dict[str, str] = {}
    for gpu in node.report.gpus if node.report is not None else ():
        if not gpu.healthy:
            sentence = f"GPU {gpu.uuid} of node {node.name} is not healthy: {gpu.trouble}"
            found |= dict.fromkeys((*gpu.holders, *gpu.measured), sentence)
    return found


def report_from(
    status: Mapping[str, Any], labels: Mapping[str, str], *, alive: bool, uid_of: Callable[[str, str], str]
) -> GpuReport | None:
    """What an agent says, from the status of a GPUNode; None while it has said nothing.

    `labels` are those of the Node; `uid_of` gives the uid of a Pod by namespace and name: kubelet tells names only.
    """
    at = parse_time(status.get("lastWrittenAt"))
    if at is None:
        return None
    single = labels.get(MIG_STRATEGY) == "single"
    gpus = tuple(_gpu(gpu, single, uid_of) for gpu in status.get("gpus") or () if not gpu.get("mig"))
    return GpuReport(gpus, at, alive)


def _gpu(gpu: Mapping[str, Any], single: bool, uid_of: Callable[[str, str], str]) -> Gpu:
    memory, health = gpu.get("memory") or {}, gpu.get("health") or {}
    healthy = health.get("healthy", True)
    profile = gpu.get("profile") or ""
    measured: dict[str, int] = {}
    for process in gpu.get("processes") or ():
        if process.get("podUid"):
            measured[process["podUid"]] = measured.get(process["podUid"], 0) + (process.get("memoryMiB") or 0)
    return Gpu(
        uuid=gpu["uuid"],
        resource=f"nvidia.com/mig-{profile}" if profile and not single else "nvidia.com/gpu",
        total_mib=memory.get("totalMiB"),
        driver_mib=memory.get("reservedMiB") or 0,
        foreign_mib=gpu.get("foreignMiB") or 0,
        measured=measured,
        holders=tuple(sorted({uid_of(one["namespace"], one["pod"]) for one in gpu.get("holders") or ()})),
        healthy=healthy,
        trouble="" if healthy else health.get("message") or health.get("reason") or "no reason given",
    )
