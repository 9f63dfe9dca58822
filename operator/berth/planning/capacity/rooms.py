"""How much room the GPUs of one node have, in the worst case of what the device plugin may pick.

    free(gpu) = total - driver - sum over ours of max(reserved, measured) - foreign - headroom

Exclusive Pods reserve the whole GPU. There are two views: `now`, and `soon`, when the Pods that are leaving are gone
and have given their memory back.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.world import Gpu, GpuPod, Need, Node

BOUNDLESS = 2**40
"""More MiB than any GPU has: where memory is not known, or every GPU is taken."""
NOTHING = -1
_NVIDIA = "nvidia.com/"


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU as far as it is known."""

    slots: int
    """Pods that may still be given it."""
    free: int
    """MiB that nobody has reserved or uses."""
    empty: bool
    """Whether no Pod holds it."""
    untouched: bool
    """Whether hardly any of its memory is used."""


@dataclass(frozen=True, slots=True)
class Room:
    """The room that one resource of a node has."""

    left: int
    """Requests for one GPU that kubelet would still take."""
    free: int
    """MiB on the fullest GPU that an Exclusive Pod may be given."""
    free_shared: int
    """MiB on the fullest GPU that a Shared Pod may be given."""
    untouched: bool
    """Whether every GPU that an Exclusive Pod may be given is unused."""
    shared: bool
    """Whether several Pods may be given one GPU."""
    devices: tuple[Device, ...]
    """GPUs that a Pod may be given."""
    unplaced: tuple[int, ...]
    """Memory of the Pods whose GPU nobody knows yet, largest first."""

    def with_more(self, count: int, memory: int | None) -> "Room":
        """The room that is left beside one more Pod, which may be given any of the GPUs."""
        left = max(0, self.left - count)
        if not self.shared:
            return replace(self, left=left)
        unplaced = sorted((*self.unplaced, BOUNDLESS if memory is None else memory), reverse=True)
        return room_of(left, self.devices, tuple(unplaced), shared=True)


def holds(room: Room, need: Need) -> bool:
    """Whether there is room for one replica, whichever GPUs it is given."""
    if room.left < need.count or (room.shared and need.count > 1):
        return False
    if need.memory_mib is None:
        return room.untouched and not need.shared
    return (room.free_shared if need.shared else room.free) >= need.memory_mib


def room_of(left: int, devices: tuple[Device, ...], unplaced: tuple[int, ...], *, shared: bool) -> Room:
    """The worst case over all GPUs that the device plugin may pick."""
    alone = not shared or (not unplaced and all(device.empty for device in devices))
    free_shared = NOTHING
    if shared and devices:
        # All Pods of unknown GPU may be on the same one, as far as it takes so many.
        free_shared = max(NOTHING, min(device.free - sum(unplaced[: device.slots - 1]) for device in devices))
    return Room(
        left,
        min((device.free for device in devices), default=BOUNDLESS) if alone else NOTHING,
        free_shared,
        alone and all(device.untouched for device in devices),
        shared,
        devices,
        unplaced,
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """GPUs that one Pod of a Model has."""

    pod: GpuPod
    count: int
    freed: int
    """MiB free on the fullest of them once it has gone."""
    untouched: bool
    """Whether they are unused once it has gone."""


@dataclass(frozen=True, slots=True)
class Static:
    """What one resource of a node would have if no Pod were there."""

    offered: int
    shared: bool
    capacities: tuple[int, ...]
    """Usable MiB of each GPU, largest first; BOUNDLESS where it is not known."""
    total: int
    """MiB of its smallest GPU, of which Shared Pods have a share."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything about one node that decisions rest on."""

    static: Mapping[str, Static]
    now: Mapping[str, Room]
    soon: Mapping[str, Room]
    claims: Mapping[str, tuple[Claim, ...]]
    """Of Pods of Models that are not leaving."""
    loading: frozenset[str]
    """uids of Pods that have a load slot."""
    going: frozenset[str]
    """uids of the Pods that are leaving; without any, only memory that was left behind can become free."""
    reported: bool
    """Whether its agent's report is believed."""
    valid_until: datetime | None
    """When time alone changes this."""


@dataclass(frozen=True, slots=True)
class Site:
    """A node with the Pods that are bound to it."""

    node: Node
    pods: tuple[GpuPod, ...]
    survey: Survey


def survey(
    node: Node, pods: Sequence[GpuPod], leaving: Collection[str], policy: CapacityPolicy, now: datetime
) -> Survey:
    """The room on a node; `pods` are those bound to it, `leaving` has the uids of those that are about to go."""
    moments: list[datetime] = []
    reported = _is_fresh(node, policy, now, moments)
    going = {pod.uid for pod in pods if pod.uid in leaving and _goes(pod, policy, now, moments)}
    loading = frozenset(pod.uid for pod in pods if _loads(pod, policy, now, moments))
    static, room_now, room_soon, claims = {}, {}, {}, {}
    for resource, offered in node.allocatable.items():
        bench = _Bench(node, resource, offered, reported, policy)
        users = [pod for pod in pods if resource in pod.gpus]
        static[resource] = bench.static()
        room_now[resource] = bench.room(users, lingering=True)
        room_soon[resource] = bench.room([pod for pod in users if pod.uid not in going], lingering=False)
        claims[resource] = tuple(bench.claim(pod) for pod in users if pod.model and pod.uid not in leaving)
    return Survey(static, room_now, room_soon, claims, loading, frozenset(going), reported, min(moments, default=None))


def room_without(site: "Site", resource: str, gone: Collection[str], policy: CapacityPolicy) -> Room:
    """The room of a node once the Pods that are leaving and these others are gone."""
    away = {*site.survey.going, *gone}
    users = [pod for pod in site.pods if resource in pod.gpus and pod.uid not in away]
    bench = _Bench(site.node, resource, site.node.allocatable[resource], site.survey.reported, policy)
    return bench.room(users, lingering=False)


def _is_fresh(node: Node, policy: CapacityPolicy, now: datetime, moments: list[datetime]) -> bool:
    if node.report is None or not node.report.alive:
        return False
    return not _reached(node.report.at, policy.report_stale_after, now, moments)


def _goes(pod: GpuPod, policy: CapacityPolicy, now: datetime, moments: list[datetime]) -> bool:
    """Whether it is going to leave by itself; one whose grace period is long over is stuck."""
    return pod.ends_at is None or not _reached(pod.ends_at, policy.release_deadline, now, moments)


def _loads(pod: GpuPod, policy: CapacityPolicy, now: datetime, moments: list[datetime]) -> bool:
    if not pod.loading or pod.deleting or not pod.model or not pod.gpus:
        return False
    return not _reached(pod.bound_at or pod.created_at, policy.slot_timeout, now, moments)


def _reached(start: datetime, seconds: float, now: datetime, moments: list[datetime]) -> bool:
    end = start + timedelta(seconds=seconds)
    if now >= end:
        return True
    moments.append(end)
    return False


class _Bench:
    """One resource of one node."""

    def __init__(self, node: Node, resource: str, offered: int, reported: bool, policy: CapacityPolicy) -> None:
        self._resource = resource
        self._offered = offered
        self._headroom = policy.headroom_mib
        gpus: list[Gpu] = []
        if reported and node.report is not None:
            gpus = [gpu for gpu in node.report.gpus if gpu.resource == resource and gpu.healthy]
        if gpus:
            self._slots = max(1, offered // len(gpus))
        else:
            self._slots = _replicas(node, resource)
            total = _labelled_memory(node, resource)
            gpus = [Gpu("", resource, total)] * -(-offered // self._slots)
        self._gpus = gpus
        self._capacities = [
            BOUNDLESS if gpu.total_mib is None else gpu.total_mib - gpu.driver_mib - self._headroom for gpu in gpus
        ]

    def static(self) -> Static:
        totals = [gpu.total_mib for gpu in self._gpus if gpu.total_mib is not None]
        total = min(totals) if len(totals) == len(self._gpus) and totals else 0
        capacities = tuple(sorted(self._capacities, reverse=True))
        return Static(self._offered, self._slots > 1, capacities, total)

    def room(self, users: Sequence[GpuPod], *, lingering: bool) -> Room:
        """The room beside these Pods. `lingering` counts memory of Pods that are none of them."""
        known = {pod.uid: pod for pod in users}
        devices: list[Device] = []
        placed: set[str] = set()
        for gpu, capacity in zip(self._gpus, self._capacities, strict=True):
            holders = [uid for uid in {*gpu.holders, *gpu.measured} if uid in known]
            placed.update(holders)
            if len(holders) >= self._slots:
                continue
            used = gpu.foreign_mib
            if lingering:
                used += sum(mib for uid, mib in gpu.measured.items() if uid not in known)
            untouched = used <= self._headroom
            used += sum(_reserved(known[uid], capacity, gpu.measured.get(uid, 0)) for uid in holders)
            devices.append(Device(self._slots - len(holders), capacity - used, not holders, untouched))
        taken = sum(pod.gpus[self._resource] for pod in users)
        unplaced = [pod for pod in users if pod.uid not in placed]
        waiting = sum(pod.gpus[self._resource] for pod in unplaced)
        left = max(0, min(self._offered - taken, sum(device.slots for device in devices) - waiting))
        memory = tuple(sorted((_reserved(pod, BOUNDLESS, 0) for pod in unplaced), reverse=True))
        return room_of(left, tuple(devices) if left else (), memory, shared=self._slots > 1)

    def claim(self, pod: GpuPod) -> Claim:
        """What there would be without this Pod, on GPUs that no other Pod holds."""
        held = [
            (gpu, capacity)
            for gpu, capacity in zip(self._gpus, self._capacities, strict=True)
            if pod.uid in gpu.holders or pod.uid in gpu.measured
        ] or list(zip(self._gpus, self._capacities, strict=True))
        freed = min((capacity - gpu.foreign_mib for gpu, capacity in held), default=BOUNDLESS)
        untouched = all(gpu.foreign_mib <= self._headroom for gpu, _ in held)
        return Claim(pod, pod.gpus[self._resource], freed, untouched)


def _reserved(pod: GpuPod, whole: int, measured: int) -> int:
    """What is reserved for it on a GPU that it holds; of Pods of others what is measured, or all where nothing is."""
    if not pod.model:
        return measured or whole
    if not pod.shared or pod.memory_mib is None:
        return whole
    return max(pod.memory_mib, measured)


def _replicas(node: Node, resource: str) -> int:
    """How many Pods share one GPU, as GPU feature discovery says."""
    text = node.labels.get("nvidia.com/gpu.replicas", "")
    return max(1, int(text)) if resource.startswith(_NVIDIA) and text.isdigit() else 1


def _labelled_memory(node: Node, resource: str) -> int | None:
    """MiB of each GPU, as GPU feature discovery says; None where it says nothing."""
    if not resource.startswith(_NVIDIA):
        return None
    text = node.labels.get(f"{resource.removesuffix('.shared')}.memory", "")
    return int(text) if text.isdigit() else None
