"""The test data of gitops/argocd: where it lies, what is expected of it, and how a live object becomes a part of it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from support.models import Manifest

ROOT = Path(__file__).resolve().parents[2]
CUSTOMIZATIONS = ROOT / "gitops/argocd/resource_customizations/berth.dev"
KINDS = ("Model", "ModelCache", "GPUNode")

HEALTH: Mapping[str, Mapping[str, str]] = {
    "Model": {
        "new": "Progressing",
        "changed": "Progressing",
        "pending": "Progressing",
        "provisioning": "Progressing",
        "queued": "Progressing",
        "loading": "Progressing",
        "ready": "Healthy",
        "updating": "Progressing",
        "degraded": "Progressing",
        "draining": "Progressing",
        "stopped": "Healthy",
        "stopped-on-demand": "Healthy",
        "scaled-to-zero": "Healthy",
        "asleep": "Healthy",
        "failed": "Degraded",
        "refused": "Degraded",
        "stuck": "Degraded",
    },
    "ModelCache": {
        "new": "Progressing",
        "without-claim": "Progressing",
        "busy": "Progressing",
        "empty": "Healthy",
        "unusable": "Degraded",
    },
    "GPUNode": {"new": "Healthy", "reported": "Healthy"},
}
"""What Argo CD makes of each object in the test data."""

OFFERED: Mapping[str, frozenset[str]] = {
    "new": frozenset({"stop"}),
    "changed": frozenset({"stop", "restart"}),
    "pending": frozenset({"stop"}),
    "provisioning": frozenset({"stop"}),
    "queued": frozenset({"stop"}),
    "loading": frozenset({"stop", "restart"}),
    "ready": frozenset({"stop", "restart"}),
    "updating": frozenset({"stop", "restart"}),
    "degraded": frozenset({"stop", "restart"}),
    "draining": frozenset({"start"}),
    "stopped": frozenset({"start"}),
    "stopped-on-demand": frozenset({"start"}),
    "scaled-to-zero": frozenset({"stop"}),
    "asleep": frozenset({"start", "stop"}),
    "failed": frozenset({"start", "stop"}),
    "refused": frozenset({"stop"}),
    "stuck": frozenset({"start", "stop"}),
}
"""The actions that are not greyed out for each Model in the test data."""

_NOW = "0001-01-01T00:00:00Z"
"""Stands for the time of an action, as in Argo's own tests."""
_STAMPED = ("berth.dev/start", "berth.dev/restart")
OUTPUTS: Mapping[tuple[str, str], Manifest] = {
    ("start", "stopped"): {"spec": {"state": "Running"}},
    ("start", "stopped-on-demand"): {"spec": {"state": "OnDemand"}, "annotations": {"berth.dev/start": _NOW}},
    ("start", "asleep"): {"annotations": {"berth.dev/start": _NOW}},
    ("start", "failed"): {"annotations": {"berth.dev/start": _NOW}},
    ("stop", "ready"): {"spec": {"state": "Stopped"}},
    ("stop", "asleep"): {"spec": {"state": "Stopped"}},
    ("restart", "ready"): {"annotations": {"berth.dev/restart": _NOW}},
}
"""What an action changes of an object in the test data."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_SINCE = "2026-11-02T09:30:00Z"


def load(kind: str, case: str) -> Manifest:
    """An object of the test data."""
    found: Manifest = yaml.safe_load((CUSTOMIZATIONS / kind / "testdata" / f"{case}.yaml").read_text())
    return found


def as_test_data(live: Manifest) -> str:
    """A live object, without what differs each time it is made."""
    name, namespace = live["metadata"]["name"], live["metadata"].get("namespace")
    kept = {"name": name, **({"namespace": namespace} if namespace else {})}
    kept |= {"generation": live["metadata"]["generation"], "uid": "7d4f2c1e-0b7a-4a55-9d0e-3f6c1c2b8a11"}
    kept |= {"resourceVersion": "4711", "creationTimestamp": _SINCE}
    text = yaml.safe_dump({**live, "metadata": kept}, sort_keys=False, width=110, allow_unicode=True)
    if namespace:
        text = text.replace(namespace, "team-a")
    return _TIME.sub(_SINCE, text)


def without_time_of_action(obj: Manifest) -> Manifest:
    """The object with the time of an action replaced, as Argo's tests do it."""
    annotations = obj["metadata"].get("annotations") or {}
    for key in _STAMPED:
        if key in annotations:
            assert _TIME.fullmatch(annotations[key]), annotations[key]
            annotations = {**annotations, key: _NOW}
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}} if annotations else obj


def expected_output(action: str, case: str) -> Manifest:
    """What an action makes of an object of the test data."""
    change, obj = OUTPUTS[action, case], load("Model", case)
    metadata = obj["metadata"]
    if "annotations" in change:
        metadata = {**metadata, "annotations": {**metadata.get("annotations", {}), **change["annotations"]}}
    return {**obj, "metadata": metadata, "spec": {**obj["spec"], **change.get("spec", {})}}


def shown(status: Mapping[str, Any]) -> tuple[str, dict[str, tuple[str, str]]]:
    """What a status says apart from numbers, times and words."""
    conditions = {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions") or ()}
    return status.get("phase", ""), conditions


def expected_message(kind: str, obj: Manifest) -> str:
    """The message that Argo CD shows beside the health."""
    status = obj.get("status") or {}
    if kind == "GPUNode":
        return str((status.get("summary") or {}).get("health", "the agent on this node has not reported yet"))
    if status["observedGeneration"] != obj["metadata"]["generation"]:
        return "Berth has not looked at the latest change yet"
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    return f"{ready['reason']}: {ready['message']}"


def health_test(kind: str) -> str:
    """health_test.yaml, as Argo CD reads it."""
    tests = [
        {
            "healthStatus": {"status": status, "message": expected_message(kind, load(kind, case))},
            "inputPath": f"testdata/{case}.yaml",
        }
        for case, status in HEALTH[kind].items()
    ]
    return yaml.safe_dump({"tests": tests}, sort_keys=False, width=110)


def action_test() -> str:
    """action_test.yaml, as Argo CD reads it."""
    looks = {"start": ("Start", "play-circle"), "stop": ("Stop", "stop-circle"), "restart": ("Restart", "redo")}
    discovery = [
        {
            "inputPath": f"../testdata/{case}.yaml",
            "result": [
                {
                    "name": name,
                    "displayName": title,
                    "iconClass": f"fa fa-fw fa-{icon}",
                    "disabled": name not in offered,
                }
                for name, (title, icon) in looks.items()
            ],
        }
        for case, offered in OFFERED.items()
    ]
    acting = [
        {
            "action": action,
            "inputPath": f"../testdata/{case}.yaml",
            "expectedOutputPath": f"testdata/{case}-{action}.yaml",
        }
        for action, case in OUTPUTS
    ]
    return yaml.safe_dump({"discoveryTests": discovery, "actionTests": acting}, sort_keys=False, width=110)


def write_tests() -> None:
    """Write everything that follows from the test data and from what is expected of it."""
    for kind in KINDS:
        (CUSTOMIZATIONS / kind / "health_test.yaml").write_text(health_test(kind))
    actions = CUSTOMIZATIONS / "Model/actions"
    (actions / "action_test.yaml").write_text(action_test())
    for action, case in OUTPUTS:
        text = yaml.safe_dump(expected_output(action, case), sort_keys=False, width=110, allow_unicode=True)
        (actions / "testdata" / f"{case}-{action}.yaml").write_text(text)
