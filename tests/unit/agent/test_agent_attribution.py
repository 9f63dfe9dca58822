"""Whose a process is, by its control group, kubelet's folders of logs, and PodResources."""

import pytest

from berth.agent.attribution import PodName, by_device, owners, pod_uid, pods_of_log_folders
from berth.agent.readings import Device, Holder, Owner, Process

UID = "3f1f0f9e-5a0b-4c1d-9a59-2d4f1f0c7a11"
OTHER = "aaaaaaaa-5a0b-4c1d-9a59-2d4f1f0c7a11"
UNDERSCORED = UID.replace("-", "_")
ID = "0123456789abcdef" * 4
STATIC = "8d4f7e1c2b3a49586776859403f2e1d0"

SYSTEMD = "0::/kubepods.slice/kubepods"
BURSTABLE = f"{SYSTEMD}-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice"
BEST_EFFORT = f"{SYSTEMD}-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice"
CGROUPFS = f"/kubepods/besteffort/pod{UID}/{ID}"
KIND = f"0::/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"

IN_A_POD = {
    "version 2, systemd, containerd": f"{BURSTABLE}/cri-containerd-{ID}.scope",
    "version 2, systemd, guaranteed": f"{SYSTEMD}-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope",
    "version 2, systemd, cri-o": f"{BEST_EFFORT}/crio-{ID}.scope",
    "version 2, a group below the container": f"{BURSTABLE}/crio-{ID}.scope/container",
    "version 2, cgroupfs": f"0::{CGROUPFS}",
    "version 2, cgroupfs, guaranteed": f"0::/kubepods/pod{UID}/{ID}",
    "version 2, systemd, from a container": f"0::/../../kubepods-besteffort-pod{UNDERSCORED}.slice/crio-{ID}.scope",
    "version 2, cgroupfs, from a container": f"0::/../../pod{UID}/{ID}",
    "version 1": f"12:pids:{CGROUPFS}\n1:name=systemd:{CGROUPFS}\n0::/",
    "version 1, some controllers at the root": f"9:name=systemd:/\n5:devices:/\n4:memory:{CGROUPFS}\n0::/",
    "version 1, docker and systemd": f"{BURSTABLE}/docker-{ID}.scope".replace("0::", "4:memory:"),
    "a runtime without systemd under a kubelet with it": (
        f"4:memory:/system.slice/containerd.service/kubepods-burstable-pod{UNDERSCORED}.slice:cri-containerd:{ID}"
    ),
    "below another root": f"0::/berth-test-node{CGROUPFS}",
    "a node that is itself a container": (
        f"{KIND}/kubelet-kubepods-besteffort-pod{UNDERSCORED}.slice/cri-containerd-{ID}.scope"
    ),
    "a cluster in a Pod: the outer one counts": f"0::{CGROUPFS}/kubepods/besteffort/pod{OTHER}/{ID}",
}

ON_THE_HOST = {
    "a service": "0::/system.slice/ollama.service",
    "a login": "0::/user.slice/user-1000.slice/session-2.scope",
    "a container of Docker": f"0::/system.slice/docker-{ID}.scope",
    "a container of Podman": f"0::/machine.slice/libpod-{ID}.scope",
    "a pod of Podman": f"0::/machine.slice/machine-libpod_pod_{ID}.slice/libpod-{ID}.scope",
    "the root": "0::/",
    "version 1": "9:name=systemd:/\n4:memory:/system.slice/ollama.service\n0::/",
    "a service that only sounds like one": "0::/system.slice/podman-auto-update.service",
}


@pytest.mark.parametrize("cgroup", IN_A_POD.values(), ids=IN_A_POD)
def test_the_control_group_of_a_container_names_its_pod(cgroup: str) -> None:
    assert pod_uid(cgroup) == UID


@pytest.mark.parametrize("cgroup", ON_THE_HOST.values(), ids=ON_THE_HOST)
def test_a_program_of_the_host_is_in_no_pod(cgroup: str) -> None:
    assert pod_uid(cgroup) is None


@pytest.mark.parametrize("path", [f"kubepods/burstable/pod{STATIC}/{ID}", f"kubepods.slice/kubepods-pod{STATIC}.slice"])
def test_a_static_pod_has_the_hash_of_its_file_for_a_uid(path: str) -> None:
    assert pod_uid(f"0::/{path}") == STATIC


def test_folders_of_logs_name_the_pods() -> None:
    folders = [f"team-a_chat-7d9f-x2x_{UID}", f"kube-system_etcd-node_{STATIC}", "lost+found", "a_b"]
    assert pods_of_log_folders(folders) == {
        UID: PodName("team-a", "chat-7d9f-x2x"),
        STATIC: PodName("kube-system", "etcd-node"),
    }


def in_pod(uid: str) -> str:
    return f"0::/kubepods/pod{uid}/{ID}"


CHAT, CODE = Holder("team", "chat", "server"), Holder("team", "code", "server")


def one(*pids: int) -> Device:
    return Device("GPU-0", "H100", processes=tuple(Process(pid, 1) for pid in pids))


def test_a_process_in_a_pod_with_a_folder_of_logs_is_certain() -> None:
    pods = {UID: PodName("team", "chat")}
    found = owners([one(7)], {7: in_pod(UID)}, pods, {"GPU-0": (CODE,)})
    assert found == {("GPU-0", 7): Owner(pod_uid=UID, namespace="team", pod="chat")}, "whatever PodResources says"


def test_a_process_of_the_host_is_foreign_whoever_holds_the_gpu() -> None:
    assert owners([one(7)], {7: "0::/system.slice/ollama.service"}, {}, {"GPU-0": (CHAT,)}) == {
        ("GPU-0", 7): Owner(foreign=True)
    }


def test_without_the_folder_the_only_pod_that_holds_the_gpu_is_meant() -> None:
    found = owners([one(7, 8)], {7: in_pod(UID), 8: in_pod(UID)}, {}, {"GPU-0": (CHAT,)})
    assert set(found.values()) == {Owner(pod_uid=UID, namespace="team", pod="chat")}


@pytest.mark.parametrize(
    ("cgroups", "holders"),
    [
        ({7: in_pod(UID)}, (CHAT, CODE)),
        ({7: in_pod(UID)}, ()),
        ({7: in_pod(UID), 8: in_pod(OTHER)}, (CHAT,)),
    ],
    ids=["several Pods hold it", "no Pod holds it", "processes of several Pods are on it"],
)
def test_what_is_not_certain_is_left_open_but_for_the_uid(cgroups: dict[int, str], holders: tuple[Holder, ...]) -> None:
    assert owners([one(*cgroups)], cgroups, {}, {"GPU-0": holders})["GPU-0", 7] == Owner(pod_uid=UID)


def test_a_process_that_ended_meanwhile_is_nobodys_and_not_foreign() -> None:
    assert owners([one(7)], {}, {}, {"GPU-0": (CHAT,)}) == {("GPU-0", 7): Owner()}


def test_a_process_on_two_gpus_is_attributed_on_both() -> None:
    devices = [Device(f"GPU-{index}", "H100", processes=(Process(7, 1),)) for index in range(2)]
    found = owners(devices, {7: in_pod(UID)}, {UID: PodName("team", "chat")}, {})
    assert {uuid for uuid, _ in found} == {"GPU-0", "GPU-1"}


DEVICES = [
    Device("GPU-a", "H100", minor=0),
    Device("GPU-b", "H100", minor=1, mig=True),
    Device("MIG-c", "H100", parent="GPU-b", profile="1g.10gb"),
]


@pytest.mark.parametrize(
    ("called", "uuid"),
    [
        ("GPU-a", "GPU-a"),
        ("GPU-a::3", "GPU-a"),
        ("MIG-c", "MIG-c"),
        ("MIG-c::0", "MIG-c"),
        ("nvidia0", "GPU-a"),
        ("nvidia0/vgpu2", "GPU-a"),
        ("gpu-1", "GPU-b"),
    ],
)
def test_devices_are_known_by_the_names_that_plugins_give_them(called: str, uuid: str) -> None:
    assert by_device([(CHAT, called)], DEVICES) == {uuid: (CHAT,)}


@pytest.mark.parametrize("called", ["GPU-elsewhere", "nvidia1/gi3", "gpu-1-mig-9-0-1", "rdma0"])
def test_names_that_are_not_certain_are_left_out(called: str) -> None:
    assert by_device([(CHAT, called)], DEVICES) == {}


def test_several_holders_of_one_gpu_are_listed_in_order_and_once() -> None:
    held = [(CODE, "GPU-a::0"), (CHAT, "GPU-a::1"), (CHAT, "GPU-a::2")]
    assert by_device(held, DEVICES) == {"GPU-a": (CHAT, CODE)}
