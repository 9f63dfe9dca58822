"""The chart on a real cluster with real Helm: install, test, upgrade, rollback and uninstall, while a Model serves."""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pinnedtools
from berth.cli.main import main as cli
from berth.planning.render_settings import PUBLISHED_IMAGE
from localcluster import api, images
from support.chart import CHART, THIS_IMAGE, Helm
from support.kube import Cluster, eventually, install_crds
from support.models import conditions, pods, wait_for_phase
from support.servers import HTTPD, Requests, address, reachable, shell

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = CHART.parents[1]
SYSTEM = "berth-system"
OLDER_IMAGE = THIS_IMAGE.replace("tag=dev", "tag=older")
LOADED = {"metrics": {"path": "/metrics", "running": "running"}}
WAIT = ("--wait", "--timeout=3m")
NO_AGENTS = "--set=agent.enabled=false"


@pytest.fixture(scope="module")
def where(bare_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The cluster, with Berth's image of this checkout under three names on its node."""
    archive = images.berth()
    api.load_image(bare_cluster.name, archive)
    for name in ("localhost/berth:older", PUBLISHED_IMAGE):
        renamed = tmp_path_factory.mktemp("images") / "renamed.tar"
        _rename(archive, name, renamed)
        api.load_image(bare_cluster.name, renamed)
        renamed.unlink()
    return bare_cluster


def _rename(archive: Path, reference: str, target: Path) -> None:
    """Write the archive of the same image under another name."""
    with tarfile.open(archive) as source, tarfile.open(target, "w") as copy:
        for member in source:
            content = source.extractfile(member)
            if member.name == "manifest.json":
                assert content is not None
                text = json.dumps([{**image, "RepoTags": [reference]} for image in json.load(content)]).encode()
                member.size, content = len(text), io.BytesIO(text)  # type: ignore[assignment]
            copy.addfile(member, content)


@pytest.fixture(params=[4, 3], ids=["helm-4", "helm-3"])
def helm(request: pytest.FixtureRequest, where: Cluster) -> Iterator[Helm]:
    """Helm on the cluster. What it installed is gone after the test."""
    yield from _helm(request.param, where)


@pytest.fixture
def helm_4(where: Cluster) -> Iterator[Helm]:
    yield from _helm(4, where)


def _helm(major: int, where: Cluster) -> Iterator[Helm]:
    where.kubectl("create", "namespace", SYSTEM)
    where.kubectl("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted")
    helm = Helm(major, where.kubeconfig, SYSTEM)
    yield helm
    helm("uninstall", "berth", "--ignore-not-found", *WAIT)
    where.kubectl("delete", "crd", "--ignore-not-found", *(crd.stem for crd in (CHART / "files/crds").iterdir()))
    where.kubectl("delete", "priorityclass", "--ignore-not-found", "berth-model")
    where.kubectl("delete", "namespace", SYSTEM)


@pytest.fixture
def namespace(where: Cluster, namespace: str) -> str:
    """A restricted namespace for Models."""
    where.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return namespace


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A chart of an earlier version, whose Models have fewer columns."""
    chart = tmp_path / "older/berth"
    shutil.copytree(CHART, chart)
    described = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump(described | {"version": "0.0.9", "appVersion": "0.0.9"}))
    crd = yaml.safe_load((chart / "files/crds/models.berth.dev.yaml").read_text())
    del crd["spec"]["versions"][0]["additionalPrinterColumns"][2:]
    (chart / "files/crds/models.berth.dev.yaml").write_text(yaml.safe_dump(crd))
    return chart


def serve(where: Cluster, namespace: str, name: str = "hello") -> str:
    """A Model that serves, with a sidecar of Berth's own image in its Pod, and its address."""
    script = f"mkdir -p /tmp/www && echo running 0 > /tmp/www/metrics && {HTTPD}"
    manifest = shell(name, script)
    manifest["spec"]["custom"] |= LOADED
    where.apply(manifest, namespace=namespace)
    where.kubectl("-n", namespace, "wait", "--for=condition=Ready", f"model/{name}", "--timeout=90s")
    url = address(where, namespace, name)
    reachable(url)
    return url


def servers(where: Cluster, namespace: str) -> list[tuple[str, int]]:
    """Uid and restarts of the Pods of the Model."""
    found = pods(where, namespace, "hello")
    return [
        (pod["metadata"]["uid"], sum(c["restartCount"] for c in pod["status"]["containerStatuses"])) for pod in found
    ]


def upgrade_available(where: Cluster, namespace: str) -> bool:
    """What the status says, by an operator that has looked at the Model."""
    found = where.get("model", "hello", namespace)
    assert found is not None
    return bool(found["status"].get("upgradeAvailable"))


def columns(where: Cluster) -> int:
    shown = where.kubectl("get", "crd", "models.berth.dev", "-o", "json").stdout
    return len(json.loads(shown)["spec"]["versions"][0]["additionalPrinterColumns"])


def operator_image(where: Cluster) -> str:
    (deployment,) = where.list("deployment", SYSTEM)
    image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def test_a_model_serves_through_upgrade_rollback_uninstall_and_another_install(
    helm: Helm, where: Cluster, namespace: str, older: Path
) -> None:
    helm("install", "berth", str(older), OLDER_IMAGE, *WAIT)
    assert operator_image(where) == "localhost/berth:older"
    kept = where.kubectl("-n", SYSTEM, "get", "secret", "sh.helm.release.v1.berth.v1", "-o", "json").stdout
    assert len(kept) < 500_000  # of 1 MiB that etcd takes
    tested = helm("test", "berth", "--logs")
    assert "the operator answers, one of its Pods leads, and the API server takes Models" in tested.stdout
    url = serve(where, namespace)
    before = servers(where, namespace)
    with Requests(url) as requests:
        few = columns(where)
        helm("upgrade", "berth", str(CHART), THIS_IMAGE, *WAIT)
        assert operator_image(where) == "localhost/berth:dev"
        assert columns(where) > few
        eventually(lambda: upgrade_available(where, namespace), 60, "upgradeAvailable")

        helm("rollback", "berth", "1", *WAIT)
        assert operator_image(where) == "localhost/berth:older"
        assert columns(where) == few
        eventually(lambda: not upgrade_available(where, namespace), 60, "no upgradeAvailable")

        helm("uninstall", "berth", *WAIT)
        # Helm 3 does not wait for Pods that are ending.
        eventually(lambda: not where.list("pod", SYSTEM, "app.kubernetes.io/component=operator"), 40, "no operator")
        assert where.phase("hello", namespace) == "Ready"

        helm("install", "berth", str(CHART), THIS_IMAGE, *WAIT)
        eventually(lambda: upgrade_available(where, namespace), 60, "upgradeAvailable")
        assert servers(where, namespace) == before
    assert requests.failed == []
    assert requests.answered > 50
    assert conditions(where, namespace, "hello")["Ready"][0] == "True"


def test_models_go_with_the_crds_where_these_are_not_kept(helm: Helm, where: Cluster, namespace: str) -> None:
    helm("install", "berth", str(CHART), THIS_IMAGE, NO_AGENTS, "--set=crds.keep=false", *WAIT)
    serve(where, namespace)
    helm("uninstall", "berth", *WAIT)
    shown = where.kubectl("get", "crd", "models.berth.dev", "--ignore-not-found")
    assert shown.stdout == ""
    eventually(lambda: where.list("pod", namespace) == [], 60, "no Pods")
    assert where.list("service", namespace) == []


@pytest.mark.skipif("uninstall" not in cli.commands, reason="this checkout has no `berth uninstall` yet")
def test_models_are_stopped_before_the_release_goes_where_that_is_wanted(
    helm_4: Helm, where: Cluster, namespace: str
) -> None:
    stopping = "--set=uninstall.stopModels=true,uninstall.timeout=90"
    helm_4("install", "berth", str(CHART), THIS_IMAGE, NO_AGENTS, stopping, *WAIT)
    serve(where, namespace)
    helm_4("uninstall", "berth", *WAIT)
    assert where.phase("hello", namespace) == "Stopped"
    assert conditions(where, namespace, "hello")["Ready"][1] == "OperatorUninstalling"
    assert pods(where, namespace, "hello") == []

    helm_4("install", "berth", str(CHART), THIS_IMAGE, *WAIT)
    wait_for_phase(where, namespace, "hello", "Ready", 90)


def test_helm_4_waits_for_a_model_of_another_chart(
    helm_4: Helm, where: Cluster, namespace: str, tmp_path: Path
) -> None:
    helm_4("install", "berth", str(CHART), THIS_IMAGE, NO_AGENTS, *WAIT)
    mine = _chart_of_a_model(tmp_path, "exec httpd -f -p 9000 -h /tmp")
    users = Helm(4, where.kubeconfig, namespace)
    users("install", "mine", str(mine), *WAIT)
    assert where.phase("hello", namespace) == "Ready"

    broken = _chart_of_a_model(tmp_path, "exit 3")
    done = users("upgrade", "mine", str(broken), *WAIT, check=False)
    assert done.returncode == 1
    assert "hello" in done.stderr
    assert where.phase("hello", namespace) == "Failed"


def _chart_of_a_model(folder: Path, script: str) -> Path:
    chart = folder / "mine"
    (chart / "templates").mkdir(parents=True, exist_ok=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: mine\nversion: 1.0.0\n")
    (chart / "templates/model.yaml").write_text(yaml.safe_dump(shell("hello", script)))
    return chart


def test_one_namespace_is_enough(helm_4: Helm, where: Cluster, namespace: str, tmp_path: Path) -> None:
    install_crds(where)
    where.kubectl("-n", namespace, "create", "serviceaccount", "deployer")
    # Every right in the namespace, and none elsewhere.
    where.kubectl(
        *("-n", namespace, "create", "rolebinding", "deployer"),
        *("--clusterrole=cluster-admin", f"--serviceaccount={namespace}:deployer"),
    )
    login = where.token_kubeconfig(namespace, "deployer", tmp_path / "deployer.kubeconfig")
    deployer = Helm(4, login, namespace)
    deployer("install", "berth", str(CHART), THIS_IMAGE, "--set=clusterObjects=false", *WAIT)
    deployer("test", "berth")
    serve(where, namespace)
    deployer("uninstall", "berth", *WAIT)
    wait_for_phase(where, namespace, "hello", "Ready")


def test_agents_look_at_the_nodes_with_gpus(helm_4: Helm, where: Cluster) -> None:
    helm_4("install", "berth", str(CHART), THIS_IMAGE, *WAIT)

    def seen() -> dict[str, Any]:
        found: dict[str, Any] = where.get("gpunode", "berth") or {}
        return {one["type"]: one["reason"] for one in found.get("status", {}).get("conditions", ())}

    eventually(lambda: seen().get("Ready") == "NoDriver", 60, "the agent's report")
    assert where.kubectl("get", "namespace", "berth-agent", "--ignore-not-found").stdout
    helm_4("uninstall", "berth", *WAIT)
    assert where.kubectl("get", "namespace", "berth-agent", "--ignore-not-found").stdout == ""


def test_the_page_on_installing_can_be_walked(where: Cluster, tmp_path: Path) -> None:
    """Every command of docs/install.md as it stands there. Only the example, which needs a network, is another one."""
    example = tmp_path / "example.yaml"
    example.write_text(yaml.safe_dump(shell("quickstart", HTTPD)))
    page = (ROOT / "docs/install.md").read_text().replace("examples/quickstart.yaml", str(example))
    blocks = re.findall(r"^```console\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    commands = [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "helm").symlink_to(pinnedtools.helm(4))
    (programs / "kubectl").symlink_to(where.kubectl_path)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "KUBECONFIG": str(where.kubeconfig)}
    for command in commands:
        done = subprocess.run(
            ("bash", "-c", command), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert len(commands) > 20
    assert where.kubectl("get", "crd,clusterrole,priorityclass", "-o", "name").stdout.count("berth") == 0
