"""What docs/monitoring.md has from the code: metrics, alerts and dashboards."""

from pathlib import Path
from typing import Any

import yaml

from generation import metrics
from generation.dashboards import DASHBOARDS, dashboard_files
from generation.marked import table, with_parts

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/monitoring.md"
RULES = "charts/berth/files/rules"


def monitoring_files() -> dict[str, str]:
    """Path below the checkout and text of the dashboards and of the page about all of it."""
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    return {**dashboard_files(), PAGE: with_parts(page, _parts())}


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules of the chart: `alert` or `record`."""
    groups = [
        group
        for path in sorted((ROOT / RULES).glob("*.yaml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def _parts() -> dict[str, tuple[str, str]]:
    head = ("name", "type", "labels", "meaning")
    parts = {
        f"metrics of {what}": (source, table(head, [_metric(one) for one in found]))
        for what, source, found in (
            ("the operator", "operator/berth/controllers/*metrics.py", metrics.of_operator()),
            ("the agents", "operator/berth/agent/metrics.py", metrics.of_agent()),
            ("downloads", "operator/berth/provision/progress.py", metrics.of_downloads()),
        )
    }
    servers = [(f"`{name}`", ", ".join(f"`{one}`" for one in series)) for name, series in metrics.of_servers().items()]
    parts["metrics of servers"] = ("operator/berth/backends", table(("backend", "series"), servers))
    alerts = [_alert(rule) for rule in rules("alert")]
    parts["alerts"] = (RULES, table(("alert", "severity", "fires when", "for"), alerts))
    records = [(f"`{rule['record']}`", _code(rule["expr"])) for rule in rules("record")]
    parts["records"] = (RULES, table(("series", "is"), records))
    shown = [(one.title, f"`berth-{one.name}`", one.description) for one in DASHBOARDS]
    parts["dashboards"] = ("hack/generation/dashboards", table(("dashboard", "uid", "what it shows"), shown))
    return parts


def _metric(one: metrics.Exported) -> tuple[str, ...]:
    return f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.meaning


def _alert(rule: dict[str, Any]) -> tuple[str, ...]:
    name = rule["alert"]
    return f"[{name}](alerts.md#{name.lower()})", rule["labels"]["severity"], _code(rule["expr"]), rule.get("for", "")


def _code(expr: str) -> str:
    return f"`{' '.join(expr.split())}`"
