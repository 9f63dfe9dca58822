"""What the operator tells of real starts: the timeline, the metrics, the log."""

import json
from collections.abc import Callable

import pytest

from support.kube import Cluster
from support.models import patch, wait_for_phase
from support.operator_process import OperatorProcess
from support.servers import HTTPD, shell

pytestmark = pytest.mark.cluster


def test_a_start_is_counted_once_and_each_transition_is_one_line(
    where: Cluster, namespace: str, start_operator: Callable[..., OperatorProcess]
) -> None:
    operator = start_operator("--log-format", "json")
    where.apply(shell("m", HTTPD), namespace=namespace)
    first = wait_for_phase(where, namespace, "m", "Ready", 60)
    patch(where, namespace, "m", {"spec": {"state": "Stopped"}})
    wait_for_phase(where, namespace, "m", "Stopped", 60)
    patch(where, namespace, "m", {"spec": {"state": "Running"}})
    again = wait_for_phase(where, namespace, "m", "Ready", 60)
    assert first["status"]["timeline"]["readyAt"] <= again["status"]["timeline"]["queuedAt"]
    assert again["status"]["phaseSince"] >= again["status"]["timeline"]["readyAt"]
    assert operator.metric("berth_model_start_seconds_count") == 2
    parts = {part: operator.metric("berth_model_start_part_seconds_sum", part=part) for part in ("creating", "loading")}
    assert sum(parts.values()) == operator.metric("berth_model_start_seconds_sum")
    told = [line for line in map(json.loads, operator.log.read_text().splitlines()) if "from" in line]
    assert {(line["model"], line["namespace"]) for line in told} == {("m", namespace)}
    steps = [(line["from"], line["to"]) for line in told]
    assert steps[0][0] == "Pending"
    assert [s for s in steps if "Draining" in s] == [("Ready", "Draining"), ("Draining", "Stopped")]
    assert steps[-1][1] == "Ready"
    assert all(line["reason"] and line["seconds"] >= 0 for line in told)
