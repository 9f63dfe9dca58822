"""Prometheus itself answers every question of the dashboards, asked of a small cluster where everything is exported.

Reading a question finds no mistakes of matching: those show only when there are series to match.
"""

import itertools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import pinnedtools
from generation import metrics
from support.chart import CHART

pytestmark = pytest.mark.slow

LABELS = {
    "namespace": ["team-a"],
    "model": ["qwen", "llama"],
    "phase": ["Ready", "Queued", "Failed", "Degraded", "Loading", "Stopped"],
    "cache": ["default"],
    "node": ["node-a", "node-b"],
    "uuid": ["GPU-1", "GPU-2"],
    "product": ["H100"],
    "pod": ["qwen-5d4f-abcde"],
    "container": ["server"],
    "pod_uid": ["1"],
    "reason": ["ServerError"],
    "result": ["failed", "Failed", "done"],
    "kind": ["Service"],
    "status": ["200", "409"],
    "verb": ["get"],
    "resource": ["models"],
    "xid": ["79"],
    "part": ["loading", "queued"],
    "from_phase": ["Loading"],
    "to_phase": ["Failed"],
    "step": ["fetch"],
}
IDLE = {"operator-b", "node-b", "llama"}
"""Their gauges are 0; all others are 1."""
VARIABLES = {
    "$__rate_interval": "5m", "$__range": "3h", "$namespace": "team-a", "$model": "qwen", "$node": ".*",
}  # fmt: skip
Series = dict[str, str]


def series(name: str, labels: tuple[str, ...], rising: bool, **fixed: str) -> Iterator[Series]:
    """One series for each combination of the values of its labels, for five hours."""
    open_labels = [label for label in labels if label not in fixed]
    for values in itertools.product(*(LABELS[label] for label in open_labels)):
        given = {**dict(zip(open_labels, values, strict=True)), **fixed}
        inner = ",".join(f'{label}="{value}"' for label, value in given.items())
        still = 0 if IDLE & set(given.values()) else 1
        yield {"series": f"{name}{{{inner}}}", "values": "0+1x300" if rising else f"{still}x300"}


def of_metric(one: metrics.Exported, **target: str) -> Iterator[Series]:
    """All series of a metric, from one target."""
    fixed = {label: value for label, value in target.items() if label not in one.labels}
    for name in one.series:
        for bound in ("1", "60", "+Inf") if name.endswith("_bucket") else (None,):
            le = {} if bound is None else {"le": bound}
            yield from series(name, one.labels, one.kind != "gauge", **fixed, **le)


def cluster() -> Iterator[Series]:
    """Two operators of which one leads, two nodes with an agent each, and servers of every backend."""
    for one in metrics.of_operator():
        yield from of_metric(one, pod="operator-a", instance="a")
    yield from series("berth_leading", (), rising=False, pod="operator-b", instance="b")
    for one in metrics.of_agent():
        yield from of_metric(one, pod="agent", instance="c")
    for name in itertools.chain(*metrics.of_servers().values()):
        for le in ({"le": "1"}, {"le": "+Inf"}) if name.endswith("_bucket") else ({},):
            yield from series(name, ("namespace", "model", "pod"), name.endswith(("_total", "_sum", "_bucket")), **le)
    for name, instance in itertools.product(("process_resident_memory_bytes", "process_cpu_seconds_total"), "abc"):
        yield from series(name, (), name.endswith("_total"), pod=f"pod-{instance}", instance=instance)
    yield from series("ALERTS", (), rising=False, alertname="BerthX", alertstate="firing", severity="warning")


def questions() -> dict[str, str]:
    """Every question of every panel, with what its variables may stand for, and where it is asked."""
    found = {}
    for path in sorted((CHART / "files/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                expr = target["expr"]
                for variable, value in VARIABLES.items():
                    expr = expr.replace(variable, value)
                found[expr] = f"{path.stem}: {panel['title']}"
    return found


def test_every_question_of_the_dashboards_is_answered(tmp_path: Path) -> None:
    asked = questions()
    looks = [{"expr": expr, "eval_time": "240m", "exp_samples": []} for expr in asked]
    test = {"interval": "1m", "input_series": list(cluster()), "promql_expr_test": looks}
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "rule_files": [], "tests": [test]}))
    done = subprocess.run((str(pinnedtools.promtool()), "test", "rules", str(file)), capture_output=True, text=True)
    # No answers are expected, so that promtool shows those that there are.
    told = (done.stdout + done.stderr).splitlines()
    answered = {
        json.loads(line.strip().removeprefix("expr: ").split(", time: ")[0])
        for line, after in zip(told, told[2:], strict=False)
        if line.strip().startswith("expr: ") and after.strip().startswith("got:")
    }
    assert [f"{where}: {expr}" for expr, where in asked.items() if expr not in answered] == []
