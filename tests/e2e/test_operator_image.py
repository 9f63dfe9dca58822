"""The operator in the cluster, from Berth's own image, as the chart deploys it, under Pod Security `restricted`."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster import api, images
from support import chart
from support.kube import Cluster, eventually
from support.models import wait_for_phase
from support.operator_process import grant
from support.servers import HTTPD, address, reachable, shell

pytestmark = pytest.mark.cluster

MOST_BYTES = 250_000_000
DEPLOYMENT = "deployment/berth-operator"


@pytest.fixture(scope="module")
def image() -> Path:
    """The archive of Berth's own image, built where it has to be."""
    return images.berth()


@pytest.fixture
def deployed(cluster: Cluster, namespace: str, image: Path) -> Iterator[str]:
    """A restricted namespace with the operator's Deployment, which serves this namespace only."""
    api.load_image(cluster.name, image)
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    grant(cluster, namespace)
    cluster.apply(_deployment(namespace))
    yield namespace
    cluster.kubectl("-n", namespace, "delete", DEPLOYMENT, "--wait=false")


def _deployment(namespace: str) -> dict[str, Any]:
    served = ("--set", f"watchNamespace={namespace},models.priorityClass.create=false")
    objects = chart.component(chart.rendered(chart.THIS_IMAGE, *served, namespace=namespace), "operator")
    return next(found for found in objects if found["kind"] == "Deployment")


def _size(image: Path) -> int:
    """The bytes of all files of all layers."""
    with tarfile.open(image) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        (described,) = json.load(manifest)
        total = 0
        for name in described["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(name)) as layer:
                total += sum(member.size for member in layer)
    return total


def test_the_image_is_small(image: Path) -> None:
    assert _size(image) < MOST_BYTES


def test_the_operator_becomes_ready_under_restricted_pod_security_and_serves_a_model(
    cluster: Cluster, deployed: str
) -> None:
    rollout = cluster.kubectl("-n", deployed, "rollout", "status", DEPLOYMENT, "--timeout=60s", check=False)
    logs = cluster.kubectl("-n", deployed, "logs", "--tail=20", DEPLOYMENT, check=False)
    assert rollout.returncode == 0, rollout.stderr + logs.stdout
    cluster.apply(shell("hello", HTTPD), namespace=deployed)
    wait_for_phase(cluster, deployed, "hello", "Ready", 60)
    reachable(address(cluster, deployed, "hello"))


def test_a_standby_takes_over_when_the_leading_pod_goes(cluster: Cluster, deployed: str) -> None:
    cluster.kubectl("-n", deployed, "rollout", "status", DEPLOYMENT, "--timeout=60s")

    def holder() -> str:
        lease = cluster.kubectl("-n", deployed, "get", "lease", "berth-operator", "-o", "json", check=False)
        return str(json.loads(lease.stdout)["spec"].get("holderIdentity") or "") if lease.stdout else ""

    first = eventually(holder, 30, "a leader")
    pods = {pod["metadata"]["name"] for pod in cluster.list("pod", deployed)}
    assert first in pods
    cluster.kubectl("-n", deployed, "delete", "pod", first, "--wait=false")
    eventually(lambda: holder() not in ("", first), 60, "another leader")


def test_its_process_is_not_root_and_cannot_write_to_its_root(cluster: Cluster, deployed: str) -> None:
    cluster.kubectl("-n", deployed, "rollout", "status", DEPLOYMENT, "--timeout=60s")
    program = (
        "import errno, os\n"
        "print(os.getuid(), os.getgid())\n"
        "for folder in ('/', '/tmp', '/opt/berth'):\n"
        "    try:\n"
        "        open(folder + '/x', 'w')\n"
        "    except OSError as error:\n"
        "        print(errno.errorcode[error.errno])\n"
    )
    shown = cluster.kubectl("-n", deployed, "exec", DEPLOYMENT, "--", "python3", "-c", program)
    assert shown.stdout.split() == ["65532", "65532", "EROFS", "EROFS", "EROFS"]
    version = cluster.kubectl("-n", deployed, "exec", DEPLOYMENT, "--", "berth", "--version")
    assert version.stdout.startswith("berth, version ")
