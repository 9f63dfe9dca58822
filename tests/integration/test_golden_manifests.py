"""What Berth renders is what a real API server stores and gives back: otherwise drift would never end."""

import json
from typing import Any

import pytest
import yaml

from berth.planning.canonical import quantity, resource_quantity
from berth.planning.equality import differences
from golden import cases
from support.kube import Cluster, eventually

pytestmark = pytest.mark.control_plane

NOTATIONS = (
    *("0", "0m", "0e3", "1", "01", "+2", "5.", ".5", "0.1", "1.0", "1.5", "2000", "1000m", "1500m", "100n", "1500u"),
    *("0.0005", "1023", "1024", "123456", "1000000", "1234567890123", "1e-1", "1500e-3", "1e0", "2e0", "5e1", "1e2"),
    *("100e2", "1e3", "1E3", "1.5e3", "12e6", "1e9", "1e18", "1k", "1000k", "1M", "1500M", "1T", "1E", "0.5Ki"),
    *("1.1Ki", "1Ki", "1023Ki", "1024Ki", "1025Ki", "0.5Mi", "1000Mi", "1024Mi", "0.1Gi", "0.5Gi", "1.50Gi", "3Ei"),
)
KINDS = "deployments,services,networkpolicies,poddisruptionbudgets"
Manifest = dict[str, Any]
Key = tuple[str, str]


@pytest.fixture
def manifests(where: Cluster, namespace: str) -> dict[Key, Manifest]:
    """The manifests of all golden Models, which exist so that the garbage collector keeps their children."""
    models = {case: cases.model(case) for case in cases.all_cases()}
    where.apply(*models.values(), namespace=namespace)
    listed = json.loads(where.kubectl("-n", namespace, "get", "models.berth.dev", "-o", "json").stdout)
    uids = {item["metadata"]["name"]: item["metadata"]["uid"] for item in listed["items"]}
    rendered = [
        manifest
        for case, model in models.items()
        for manifest in cases.render(model, namespace=namespace, uid=uids[case], stored=cases.stored(case))
    ]
    return {_key(manifest): manifest for manifest in rendered}


def test_golden_manifests_are_stored_as_they_are_rendered(
    where: Cluster, namespace: str, manifests: dict[Key, Manifest]
) -> None:
    _apply(where, manifests)
    stored = _stored(where, namespace)
    unequal = {key: differences(manifest, stored[key]) for key, manifest in manifests.items()}
    assert {key: paths for key, paths in unequal.items() if paths} == {}


def test_a_second_apply_changes_nothing(where: Cluster, namespace: str, manifests: dict[Key, Manifest]) -> None:
    _apply(where, manifests)

    def unchanged() -> bool:
        # The controllers write the status of new objects for a moment, so the comparison may need a few tries.
        before = _versions(where, namespace)
        _apply(where, manifests)
        return _versions(where, namespace) == before

    eventually(unchanged, 60, "an apply that changes no resourceVersion")


def test_servers_run_under_the_pod_security_standard_restricted(
    where: Cluster, namespace: str, manifests: dict[Key, Manifest]
) -> None:
    where.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    refused = {}
    for (kind, name), manifest in manifests.items():
        if kind == "Deployment":
            done = where.kubectl(
                *("-n", namespace, "create", "--dry-run=server", "-f", "-"), input=_pod(manifest), check=False
            )
            if done.returncode:
                refused[name] = done.stderr
    assert {name: text for name, text in refused.items() if not name.startswith("tgi-")} == {}
    tgi = {case for case in cases.all_cases() if case.startswith("tgi-")}
    assert set(refused) == tgi, "TGI runs as root, which this standard refuses"


@pytest.mark.parametrize("where_it_stands", ["requests", "sizeLimit"])
def test_canonical_quantities_come_back_as_they_are(where: Cluster, namespace: str, where_it_stands: str) -> None:
    expected = {}
    volumes = []
    containers = [{"name": "main", "image": "none"}]
    for index, notation in enumerate(NOTATIONS):
        name = f"n{index}"
        if where_it_stands == "requests":
            expected[name] = resource_quantity("", notation)
            containers.append({"name": name, "image": "none", "resources": {"requests": {"cpu": expected[name]}}})
        else:
            expected[name] = quantity("", notation)
            volumes.append({"name": name, "emptyDir": {"sizeLimit": expected[name]}})
    pod: Manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "notations"}}
    pod["spec"] = {"containers": containers, "volumes": volumes}
    done = where.kubectl(
        *("-n", namespace, "create", "--dry-run=server", "-o", "json", "-f", "-"), input=json.dumps(pod)
    )
    stored = json.loads(done.stdout)["spec"]
    found = {c["name"]: c["resources"]["requests"]["cpu"] for c in stored["containers"] if c["name"] != "main"}
    if where_it_stands == "sizeLimit":
        found = {v["name"]: v["emptyDir"]["sizeLimit"] for v in stored["volumes"] if "emptyDir" in v}
    assert found == expected


def _key(manifest: Manifest) -> Key:
    return manifest["kind"], manifest["metadata"]["name"]


def _apply(where: Cluster, manifests: dict[Key, Manifest]) -> None:
    text = yaml.safe_dump_all(manifests.values())
    where.kubectl("apply", "--server-side", "--field-manager=berth", "--force-conflicts", "-f", "-", input=text)


def _stored(where: Cluster, namespace: str) -> dict[Key, Manifest]:
    listed = json.loads(where.kubectl("-n", namespace, "get", KINDS, "-o", "json").stdout)
    return {_key(item): item for item in listed["items"]}


def _versions(where: Cluster, namespace: str) -> dict[Key, str]:
    return {key: item["metadata"]["resourceVersion"] for key, item in _stored(where, namespace).items()}


def _pod(deployment: Manifest) -> str:
    template = deployment["spec"]["template"]
    metadata = {**template["metadata"], "name": deployment["metadata"]["name"]}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
