"""When a status is worth a write."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from berth.agent.status import timestamp
from berth.agent.writing import patch, worth_writing
from berth.api.gpu_node import GPUNodeStatus

WRITTEN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SOON, LATER, LATE = (WRITTEN + timedelta(seconds=seconds) for seconds in (2, 30, 300))
CHAT = {"pid": 7, "command": "vllm", "memoryMiB": 9000, "podUid": "u-1", "namespace": "team", "pod": "chat"}
OLLAMA = {"pid": 8, "command": "ollama", "memoryMiB": 900, "foreign": True}


def gpu(**changes: Any) -> dict[str, Any]:
    return {
        "uuid": "GPU-a",
        "product": "H100",
        "memory": {"totalMiB": 81920, "usedMiB": 10000, "reservedMiB": 600},
        "health": {"healthy": True},
        "holders": [{"namespace": "team", "pod": "chat", "container": "server"}],
        "processes": [CHAT, OLLAMA],
        "foreignMiB": 900,
        "temperatureCelsius": 40,
        **changes,
    }


def status(*gpus: dict[str, Any], **changes: Any) -> GPUNodeStatus:
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "DriverAnswers",
        "message": "",
        "lastTransitionTime": timestamp(WRITTEN),
        "observedGeneration": 1,
    }
    return GPUNodeStatus.model_validate(
        {
            "observedGeneration": 1,
            "conditions": [ready],
            "driverVersion": "580",
            "bootID": "boot",
            "hostMemory": {"totalMiB": 64000, "usedMiB": 8000},
            "gpus": list(gpus) or [gpu()],
            "lastWrittenAt": timestamp(WRITTEN),
            **changes,
        }
    )


def used(mib: int) -> dict[str, Any]:
    return gpu(memory={"totalMiB": 81920, "usedMiB": mib, "reservedMiB": 600})


def test_the_first_status_is_written() -> None:
    assert worth_writing(GPUNodeStatus(), status(), SOON)


def test_nothing_new_is_not_written_for_five_minutes() -> None:
    assert worth_writing(status(), status(), SOON) is None
    assert worth_writing(status(), status(), LATE - timedelta(seconds=1)) is None
    assert worth_writing(status(), status(), LATE)


def test_a_clock_that_was_put_back_does_not_silence_the_agent() -> None:
    assert worth_writing(status(), status(), WRITTEN - timedelta(hours=1))


def test_an_unreadable_time_counts_as_never() -> None:
    assert worth_writing(status(lastWrittenAt="yesterday"), status(), SOON)


@pytest.mark.parametrize(
    "changed",
    [
        gpu(temperatureCelsius=80, utilisationPercent=99, powerWatts=700),
        used(10255),
        used(9745),
        gpu(processes=[{**CHAT, "pid": 70}, OLLAMA]),
        gpu(processes=[CHAT, OLLAMA, {"pid": 9, "command": "nvtop", "memoryMiB": 20, "foreign": True}], foreignMiB=920),
        gpu(memory={"totalMiB": 81920, "usedMiB": 10000, "reservedMiB": 620}),
    ],
    ids=[
        "warmer and busier", "a little more memory", "a little less", "a process that was restarted",
        "a small process", "the driver takes a little more",
    ],
)  # fmt: skip
def test_what_changes_all_the_time_is_not_worth_a_write(changed: dict[str, Any]) -> None:
    assert worth_writing(status(), status(changed), LATER) is None


@pytest.mark.parametrize(
    "changed",
    [
        used(9744),
        gpu(holders=[]),
        gpu(holders=[{"namespace": "team", "pod": "code", "container": "server"}]),
        gpu(health={"healthy": False, "reason": "GPULost"}),
        gpu(health={"healthy": True, "xids": [{"xid": 31, "at": timestamp(WRITTEN)}]}),
        gpu(health={"healthy": True, "eccErrors": 1}),
        gpu(processes=[CHAT], foreignMiB=0),
        gpu(processes=[{**CHAT, "namespace": None, "pod": None}, OLLAMA]),
        gpu(processes=[CHAT, OLLAMA, {"pid": 9, "command": "x", "foreign": True}]),
        gpu(memory=None),
        gpu(mig=True),
        gpu(product="H200"),
    ],
    ids=[
        "memory became free", "nobody holds it", "another holds it", "it is lost", "an XID error", "a memory error",
        "the foreign process ended", "it is another's", "a process of unknown size", "its memory is unknown",
        "it was cut", "it was exchanged",
    ],
)  # fmt: skip
def test_what_matters_is_written_at_once(changed: dict[str, Any]) -> None:
    assert worth_writing(status(), status(changed), SOON)


@pytest.mark.parametrize(
    "changed",
    [
        {"driverVersion": "590"},
        {"bootID": "another"},
        {"observedGeneration": 2},
        {"conditions": None},
        {"gpus": []},
        {"gpus": [gpu(), gpu(uuid="GPU-b")]},
    ],
    ids=["driver", "boot", "generation", "condition", "a GPU went", "a GPU came"],
)
def test_a_change_of_the_node_is_written_at_once(changed: dict[str, Any]) -> None:
    assert worth_writing(status(), status(**changed), SOON)


def test_memory_that_fills_up_is_written_every_ten_seconds() -> None:
    loading = status(used(40000))
    assert worth_writing(status(), loading, SOON) is None
    assert worth_writing(status(), loading, WRITTEN + timedelta(seconds=10))


def test_a_foreign_process_that_takes_the_place_of_ours_shows_although_the_sum_is_the_same() -> None:
    swapped = gpu(processes=[{**CHAT, "memoryMiB": 8000}, {**OLLAMA, "memoryMiB": 1900}], foreignMiB=1900)
    assert worth_writing(status(), status(swapped), SOON)


def test_the_nodes_memory_counts_where_a_gpu_lives_on_it() -> None:
    less = {"hostMemory": {"totalMiB": 64000, "usedMiB": 7000}}
    assert worth_writing(status(), status(**less), LATER) is None
    assert worth_writing(status(gpu(memory=None)), status(gpu(memory=None), **less), LATER)


def test_a_write_takes_away_what_is_no_longer_so() -> None:
    body = patch(GPUNodeStatus(observed_generation=1))["status"]
    assert body.pop("observedGeneration") == 1
    assert set(body) == {
        "conditions", "summary", "driverVersion", "cudaVersion", "bootID", "hostMemory", "gpus", "lastWrittenAt",
    }  # fmt: skip
    assert set(body.values()) == {None}
