"""The scripts for Argo CD pass the tests beside them, in the sandbox that Argo CD runs scripts of its ConfigMap in."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given

from berth.planning.conditions import Facts, assess, stamp
from generation.argocd import CONFIG_MAP
from support import argo_data, argo_lua
from support.argo_data import CUSTOMIZATIONS, HEALTH, KINDS, OFFERED, ROOT
from support.kstatus import kstatus
from unit.planning import strategies

ACTIONS = CUSTOMIZATIONS / "Model/actions"
DATA = yaml.safe_load((ROOT / CONFIG_MAP).read_text())["data"]
SCRIPTS = {kind: DATA[f"resource.customizations.health.berth.dev_{kind}"] for kind in KINDS}
OFFER = yaml.safe_load(DATA["resource.customizations.actions.berth.dev_Model"])
KSTATUS = {"Healthy": "Current", "Progressing": "InProgress", "Degraded": "Failed"}

Case = dict[str, Any]


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


HEALTH_TESTS = [(kind, case) for kind in KINDS for case in _read(CUSTOMIZATIONS / kind / "health_test.yaml")["tests"]]
ACTION_TESTS = _read(ACTIONS / "action_test.yaml")


@pytest.mark.parametrize(
    ("kind", "case"), HEALTH_TESTS, ids=lambda value: value if value in KINDS else value["inputPath"]
)
def test_health(kind: str, case: Case) -> None:
    obj = _read(CUSTOMIZATIONS / kind / case["inputPath"])
    assert argo_lua.health(SCRIPTS[kind], obj) == case["healthStatus"]


@pytest.mark.parametrize("case", ACTION_TESTS["discoveryTests"], ids=lambda case: case["inputPath"])
def test_discovery_of_actions(case: Case) -> None:
    found = argo_lua.actions(OFFER["discovery.lua"], _read(ACTIONS / case["inputPath"]))
    assert sorted(found.values(), key=lambda one: one["name"]) == sorted(case["result"], key=lambda one: one["name"])


@pytest.mark.parametrize("case", ACTION_TESTS["actionTests"], ids=lambda case: case["expectedOutputPath"])
def test_action(case: Case) -> None:
    (script,) = (one["action.lua"] for one in OFFER["definitions"] if one["name"] == case["action"])
    changed = argo_lua.act(script, _read(ACTIONS / case["inputPath"]))
    assert argo_data.without_time_of_action(changed) == _read(ACTIONS / case["expectedOutputPath"])


def test_every_file_of_the_test_data_is_tested() -> None:
    for kind in KINDS:
        files = {path.stem for path in (CUSTOMIZATIONS / kind / "testdata").glob("*.yaml")}
        assert files == set(HEALTH[kind])
    assert {path.stem for path in (CUSTOMIZATIONS / "Model/testdata").glob("*.yaml")} == set(OFFERED)


def test_the_tests_beside_the_scripts_say_what_is_expected() -> None:
    for kind in KINDS:
        assert (CUSTOMIZATIONS / kind / "health_test.yaml").read_text() == argo_data.health_test(kind)
    assert (ACTIONS / "action_test.yaml").read_text() == argo_data.action_test()
    assert len(list((ACTIONS / "testdata").iterdir())) == len(argo_data.OUTPUTS)


@given(strategies.facts())
def test_health_is_what_every_other_tool_sees(facts: Facts) -> None:
    """Whatever the operator can find: Argo CD, Flux, Helm 4 and kubectl wait agree."""
    verdict = assess(facts)
    conditions = stamp(verdict, facts.generation, [], "2026-01-01T00:00:00Z")
    status = {"observedGeneration": facts.generation, "phase": verdict.phase.value, "conditions": conditions}
    for generation in (facts.generation, facts.generation + 1):
        obj = {"metadata": {"generation": generation}, "status": status}
        health = argo_lua.health(SCRIPTS["Model"], obj)["status"]
        assert KSTATUS[health] == kstatus(generation, status)


def test_nothing_is_offered_for_a_model_that_is_being_deleted() -> None:
    obj = argo_data.load("Model", "ready")
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert all(action["disabled"] for action in argo_lua.actions(OFFER["discovery.lua"], obj).values())


def test_a_model_without_status_is_on_its_way() -> None:
    obj = {"metadata": {"generation": 1}, "spec": {}}
    assert argo_lua.health(SCRIPTS["Model"], obj)["status"] == "Progressing"
    assert argo_lua.health(SCRIPTS["GPUNode"], obj)["status"] == "Healthy"


def test_the_script_of_a_modelcache_is_that_of_a_model() -> None:
    assert SCRIPTS["ModelCache"] == SCRIPTS["Model"]


@pytest.mark.parametrize(
    "path", sorted(CUSTOMIZATIONS.rglob("*.lua")), ids=lambda path: str(path.relative_to(CUSTOMIZATIONS))
)
def test_no_script_names_a_library_that_is_not_there(path: Path) -> None:
    """Branches that no test enters, too."""
    code = re.sub(r"--.*", "", path.read_text())
    code = re.sub(r'"[^"]*"', '""', code)
    assert not re.search(r"\b(string|math|io|debug|coroutine|utf8|bit32|dofile|loadfile|goto|continue)\b", code)
    assert not re.search(r"\w:\w+\s*\(", code), "strings have no methods there"
