"""The examples for Argo CD and Flux fit together with what lies in the repository."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GITOPS = ROOT / "gitops"


def _documents(folder: str) -> list[dict[str, Any]]:
    return [one for path in sorted((GITOPS / folder).glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]


ARGOCD = _documents("argocd/examples")
APPLICATIONS = [one["spec"]["template"] if one["kind"] == "ApplicationSet" else one for one in ARGOCD]
FLUX = _documents("flux")


@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda one: one["metadata"]["name"])
def test_applications_compare_on_the_servers_side(application: dict[str, Any]) -> None:
    assert application["metadata"]["annotations"]["argocd.argoproj.io/compare-options"] == "ServerSideDiff=true"
    assert "ServerSideApply=true" in application["spec"]["syncPolicy"]["syncOptions"]


def _paths() -> set[str]:
    found = {one["spec"]["source"]["path"] for one in APPLICATIONS}
    found |= {one["spec"]["path"].removeprefix("./") for one in FLUX if one["kind"] == "Kustomization"}
    found |= {one["spec"]["chart"]["spec"]["chart"] for one in FLUX if one["kind"] == "HelmRelease"}
    return {path for path in found if "{{" not in path}


@pytest.mark.parametrize("path", sorted(_paths()))
def test_every_path_is_there(path: str) -> None:
    assert (ROOT / path / "kustomization.yaml").exists() or (ROOT / path / "Chart.yaml").exists()


def test_caches_come_before_models() -> None:
    wave: dict[str, set[int]] = {}
    for path in (GITOPS / "kustomize/base/models").glob("*.yaml"):
        one = yaml.safe_load(path.read_text())
        if one.get("kind") in ("Model", "ModelCache"):
            annotations = one["metadata"]["annotations"]
            wave.setdefault(one["kind"], set()).add(int(annotations["argocd.argoproj.io/sync-wave"]))
    assert max(wave["ModelCache"]) < min(wave["Model"])


def test_kustomize_is_told_the_same_about_names_everywhere() -> None:
    texts = {path.read_text() for path in (GITOPS / "kustomize").rglob("berth.yaml")}
    assert len(texts) == 1


def test_a_health_check_of_flux_names_something_that_is_made() -> None:
    checks = [check for one in FLUX for check in one["spec"].get("healthChecks", ())]
    made = set()
    for path in (GITOPS / "kustomize/base/models").glob("*.yaml"):
        one = yaml.safe_load(path.read_text())
        made.add((one.get("kind"), one.get("metadata", {}).get("name")))
    assert checks
    assert {(check["kind"], check["name"]) for check in checks} <= made
