"""Real checkers on the rendered chart: Kubernetes' own schemas, checkov, and promtool."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import pinnedtools
from support.chart import CHART, Helm

pytestmark = pytest.mark.slow

VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
ROOT = CHART.parents[1]
KUBERNETES = "--set=uninstall.stopModels=true,dashboards.enabled=true"
"""Everything but the kinds that the Prometheus operator brings along."""
SKIPS = yaml.safe_load((Path(__file__).parent / "checkov-skips.yaml").read_text())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_for_each_kubernetes(version: str, tmp_path: Path) -> None:
    file = tmp_path / "rendered.yaml"
    file.write_text(Helm(4).template(KUBERNETES, f"--kube-version={version}.0"))
    command = (str(pinnedtools.checks() / "kubernetes-validate"), "--strict", "-k", version)
    done = subprocess.run((*command, str(file), str(ROOT / "deploy/install.yaml")), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_checkov_finds_only_what_is_justified(tmp_path: Path) -> None:
    file = tmp_path / "rendered.yaml"
    file.write_text(Helm(4).template(KUBERNETES, "--set=crds.enabled=false"))
    command = (str(pinnedtools.checks() / "checkov"), "--framework=kubernetes", "--skip-download", "--output=json")
    done = subprocess.run((*command, "--file", str(file)), capture_output=True, text=True)
    report: dict[str, Any] = json.loads(done.stdout)
    found: dict[str, set[str]] = {}
    for check in report["results"]["failed_checks"]:
        found.setdefault(_component(check["resource"]), set()).add(check["check_id"])
    for component, checks in SKIPS.items():
        if component != "everything":
            assert found[component] - SKIPS["everything"].keys() == checks.keys(), component
    assert set.union(*found.values()) >= SKIPS["everything"].keys()
    assert found["operator"] <= SKIPS["everything"].keys()
    assert found.keys() == {"operator", "agent", "test", "uninstall"}


def _component(resource: str) -> str:
    """The component that an object belongs to, by checkov's name for it: KIND.NAMESPACE.NAME."""
    for name, component in (("-operator", "operator"), ("-agent", "agent"), ("-test", "test"), ("-stop-", "uninstall")):
        if name in resource.split(".")[2]:
            return component
    raise AssertionError(resource)


def test_promtool_takes_every_question_of_the_dashboards(tmp_path: Path) -> None:
    panels = [panel for path in (CHART / "files/dashboards").glob("*.json") for panel in _panels(path)]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    questions = [one.replace("$__rate_interval", "5m").replace("$__range", "6h") for one in asked]
    assert questions
    rules = [{"record": f"question:{number}", "expr": question} for number, question in enumerate(questions)]
    file = tmp_path / "questions.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run((str(pinnedtools.promtool()), "check", "rules", str(file)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _panels(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
    nested = [inner for panel in found for inner in panel.get("panels", ())]
    return [panel for panel in found + nested if "targets" in panel]
