"""From a look at the node to what its GPUNode says."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from berth.agent.readings import (
    Device,
    DriverReading,
    DriverTrouble,
    Holder,
    Holders,
    Memory,
    Owner,
    Process,
    Snapshot,
    Xid,
)
from berth.agent.status import status_from
from berth.api.gpu_node import MOST_PROCESSES, GPUNodeStatus

MIB, GIB = 2**20, 2**30
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
FRESH = GPUNodeStatus()
H100 = Device("GPU-a", "NVIDIA H100", index=0, memory=Memory(80 * GIB, 16 * GIB, 512 * MIB))
OTHER = replace(H100, uuid="GPU-b", index=1)
SILENT = DriverTrouble("DriverNotLoaded", "the NVIDIA kernel module is not loaded")


def look(*devices: Device, **more: Any) -> Snapshot:
    reading = DriverReading("580.65.06", "13.0", devices)
    return Snapshot(**{"driver": reading, "boot_id": "boot-1", "host_memory": Memory(64 * GIB, 8 * GIB), **more})


def report(snapshot: Snapshot, previous: GPUNodeStatus = FRESH, later: float = 0) -> GPUNodeStatus:
    return status_from(snapshot, previous, 1, NOW + timedelta(seconds=later))


def condition(status: GPUNodeStatus, kind: str) -> tuple[str, str]:
    found = next(one for one in status.conditions or () if one.type == kind)
    return found.status, found.reason


def summary(status: GPUNodeStatus) -> tuple[str, str, str]:
    assert status.summary is not None
    return status.summary.gpus, status.summary.memory, status.summary.health


def test_a_node_in_order_in_full() -> None:
    owners = {("GPU-a", 7): Owner(pod_uid="u-1", namespace="team", pod="chat"), ("GPU-a", 8): Owner(foreign=True)}
    device = replace(
        H100, utilisation=5, temperature=40, power_milliwatts=70499, ecc_errors=0, recovery=0,
        processes=(Process(7, 15 * GIB), Process(8, 900 * MIB)),
    )  # fmt: skip
    holders = Holders({"GPU-a": (Holder("team", "chat", "server"),)})
    status = report(look(device, owners=owners, commands={7: "vllm", 8: "ollama"}, holders=holders))
    assert status.to_json() == {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "reason": reason,
                "message": message,
                "lastTransitionTime": "2026-11-24T12:00:00Z",
                "observedGeneration": 1,
            }
            for kind, reason, message in (
                ("Ready", "DriverAnswers", "the driver 580.65.06 answers"),
                ("HoldersKnown", "KubeletAnswers", "kubelet says which Pod holds which GPU"),
            )
        ],
        "summary": {"gpus": "1", "memory": "16.0/80.0 GiB", "health": "Healthy"},
        "driverVersion": "580.65.06",
        "cudaVersion": "13.0",
        "bootID": "boot-1",
        "hostMemory": {"totalMiB": 65536, "usedMiB": 8192},
        "gpus": [
            {
                "uuid": "GPU-a",
                "product": "NVIDIA H100",
                "index": 0,
                "mig": False,
                "memory": {"totalMiB": 81920, "usedMiB": 16384, "reservedMiB": 512},
                "utilisationPercent": 5,
                "temperatureCelsius": 40,
                "powerWatts": 70,
                "health": {"healthy": True, "eccErrors": 0},
                "holders": [{"namespace": "team", "pod": "chat", "container": "server"}],
                "foreignMiB": 900,
                "processes": [
                    {
                        "pid": 7,
                        "command": "vllm",
                        "memoryMiB": 15360,
                        "foreign": False,
                        "podUid": "u-1",
                        "namespace": "team",
                        "pod": "chat",
                    },
                    {"pid": 8, "command": "ollama", "memoryMiB": 900, "foreign": True},
                ],
            }
        ],
        "lastWrittenAt": "2026-11-24T12:00:00Z",
    }


def test_of_many_processes_the_biggest_are_listed_and_all_foreign_ones_counted() -> None:
    processes = tuple(Process(pid, pid * MIB) for pid in range(1, 101))
    owners = {("GPU-a", pid): Owner(foreign=True) for pid in range(1, 101)}
    (gpu,) = report(look(replace(H100, processes=processes), owners=owners)).gpus or ()
    assert [process.pid for process in gpu.processes or ()] == list(range(100, 100 - MOST_PROCESSES, -1))
    assert gpu.foreign_mi_b == 5050


def test_a_gpu_without_memory_of_its_own_shows_that_of_the_node() -> None:
    status = report(look(replace(H100, memory=None)))
    assert (status.gpus or [])[0].memory is None
    assert summary(status) == ("1", "8.0/64.0 GiB (host)", "Healthy")


def test_mig_devices_count_with_their_gpu() -> None:
    part = Device("MIG-1", "NVIDIA H100", parent="GPU-a", profile="1g.10gb", memory=Memory(10 * GIB, GIB))
    status = report(look(replace(H100, mig=True), part))
    assert summary(status) == ("1", "16.0/80.0 GiB", "Healthy")
    assert [(gpu.uuid, gpu.parent_uuid, gpu.profile) for gpu in status.gpus or ()] == [
        ("GPU-a", None, None),
        ("MIG-1", "GPU-a", "1g.10gb"),
    ]


def test_a_lost_gpu_is_unhealthy_and_the_others_go_on() -> None:
    status = report(look(H100, replace(OTHER, memory=None, lost="GPU is lost")))
    first, second = status.gpus or ()
    assert first.health.healthy
    assert (second.health.healthy, second.health.reason) == (False, "GPULost")
    assert summary(status) == ("1/2", "16.0/80.0 GiB", "GPULost")
    assert condition(status, "Ready") == ("True", "DriverAnswers")


def test_a_gpu_that_vanished_since_the_last_boot_fell_off_the_bus() -> None:
    status = report(look(H100), report(look(H100, OTHER)))
    gone = (status.gpus or [])[1]
    assert (gone.uuid, gone.product, gone.health.reason, gone.memory) == ("GPU-b", "NVIDIA H100", "GPULost", None)
    assert report(look(H100), status).gpus == status.gpus, "and stays so"
    assert (report(look(H100, OTHER), status).gpus or [])[1].health.healthy, "until it is back"


def test_after_a_reboot_a_gpu_that_is_not_there_was_taken_out() -> None:
    status = report(look(H100, boot_id="boot-2"), report(look(H100, OTHER)))
    assert [gpu.uuid for gpu in status.gpus or ()] == ["GPU-a"]


def test_mig_devices_that_vanish_were_taken_apart() -> None:
    part = Device("MIG-1", "NVIDIA H100", parent="GPU-a", profile="1g.10gb")
    status = report(look(H100), report(look(replace(H100, mig=True), part)))
    assert [gpu.uuid for gpu in status.gpus or ()] == ["GPU-a"]


def test_a_lost_gpu_that_the_driver_cannot_name_has_the_name_it_had() -> None:
    nameless = Device("", "", index=1, lost="GPU is lost")
    status = report(look(H100, nameless), report(look(H100, OTHER)))
    assert [gpu.uuid for gpu in status.gpus or ()] == ["GPU-a", "GPU-b"]
    numbered = report(look(H100, nameless))
    assert [gpu.uuid for gpu in numbered.gpus or ()] == ["GPU-a", "lost-1"], "or its number"
    assert [gpu.uuid for gpu in report(look(H100, OTHER), numbered).gpus or ()] == ["GPU-a", "GPU-b"], (
        "until it is back"
    )


def test_numbers_that_shift_give_no_two_gpus_one_name() -> None:
    third = replace(H100, uuid="GPU-c", index=2)
    before = report(look(H100, OTHER, third))
    nameless = [Device("", "", index=number, lost="GPU is lost") for number in (2, 3)]
    status = report(look(H100, replace(third, index=1), *nameless), before)
    assert [gpu.uuid for gpu in status.gpus or ()] == ["GPU-a", "GPU-c", "lost-2", "lost-3", "GPU-b"]


def test_while_the_driver_does_not_answer_the_gpus_are_known_and_unhealthy() -> None:
    status = report(look(driver=SILENT), report(look(H100, OTHER)))
    assert condition(status, "Ready") == ("False", "DriverNotLoaded")
    assert [gpu.health.reason for gpu in status.gpus or ()] == ["DriverUnavailable"] * 2
    assert summary(status) == ("0/2", "", "DriverNotLoaded")
    assert status.driver_version is None
    back = report(look(H100, OTHER), status)
    assert condition(back, "Ready") == ("True", "DriverAnswers")
    assert all(gpu.health.healthy for gpu in back.gpus or ())


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [(look(driver=SILENT), "DriverNotLoaded"), (look(), "NoGPU")],
    ids=["without a driver", "with a driver and no GPU"],
)
def test_a_node_without_gpus_says_why(snapshot: Snapshot, reason: str) -> None:
    status = report(snapshot)
    assert condition(status, "Ready") == ("False", reason)
    assert summary(status) == ("0", "", reason)


def test_a_silent_kubelet_is_a_condition_of_its_own() -> None:
    holders = Holders({"GPU-a": (Holder("team", "chat", "server"),)}, "kubelet does not answer")
    status = report(look(H100, holders=holders))
    assert condition(status, "HoldersKnown") == ("False", "KubeletSilent")
    assert condition(status, "Ready") == ("True", "DriverAnswers")
    assert (status.gpus or [])[0].holders, "the last that it said"


def test_a_condition_keeps_its_time_while_it_holds() -> None:
    first = report(look(H100))
    same, other = report(look(H100), first, later=60), report(look(driver=SILENT), first, later=60)
    times = [(status.conditions or [])[0].last_transition_time for status in (first, same, other)]
    assert times == ["2026-11-24T12:00:00Z", "2026-11-24T12:00:00Z", "2026-11-24T12:01:00Z"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"recovery": 0}, None),
        ({"recovery": 1}, "ResetRequired"),
        ({"recovery": 2}, "RebootRequired"),
        ({"recovery": 99}, "RecoveryRequired"),
        ({"remapping_failed": True}, "MemoryBroken"),
        ({"xids": (Xid(79, NOW),)}, "XidError"),
        ({"xids": (Xid(31, NOW), Xid(43, NOW))}, None),
        ({"xids": (Xid(79, NOW), Xid(31, NOW))}, "XidError"),
        ({"xids": (Xid(79, NOW),), "recovery": 0}, None),
        ({"ecc_errors": 3}, None),
    ],
    ids=[
        "the driver asks for nothing", "for a reset", "for a reboot", "for something new", "broken memory",
        "an error of the hardware", "errors of programs", "an error of the hardware and then one of a program",
        "an error that the driver says is dealt with", "memory errors alone",
    ],
)  # fmt: skip
def test_what_makes_a_gpu_unhealthy(change: dict[str, Any], reason: str | None) -> None:
    health = (report(look(replace(H100, **change))).gpus or [])[0].health
    assert (health.healthy, health.reason) == (reason is None, reason)
    assert bool(health.message) is (reason is not None)


def test_the_latest_xid_errors_are_listed() -> None:
    xids = tuple(Xid(number, NOW + timedelta(seconds=number)) for number in range(20))
    health = (report(look(replace(H100, xids=xids))).gpus or [])[0].health
    assert [one.xid for one in health.xids or ()] == list(range(12, 20))
    assert (health.xids or [])[-1].at == "2026-11-24T12:00:19Z"
