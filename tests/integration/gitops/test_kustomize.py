"""What kubectl's own kustomize makes of gitops/kustomize, and what the API server says to it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.gitops import WAYS, Way, tracked
from support.kube import Cluster
from support.models import Manifest

pytestmark = pytest.mark.control_plane

ROOT = Path(__file__).resolve().parents[3]
KUSTOMIZE = ROOT / "gitops/kustomize"


def _build(cluster: Cluster, folder: Path) -> list[Manifest]:
    return list(yaml.safe_load_all(cluster.kubectl("kustomize", str(folder)).stdout))


def _named(objects: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def _images(value: Any) -> set[str]:
    """Every image of Berth's own that is named anywhere."""
    if isinstance(value, dict):
        return set().union(*(_images(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_images(item) for item in value))
    return {value} if isinstance(value, str) and "/berth:" in value else set()


@pytest.mark.parametrize("folder", ["base/operator", "base/models", "overlays/example"])
def test_the_api_server_accepts_what_is_built(control_plane: Cluster, namespace: str, folder: str) -> None:
    built = _build(control_plane, KUSTOMIZE / folder)
    for one in built:
        # A dry run makes no namespace for what comes after it.
        if "namespace" in one["metadata"] or one["kind"] in ("Model", "ModelCache"):
            one["metadata"]["namespace"] = namespace
    flags = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--field-manager=test")
    control_plane.kubectl(*flags, "--force-conflicts", "-f", "-", input=yaml.safe_dump_all(built))


def test_an_overlay_changes_every_image_of_the_operator(control_plane: Cluster) -> None:
    assert _images(_build(control_plane, KUSTOMIZE / "base/operator")) != {"example.com/platform/berth:0.1.0"}
    assert _images(_build(control_plane, KUSTOMIZE / "overlays/example")) == {"example.com/platform/berth:0.1.0"}


def test_an_overlay_changes_models_and_their_images(control_plane: Cluster) -> None:
    built = _build(control_plane, KUSTOMIZE / "overlays/example/models")
    assistant, speech = (_named(built, "Model", name)["spec"] for name in ("assistant", "speech"))
    assert assistant["gpus"] == {"count": 1, "products": ["NVIDIA-L40S"]}
    assert assistant["serving"]["contextLength"] == 32768
    assert speech["serving"]["image"] == "example.com/team-a/speech:1.5"
    assert speech["state"] == "Stopped"
    assert {one["metadata"].get("namespace", "") for one in built} == {"", "team-a"}


def test_models_follow_what_they_refer_to_when_it_is_renamed(control_plane: Cluster, tmp_path: Path) -> None:
    """A Secret that is made with a hash in its name, and a prefix for everything."""
    shutil.copytree(KUSTOMIZE / "base/models", tmp_path / "models")
    shutil.copy(KUSTOMIZE / "base/models/berth.yaml", tmp_path / "berth.yaml")
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namePrefix": "blue-",
        "resources": ["models"],
        "configurations": ["berth.yaml"],
        "secretGenerator": [{"name": "hub", "literals": ["token=none"]}],
        "patches": [
            {
                "target": {"kind": "Model", "name": "assistant"},
                "patch": "- {op: add, path: /spec/source/secretRef, value: {name: hub}}\n"
                "- {op: add, path: /spec/serving/env, value:"
                " [{name: KEY, valueFrom: {secretKeyRef: {name: hub, key: token}}}]}",
            }
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    built = _build(control_plane, tmp_path)
    (secret,) = (one["metadata"]["name"] for one in built if one["kind"] == "Secret")
    assert secret.startswith("blue-hub-")
    spec = _named(built, "Model", "blue-assistant")["spec"]
    assert spec["source"]["cache"] == _named(built, "ModelCache", "blue-weights")["metadata"]["name"]
    assert spec["source"]["secretRef"]["name"] == secret
    assert spec["serving"]["env"][0]["valueFrom"]["secretKeyRef"]["name"] == secret


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_what_was_applied_is_no_difference(control_plane: Cluster, namespace: str, way: Way) -> None:
    built = [tracked(one) for one in _build(control_plane, KUSTOMIZE / "base/models")]
    way.kubectl(control_plane, namespace, "apply", *built)
    done = way.kubectl(control_plane, namespace, "diff", *built, check=False)
    assert (done.stdout, done.stderr) == ("", "")
