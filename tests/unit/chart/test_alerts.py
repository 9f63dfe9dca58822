"""Each alert fires when it should, says what it should, and is silent otherwise: in Prometheus' own tests of rules."""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

import pinnedtools
from berth.agent.health import HARMLESS_XIDS
from support.chart import CHART

ROOT = CHART.parents[1]
RULES = CHART / "files/rules"
RUNBOOKS = "https://github.com/berth/berth/blob/main/docs/alerts.md#"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for path in sorted(RULES.glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
MODEL = {"namespace": "team-a", "model": "qwen"}
CACHE = {"namespace": "team-a", "cache": "default"}
NODE = {"node": "node-a"}
GPU = {**NODE, "uuid": "GPU-1", "product": "H100"}


@dataclass(frozen=True)
class Case:
    """Values of series, one a minute, and what an alert makes of them. Times are minutes."""

    alert: str
    series: dict[str, str]
    quiet: tuple[int, ...]
    """When it does not fire."""
    fires: int
    labels: dict[str, str] = field(default_factory=dict)
    value: str = ""
    """The number in the description."""


def series(name: str, values: str, /, **labels: str) -> dict[str, str]:
    """One series: `1x5 0x3` is six times 1, then four times 0; `_` is no sample."""
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {f"{name}{{{inner}}}": values}


def phase(name: str, values: str = "0x90") -> dict[str, str]:
    """A Model that is in a phase since minute 0, as two operators tell it one after the other."""
    metric = "berth_model_phase_since_timestamp_seconds"
    return series(metric, "0x20 stale", pod="a", **MODEL, phase=name) | series(
        metric, f"_x21 {values}", pod="b", **MODEL, phase=name
    )


def percent(what: str, labels: dict[str, str], before: int, after: int) -> dict[str, str]:
    """Memory or disk of 100 bytes that is used more from minute 5 on."""
    total = what.replace("used", "limit" if "cache" in what else "total")
    return series(what, f"{before}x4 {after}x40", **labels) | series(total, "100x50", **labels)


CASES = (
    Case("BerthOperatorDown", series("berth_leading", "1x5 stale", pod="a"), (5, 10), 12),
    Case(
        "BerthOperatorNotLeading",
        series("berth_leading", "1x5 0x20", pod="a") | series("berth_leading", "0x12 1x13", pod="b"),
        (5, 10, 15),
        12,
    ),
    Case(
        "BerthReconcilesFail",
        series("berth_reconciles_total", "0x60 0+1x60", result="failed"),
        (60, 70),
        90,
        value="29",  # of 30 looks, the first is what the others are compared with
    ),
    Case(
        "BerthUnequalApplies",
        series("berth_unequal_applies_total", "0x60 1x90", kind="Service"),
        (60, 130),
        70,
        {"kind": "Service"},
        "1",
    ),
    Case(
        "BerthOrphans",
        series("berth_orphans", "0x10 2x90", kind="Deployment")
        | series("berth_orphans", "3x100", kind="PersistentVolumeClaim"),
        (10, 60),
        75,
        {"kind": "Deployment"},
        "2",
    ),
    Case(
        "BerthModelFailed",
        series("berth_model_phase", "_x10 1x20", **MODEL, phase="Failed", pod="a")
        | series("berth_model_phase", "1x40", **{**MODEL, "model": "other"}, phase="Ready", pod="a"),
        (9, 14),
        17,
        MODEL,
    ),
    Case("BerthModelDegraded", phase("Degraded"), (29,), 31, MODEL, "31m 0s"),
    Case("BerthModelStuckLoading", phase("Loading"), (34,), 36, {**MODEL, "phase": "Loading"}, "36m 0s"),
    Case("BerthModelQueuedLong", phase("Queued"), (59,), 61, MODEL, "1h 1m 0s"),
    Case(
        "BerthQueueStarving",
        phase("Queued") | series("berth_capacity_admissions_total", "0x65 1x30"),
        (59, 64),  # at 64 it waits for long, and so does everybody
        67,
        MODEL,
        "1h 7m 0s",
    ),
    Case(
        "BerthDownloadsFail",
        series("berth_downloads_total", "0x60 1x19 2x19 3x30", result="Failed", reason="ServerError")
        | series("berth_downloads_total", "0+1x150", result="Succeeded", reason=""),
        (60, 90),
        105,
        {"reason": "ServerError"},
        "3",
    ),
    Case(
        "BerthModelCacheFailed",
        series("berth_model_caches", "_x10 1x20", phase="Failed") | series("berth_model_caches", "4x40", phase="Ready"),
        (9, 14),
        17,
        value="1",
    ),
    Case("BerthModelCacheNearlyFull", percent("berth_model_cache_used_bytes", CACHE, 89, 93), (4, 18), 21, CACHE,
         "93%"),
    Case(
        "BerthGPUMemoryHigh",
        percent("berth_gpu_memory_used_bytes", GPU, 80, 84)
        | series("berth_gpu_memory_reserved_bytes", "2x50", **GPU)
        | percent("berth_gpu_memory_used_bytes", {**GPU, "uuid": "GPU-2"}, 80, 85),
        (4, 18),
        21,
        GPU,
        "86%",
    ),
    Case("BerthHostMemoryHigh", percent("berth_host_memory_used_bytes", NODE, 85, 91), (4, 18), 21, NODE, "91%"),
    Case(
        "BerthGPUUnhealthy",
        series("berth_gpu_healthy", "1x5 0x20", **GPU)
        | series("berth_gpu_healthy", "1x30", **{**GPU, "uuid": "GPU-2"}),
        (5, 7),
        9,
        GPU,
    ),
    Case("BerthGPUMemoryErrors", series("berth_gpu_ecc_errors", "2x90 5x90", **GPU), (90, 160), 100, GPU, "3"),
    Case(
        "BerthGPUXidErrors",
        series("berth_gpu_xid_errors_total", "_x20 1x19 3x40", **GPU, xid="79")
        | series("berth_gpu_xid_errors_total", "0+1x80", **GPU, xid="13"),
        (19, 37, 70),
        24,
        {**GPU, "xid": "79"},
        "1",
    ),
    Case("BerthGPUXidErrors", series("berth_gpu_xid_errors_total", "1x40 3x40", **GPU, xid="79"), (40,), 50,
         {**GPU, "xid": "79"}, "2"),
    Case("BerthGPUDriverDown", series("berth_gpu_driver_up", "1x5 0x20", **NODE), (5, 15), 17, NODE),
    Case("BerthAgentSilent", series("berth_capacity_unreported_nodes", "0x5 2x30", pod="a"), (5, 20), 22, value="2"),
    Case(
        "BerthAgentStuck",
        series("berth_agent_last_look_timestamp_seconds", "0+60x10 600x20", **NODE),
        (10, 16),
        18,
        NODE,
        "8m 0s",
    ),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_when_it_should_and_not_otherwise(case: Case, tmp_path: Path) -> None:
    expected = {"exp_labels": {**ALERTS[case.alert]["labels"], **case.labels}, "exp_annotations": _said(case)}
    looks = [{"alertname": case.alert, "eval_time": f"{minute}m", "exp_alerts": []} for minute in case.quiet]
    looks.append({"alertname": case.alert, "eval_time": f"{case.fires}m", "exp_alerts": [expected]})
    given = [{"series": name, "values": values} for name, values in case.series.items()]
    tests = [{"interval": "1m", "input_series": given, "alert_rule_test": looks}]
    rules = [str(path) for path in sorted(RULES.glob("*.yaml"))]
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run((str(pinnedtools.promtool()), "test", "rules", str(file)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _said(case: Case) -> dict[str, str]:
    """The annotations, with the labels and the number of this case in their places."""

    def fill(text: str) -> str:
        named = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: case.labels[found[1]], text)
        return re.sub(r"\{\{ \$value \| [^}]+ \}\}", case.value, named)

    return {name: fill(text) for name, text in ALERTS[case.alert]["annotations"].items()}


@pytest.mark.slow
def test_promtool_finds_nothing_in_the_rules() -> None:
    files = [str(path) for path in sorted(RULES.glob("*.yaml"))]
    done = subprocess.run((str(pinnedtools.promtool()), "check", "rules", "--lint=all", *files), capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    assert {case.alert for case in CASES} == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}{name.lower()}"
    assert rule["annotations"]["description"].endswith(".")


def test_the_runbook_has_a_section_for_every_alert_and_no_other() -> None:
    headings = re.findall(r"^### (Berth\w+)$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)
    assert headings == list(dict.fromkeys(headings))
    assert set(headings) == ALERTS.keys()


def test_xids_that_are_no_fault_of_the_gpu_are_no_alert() -> None:
    left_out = re.findall(r'xid!~"([\d|]+)"', ALERTS["BerthGPUXidErrors"]["expr"])
    assert [set(map(int, one.split("|"))) for one in left_out] == [HARMLESS_XIDS, HARMLESS_XIDS]
