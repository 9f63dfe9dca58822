"""From a look at the node to the status of its GPUNode. Pure: what was reported before and the time are arguments."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from datetime import datetime

from berth.agent import health
from berth.agent.readings import Device, DriverReading, DriverTrouble, Holder, Memory, Owner, Process, Snapshot
from berth.api.gpu_node import (
    GPU,
    MOST_DEVICES,
    MOST_HOLDERS,
    MOST_PROCESSES,
    MOST_XIDS,
    GPUHealth,
    GPUHolder,
    GPUNodeStatus,
    GPUNodeSummary,
    GPUProcess,
    HostMemory,
    MemoryOfGPU,
    XidError,
)
from berth.api.model_status import Condition, ConditionStatus

MIB = 2**20
READY = "Ready"
HOLDERS_KNOWN = "HoldersKnown"

_NAMELESS = "lost-"
"""Before the number of a GPU that was lost before anybody knew its uuid."""


def timestamp(at: datetime) -> str:
    """A time as the API server writes it."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def status_from(snapshot: Snapshot, previous: GPUNodeStatus, generation: int, now: datetime) -> GPUNodeStatus:
    """What to report. `previous` is what the object says now."""
    driver = snapshot.driver
    version, cuda = (driver.version, driver.cuda) if isinstance(driver, DriverReading) else (None, None)
    before = _seen_in_this_boot(snapshot, previous)
    there = list(_gpus(snapshot, before))
    gpus = [*there, *_gone(snapshot, before, {gpu.uuid for gpu in there})][:MOST_DEVICES]
    host = snapshot.host_memory
    host_memory = None if host is None else HostMemory(total_mi_b=host.total // MIB, used_mi_b=host.used // MIB)
    conditions = [_ready(driver, gpus), _holders_known(snapshot)]
    return GPUNodeStatus(
        observed_generation=generation,
        conditions=_with_times(conditions, previous.conditions or [], generation, now),
        summary=_summary(gpus, driver, host_memory),
        driver_version=version,
        cuda_version=cuda,
        boot_id=snapshot.boot_id,
        host_memory=host_memory,
        gpus=gpus,
        last_written_at=timestamp(now),
    )


def _seen_in_this_boot(snapshot: Snapshot, previous: GPUNodeStatus) -> Sequence[GPU]:
    """The GPUs that the node has had since its last boot. MIG devices come and go as people cut their GPUs."""
    if snapshot.boot_id is None or snapshot.boot_id != previous.boot_id:
        return ()
    return [gpu for gpu in previous.gpus or () if gpu.parent_uuid is None and not gpu.uuid.startswith(_NAMELESS)]


def _gpus(snapshot: Snapshot, before: Sequence[GPU]) -> Iterable[GPU]:
    if isinstance(snapshot.driver, DriverTrouble):
        return
    there = {device.uuid for device in snapshot.driver.devices}
    gone = [gpu for gpu in before if gpu.uuid not in there]
    for device in snapshot.driver.devices:
        yield _gpu(device if device.uuid else _named(device, gone), snapshot)


def _named(lost: Device, gone: list[GPU]) -> Device:
    """A lost GPU, by the name of the one that is gone and had its number; no other one gets that name as well."""
    known = next((gpu for gpu in gone if gpu.index == lost.index), None)
    if known is None:
        return replace(lost, uuid=f"{_NAMELESS}{lost.index}", product="unknown")
    gone.remove(known)
    return replace(lost, uuid=known.uuid, product=known.product, mig=known.mig)


def _gpu(device: Device, snapshot: Snapshot) -> GPU:
    found = health.verdict(device)
    xids = [XidError(xid=xid.number, at=timestamp(xid.at)) for xid in device.xids[-MOST_XIDS:]]
    held = snapshot.holders.by_device.get(device.uuid, ())
    of = {process.pid: snapshot.owners.get((device.uuid, process.pid), Owner()) for process in device.processes}
    foreign = sum(process.memory or 0 for process in device.processes if of[process.pid].foreign)
    return GPU(
        uuid=device.uuid,
        product=device.product,
        index=device.index,
        mig=device.mig,
        parent_uuid=device.parent,
        profile=device.profile,
        memory=_memory(device.memory),
        utilisation_percent=device.utilisation,
        temperature_celsius=device.temperature,
        power_watts=None if device.power_milliwatts is None else round(device.power_milliwatts / 1000),
        health=GPUHealth(
            healthy=found.healthy,
            reason=found.reason,
            message=found.message,
            xids=xids or None,
            ecc_errors=device.ecc_errors,
        ),
        holders=_holders(held),
        foreign_mi_b=foreign // MIB,
        processes=_processes(device.processes, of, snapshot),
    )


def _memory(memory: Memory | None) -> MemoryOfGPU | None:
    if memory is None:
        return None
    return MemoryOfGPU(
        total_mi_b=memory.total // MIB,
        used_mi_b=memory.used // MIB,
        reserved_mi_b=None if memory.reserved is None else memory.reserved // MIB,
    )


def _holders(held: Sequence[Holder]) -> list[GPUHolder] | None:
    found = [GPUHolder(namespace=one.namespace, pod=one.pod, container=one.container) for one in held[:MOST_HOLDERS]]
    return found or None


def _processes(processes: Sequence[Process], of: dict[int, Owner], snapshot: Snapshot) -> list[GPUProcess] | None:
    biggest = sorted(processes, key=lambda process: (-(process.memory or 0), process.pid))[:MOST_PROCESSES]
    found = [
        GPUProcess(
            pid=process.pid,
            command=snapshot.commands.get(process.pid, "")[:64],
            memory_mi_b=None if process.memory is None else process.memory // MIB,
            foreign=of[process.pid].foreign,
            pod_uid=of[process.pid].pod_uid,
            namespace=of[process.pid].namespace,
            pod=of[process.pid].pod,
        )
        for process in biggest
    ]
    return found or None


def _gone(snapshot: Snapshot, before: Sequence[GPU], there: Set[str]) -> Iterable[GPU]:
    """GPUs that were there and are not any more: unhealthy. While the driver does not answer, that is all of them."""
    answers = isinstance(snapshot.driver, DriverReading)
    found = health.missing() if answers else health.Verdict("DriverUnavailable", "the driver does not answer")
    for gpu in before:
        if gpu.uuid not in there:
            sick = GPUHealth(healthy=False, reason=found.reason, message=found.message, xids=gpu.health.xids)
            yield GPU(uuid=gpu.uuid, product=gpu.product, index=gpu.index, mig=gpu.mig, health=sick)


def _ready(driver: DriverReading | DriverTrouble, gpus: Sequence[GPU]) -> tuple[str, ConditionStatus, str, str]:
    if isinstance(driver, DriverTrouble):
        return READY, ConditionStatus.FALSE, driver.reason, driver.message
    if not gpus:
        return READY, ConditionStatus.FALSE, "NoGPU", "the driver answers and has no GPU"
    return READY, ConditionStatus.TRUE, "DriverAnswers", f"the driver {driver.version or ''} answers".replace("  ", " ")


def _holders_known(snapshot: Snapshot) -> tuple[str, ConditionStatus, str, str]:
    if problem := snapshot.holders.problem:
        return HOLDERS_KNOWN, ConditionStatus.FALSE, "KubeletSilent", problem
    return HOLDERS_KNOWN, ConditionStatus.TRUE, "KubeletAnswers", "kubelet says which Pod holds which GPU"


def _with_times(
    conditions: Iterable[tuple[str, ConditionStatus, str, str]],
    previous: Iterable[Condition],
    generation: int,
    now: datetime,
) -> list[Condition]:
    before = {condition.type: condition for condition in previous}
    return [
        Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            last_transition_time=before[kind].last_transition_time
            if kind in before and before[kind].status == status
            else timestamp(now),
            observed_generation=generation,
        )
        for kind, status, reason, message in conditions
    ]


def _summary(gpus: Sequence[GPU], driver: DriverReading | DriverTrouble, host: HostMemory | None) -> GPUNodeSummary:
    whole = [gpu for gpu in gpus if gpu.parent_uuid is None]
    sick = [gpu for gpu in whole if not gpu.health.healthy]
    count = f"{len(whole) - len(sick)}/{len(whole)}" if sick else str(len(whole))
    if isinstance(driver, DriverTrouble):
        words = driver.reason
    elif not whole:
        words = "NoGPU"
    elif sick:
        reasons = dict.fromkeys(gpu.health.reason or "" for gpu in sick)
        words = ", ".join(reasons)
    else:
        words = "Healthy"
    return GPUNodeSummary(gpus=count, memory=_memory_words(whole, host), health=words)


def _memory_words(whole: Sequence[GPU], host: HostMemory | None) -> str:
    own = [gpu.memory for gpu in whole if gpu.memory is not None]
    if own:
        return _of(sum(memory.used_mi_b for memory in own), sum(memory.total_mi_b for memory in own))
    if whole and host is not None and any(gpu.health.healthy for gpu in whole):
        return f"{_of(host.used_mi_b, host.total_mi_b)} (host)"
    return ""


def _of(used: int, total: int) -> str:
    return f"{used / 1024:.1f}/{total / 1024:.1f} GiB"
