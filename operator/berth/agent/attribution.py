"""Whose a process is: from its control group to its Pod. Pure, and silent where it would have to guess.

The control group names the uid of the Pod, in one of the spellings of kubelet and container runtimes, version 1 and
2 alike. That a process is in none makes it foreign: a program of the host, such as its own Ollama. The uid becomes a
name through kubelet's folders of logs, `<namespace>_<name>_<uid>`. PodResources knows no uids; where a folder is
missing it helps only if one Pod alone holds the GPU and the processes of one Pod alone are on it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from berth.agent.readings import Device, Holder, Owner

# One level of the path: pod<uid> with the cgroupfs driver, kubepods-burstable-pod<uid>.slice with systemd's, where
# dashes of the uid become underscores. A runtime that is not told of systemd makes kubepods-…-pod<uid>.slice:cri-…:<id>
# of it. The uid of a static Pod is the hash of its file. Seen from a control group namespace of our own the path
# begins with /../.. and may lack the levels above, so only this one counts.
_POD = re.compile(
    r"(?:^|-)pod"
    r"([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})"
    r"(?:\.slice)?(?::.*)?$"
)
_LOG_FOLDER = re.compile(r"([^_]+)_([^_]+)_([0-9a-f-]{32,36})")


@dataclass(frozen=True, slots=True)
class PodName:
    """Where a Pod is found."""

    namespace: str
    name: str


def pod_uid(cgroup: str) -> str | None:
    """The uid of the Pod that a process with this /proc/<pid>/cgroup is in; None for a program of the host.

    Where Pods are nested (a cluster in a Pod), the outermost counts: it is the one that this kubelet knows.
    """
    for line in cgroup.splitlines():
        path = line.partition(":")[2].partition(":")[2]
        for level in path.split("/"):
            if found := _POD.search(level):
                return found.group(1).replace("_", "-")
    return None


def pods_of_log_folders(names: Iterable[str]) -> dict[str, PodName]:
    """Pods by uid, from the names of the folders in /var/log/pods."""
    found = (_LOG_FOLDER.fullmatch(name) for name in names)
    return {match[3]: PodName(match[1], match[2]) for match in found if match}


def owners(
    devices: Iterable[Device],
    cgroups: Mapping[int, str],
    pods: Mapping[str, PodName],
    holders: Mapping[str, tuple[Holder, ...]],
) -> dict[tuple[str, int], Owner]:
    """Whose each process on each device is, by the device's uuid and the pid.

    A pid without a control group (it ended meanwhile) belongs to nobody that is known.
    """
    result: dict[tuple[str, int], Owner] = {}
    for device in devices:
        uids = {process.pid: pod_uid(cgroups[process.pid]) for process in device.processes if process.pid in cgroups}
        named = pods
        if only := _only_pod(uids.values(), pods, holders.get(device.uuid, ())):
            named = {**pods, only[0]: only[1]}
        for process in device.processes:
            result[device.uuid, process.pid] = _owner(process.pid, uids, named)
    return result


def _owner(pid: int, uids: Mapping[int, str | None], named: Mapping[str, PodName]) -> Owner:
    if pid not in uids:
        return Owner()
    uid = uids[pid]
    if uid is None:
        return Owner(foreign=True)
    if (name := named.get(uid)) is None:
        return Owner(pod_uid=uid)
    return Owner(pod_uid=uid, namespace=name.namespace, pod=name.name)


def _only_pod(
    uids: Iterable[str | None], pods: Mapping[str, PodName], holders: tuple[Holder, ...]
) -> tuple[str, PodName] | None:
    """The uid and name that belong together because there is one of each."""
    present = {uid for uid in uids if uid is not None}
    holding = {PodName(holder.namespace, holder.pod) for holder in holders}
    if len(present) != 1 or len(holding) != 1 or present <= pods.keys():
        return None
    return present.pop(), holding.pop()


def by_device(held: Iterable[tuple[Holder, str]], devices: Iterable[Device]) -> dict[str, tuple[Holder, ...]]:
    """Holders by uuid, from what kubelet calls the devices.

    NVIDIA's device plugin calls them by uuid, with `::<replica>` behind it where several share one. The one of GKE says
    nvidia<minor>, and /vgpu<replica> behind it; the DRA driver says gpu-<minor>.
    """
    known = list(devices)
    names: dict[str, str] = {}
    for device in known:
        names[device.uuid] = device.uuid
        if device.minor is not None and device.parent is None:
            names |= {f"nvidia{device.minor}": device.uuid, f"gpu-{device.minor}": device.uuid}
    result: dict[str, set[Holder]] = defaultdict(set)
    for holder, called in held:
        name = called.partition("::")[0]
        if "/vgpu" in name:
            name = name.partition("/")[0]
        if (uuid := names.get(name)) is not None:
            result[uuid].add(holder)
    return {
        uuid: tuple(sorted(found, key=lambda holder: (holder.namespace, holder.pod, holder.container)))
        for uuid, found in result.items()
    }
