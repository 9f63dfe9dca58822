"""The chart of models on a real API server: every entry is taken, and a release comes, changes and goes."""

from collections.abc import Iterator

import pytest

from catalogue.entries import read_catalogue
from support.chart import Helm
from support.kube import Cluster
from support.models_chart import MODELS_CHART, everything, template

pytestmark = pytest.mark.control_plane

KEYS = list(read_catalogue().models)
CACHE = "--set=caches.default.storage.size=500Gi"


@pytest.fixture(params=[3, 4], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, control_plane: Cluster, namespace: str) -> Iterator[Helm]:
    """Helm of each major version, on the control plane and in a namespace of the test's own."""
    made = Helm(request.param, control_plane.kubeconfig, namespace)
    yield made
    made("uninstall", "models", "--ignore-not-found")


def test_the_api_server_takes_every_entry(control_plane: Cluster) -> None:
    manifests = template(4, everything(KEYS), CACHE).replace("namespace: team-a", "namespace: default")
    done = control_plane.kubectl(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", input=manifests
    )
    taken = {line.split()[0] for line in done.stdout.splitlines()}
    assert taken == {*(f"model.berth.dev/{key}" for key in KEYS), "modelcache.berth.dev/default"}


def test_a_release_comes_changes_and_goes(helm: Helm, control_plane: Cluster) -> None:
    installed = helm("install", "models", str(MODELS_CHART), CACHE, "--set=models.qwen3-8b.enabled=true")
    assert "1 x 35.9 GiB of GPU memory" in installed.stdout
    assert control_plane.get("modelcache", "default", helm.namespace)
    model = control_plane.get("model", "qwen3-8b", helm.namespace)
    assert model is not None
    assert model["spec"]["source"]["uri"] == "hf://Qwen/Qwen3-8B"

    control_plane.kubectl("scale", "model/qwen3-8b", "--replicas=3", "-n", helm.namespace)
    change = "models.qwen3-8b.serving.maxConcurrency=4,models.smollm3-3b-gguf.enabled=true"
    helm("upgrade", "models", str(MODELS_CHART), "--reuse-values", f"--set={change}")
    model = control_plane.get("model", "qwen3-8b", helm.namespace)
    assert model is not None
    assert model["spec"]["serving"]["maxConcurrency"] == 4
    assert model["spec"]["replicas"] == 3, "an autoscaler's number stays"

    helm("upgrade", "models", str(MODELS_CHART), "--reuse-values", "--set=models.smollm3-3b-gguf.enabled=false")
    assert control_plane.get("model", "smollm3-3b-gguf", helm.namespace) is None
    helm("uninstall", "models")
    assert control_plane.list("model", helm.namespace) == []


def test_what_the_rules_of_the_api_refuse_is_said_by_helm(helm: Helm) -> None:
    wrong = "models.qwen3-8b.enabled=true,models.qwen3-8b.gpus.count=0,models.qwen3-8b.gpus.memory=24Gi"
    done = helm("install", "models", str(MODELS_CHART), f"--set={wrong}", check=False)
    assert done.returncode != 0
    assert "gpus.memory needs GPUs" in done.stderr
