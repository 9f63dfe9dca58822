"""Dashboards that Grafana can show: well-formed, without overlaps, and every question is about a metric that exists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from berth.controllers.metrics import Metrics
from berth.controllers.store import Store
from generation import metrics
from generation.monitoring import rules
from support.chart import CHART

pytestmark = pytest.mark.slow

ROOT = CHART.parents[1]
FILES = sorted((CHART / "files/dashboards").glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in FILES}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']} {panel['id']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
UNITS = {"short", "s", "bytes", "Bps", "percentunit", "ops", "reqps", "watt", "celsius"}
COLUMNS = 24


def asked(expr: str) -> set[str]:
    """The series that a question is about. Grafana's variables stand for what they may be."""
    for variable, value in (("$__rate_interval", "5m"), ("$__range", "6h")):
        expr = expr.replace(variable, value)
    found = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)

    promql_parser.walk(promql_parser.parse(expr), pre_visit=visit)
    return found


def exported() -> set[str]:
    """The names of all series that there can be."""
    own = [*metrics.of_operator(), *metrics.of_agent(), *metrics.of_downloads()]
    process = [family for family in Metrics(Store()).registry.collect() if family.name.startswith("process_")]
    return {
        *(series for one in own for series in one.series),
        *(sample.name for family in process for sample in family.samples),
        *(series for names in metrics.of_servers().values() for series in names),
        *(rule["record"] for rule in rules("record")),
        "ALERTS",  # Prometheus' own
    }


EXPORTED = exported()


def questions() -> Iterator[Any]:
    """Everything that rules, dashboards and the documentation ask Prometheus."""
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield pytest.param(target["expr"], id=f"{name}: {panel['title']} {panel['id']}{target['refId']}")
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                inner = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"]["query"])
                assert inner is not None
                yield pytest.param(inner[1], id=f"{name}: ${variable['name']}")
    for kind in ("alert", "record"):
        for rule in rules(kind):
            yield pytest.param(rule["expr"], id=rule[kind])
    shown = (ROOT / "docs/monitoring.md").read_text().split("\n## Questions\n")[1]
    for question, expr in re.findall(r"^\| (.+\?) \| `(.+)` \|$", shown, re.MULTILINE):
        yield pytest.param(expr.replace(r"\|", "|"), id=question)


@pytest.mark.parametrize("expr", list(questions()))
def test_every_question_is_about_series_that_somebody_exports(expr: str) -> None:
    names = asked(expr)
    assert names
    assert names <= EXPORTED


def test_a_question_about_what_nobody_exports_is_found() -> None:
    assert asked('rate(berth_reconciles{result="failed"}[$__rate_interval]) or vector(0)') == {"berth_reconciles"}
    assert "berth_reconciles" not in EXPORTED  # counters end with _total
    assert {"berth_reconciles_total", "berth_reconcile_seconds_bucket", "berth_gpu_xid_errors_total"} <= EXPORTED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dashboard_is_small_and_says_what_it_shows(path: Path) -> None:
    dashboard = DASHBOARDS[path.stem]
    assert path.stat().st_size < 100_000
    assert dashboard["uid"] == f"berth-{path.stem}"
    assert dashboard["schemaVersion"] >= 41
    assert dashboard["tags"] == ["berth"]
    assert dashboard["title"].startswith("Berth / ")
    assert dashboard["description"].endswith(".")
    assert set(dashboard) == {
        "title", "uid", "description", "tags", "schemaVersion", "editable", "graphTooltip", "time", "refresh", "links",
        "templating", "panels",
    }  # fmt: skip


def test_titles_of_dashboards_are_their_own() -> None:
    assert len({dashboard["title"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS) == 5


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_fill_the_columns_and_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= COLUMNS
        assert place["h"] >= 1
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    height = max(y for _, y in taken) + 1
    assert len(taken) == COLUMNS * height  # no holes either


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_and_questions_can_be_told_apart(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    for panel in panels:
        letters = [target["refId"] for target in panel.get("targets", ())]
        assert letters == [*"ABCDEFGH"][: len(letters)]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_unit_and_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_data_source_is_asked_for_and_never_fixed(name: str) -> None:
    def sources(node: Any) -> Iterator[Any]:
        if isinstance(node, dict):
            if "datasource" in node:
                yield node["datasource"]
            for child in node.values():
                yield from sources(child)
        elif isinstance(node, list):
            for child in node:
                yield from sources(child)

    first = DASHBOARDS[name]["templating"]["list"][0]
    assert (first["type"], first["name"], first["query"]) == ("datasource", "datasource", "prometheus")
    found = list(sources(DASHBOARDS[name]))
    assert len(found) > 10
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in found)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_are_declared_where_they_are_used(name: str) -> None:
    dashboard = DASHBOARDS[name]
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    exprs = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    used = set(re.findall(r"\$(\w+)", " ".join(exprs))) - {"__rate_interval", "__range"}
    assert used | {"datasource"} == declared


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboards_lead_to_one_another(name: str) -> None:
    (link,) = DASHBOARDS[name]["links"]
    assert (link["type"], link["tags"], link["includeVars"], link["keepTime"]) == ("dashboards", ["berth"], True, True)
    uids = {dashboard["uid"]: dashboard for dashboard in DASHBOARDS.values()}
    for uid, asked_for in re.findall(r'"/d/([\w-]+)\?([^"]+)"', json.dumps(DASHBOARDS[name])):
        given = set(re.findall(r"var-(\w+)=", asked_for))
        assert given <= {variable["name"] for variable in uids[uid]["templating"]["list"]}


def test_the_fleet_leads_to_its_models() -> None:
    assert "/d/berth-model?" in json.dumps(DASHBOARDS["fleet"])


def test_the_page_shows_every_metric_alert_and_dashboard() -> None:
    page = (ROOT / "docs/monitoring.md").read_text()
    for one in (*metrics.of_operator(), *metrics.of_agent(), *metrics.of_downloads()):
        assert f"| `{one.name}` | {one.kind} |" in page
    for rule in rules("alert"):
        assert f"| [{rule['alert']}](alerts.md#{rule['alert'].lower()}) |" in page
    for dashboard in DASHBOARDS.values():
        assert f"| {dashboard['title']} | `{dashboard['uid']}` |" in page


def test_what_is_shown_of_the_chart_is_in_its_values() -> None:
    """The YAML that the page shows; what Helm makes of it is tested where the chart is rendered."""
    page = (ROOT / "docs/monitoring.md").read_text()
    shown = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.+?)^```$", page, re.MULTILINE | re.DOTALL)]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    settings = [block for block in shown if "scrape_configs" not in block]
    assert len(settings) == 2
    for name, group in ((name, group) for block in settings for name, group in block.items()):
        assert group.keys() <= values[name].keys()
