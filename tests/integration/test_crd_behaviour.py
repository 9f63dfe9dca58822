"""What people and programs see of the Model CRD on a real API server."""

import json
import re
from typing import Any

import pytest
import yaml

from support.kube import Cluster, eventually
from unit.api.model_examples import model

pytestmark = pytest.mark.control_plane

STATUS = {
    "observedGeneration": 1,
    "phase": "Ready",
    "ready": "2/2",
    "replicas": 2,
    "selector": "berth.dev/model=example",
    "url": "http://example.team.svc:80",
    "queue": {"position": ">10"},
    "restarts": 3,
    "gpu": {"requiredMiB": 24000, "nodes": ["node-a", "node-b"]},
    "conditions": [
        {
            "type": kind,
            "status": "True",
            "reason": f"Because{kind}",
            "message": f"message of {kind}: with spaces",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
        for kind in ("Accepted", "Ready")
    ],
}


@pytest.fixture
def created(where: Cluster, namespace: str) -> dict[str, Any]:
    """A Model as it reads right after it was applied."""
    where.apply(model({"limits": {"cpu": 2, "memory": "1Gi"}}), namespace=namespace)
    found = where.get("model", "example", namespace)
    assert found is not None
    return found


def _patch(where: Cluster, namespace: str, patch: dict[str, Any], *flags: str) -> dict[str, Any]:
    where.kubectl("-n", namespace, "patch", "mdl", "example", "--type=merge", *flags, "-p", json.dumps(patch))
    found = where.get("model", "example", namespace)
    assert found is not None
    return found


def _table(where: Cluster, namespace: str, *flags: str) -> list[list[str]]:
    lines = where.kubectl("-n", namespace, "get", "models", *flags).stdout.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", lines[0])]
    ends = [*starts[1:], None]
    return [[line[start:end].strip() for start, end in zip(starts, ends, strict=True)] for line in lines]


def test_a_fresh_object_reads_as_not_yet_seen(created: dict[str, Any]) -> None:
    assert created["status"] == {"observedGeneration": -1, "phase": "Pending"}


def test_nobody_takes_a_fresh_object_for_done(where: Cluster, namespace: str, created: dict[str, Any]) -> None:
    waited = where.kubectl(
        "-n", namespace, "wait", "--for=condition=Ready", "model/example", "--timeout=1s", check=False
    )
    assert waited.returncode == 1


def test_defaults_are_filled_in_without_nulls(created: dict[str, Any]) -> None:
    spec = created["spec"]
    assert spec["gpus"] == {"count": 1, "nodes": "Fixed", "resource": "nvidia.com/gpu", "sharing": "Exclusive"}
    assert (spec["replicas"], spec["state"], spec["priority"]) == (1, "Running", 100)
    assert spec["shutdown"] == {"drainTimeout": "60s", "gracePeriod": "30s"}
    assert "null" not in json.dumps(created)


def test_null_means_the_default(where: Cluster, namespace: str) -> None:
    where.apply(model({"gpus": None, "shutdown": None, "serving": None}), namespace=namespace)
    found = where.get("model", "example", namespace)
    assert found is not None
    assert found["spec"]["gpus"]["count"] == 1
    assert "serving" not in found["spec"]


def test_integers_and_texts_are_quantities_and_stay_as_written(created: dict[str, Any]) -> None:
    assert created["spec"]["limits"] == {"cpu": 2, "memory": "1Gi"}


def test_applying_the_same_again_changes_nothing(where: Cluster, namespace: str, created: dict[str, Any]) -> None:
    where.apply(model({"limits": {"cpu": 2, "memory": "1Gi"}}), namespace=namespace)
    again = where.get("model", "example", namespace)
    assert again is not None
    assert again["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


def test_the_status_is_written_only_by_its_subresource(where: Cluster, namespace: str, created: dict[str, Any]) -> None:
    assert _patch(where, namespace, {"status": {"phase": "Ready"}})["status"]["phase"] == "Pending"
    found = _patch(where, namespace, {"status": {"phase": "Ready"}, "spec": {"priority": 7}}, "--subresource=status")
    assert found["status"]["phase"] == "Ready"
    assert found["spec"]["priority"] == 100
    assert found["metadata"]["generation"] == created["metadata"]["generation"]


def test_scale_reads_and_writes_replicas(where: Cluster, namespace: str, created: dict[str, Any]) -> None:
    _patch(where, namespace, {"status": STATUS}, "--subresource=status")
    where.kubectl("-n", namespace, "scale", "model/example", "--replicas=3")
    raw = where.kubectl("get", "--raw", f"/apis/berth.dev/v1alpha1/namespaces/{namespace}/models/example/scale")
    scale = json.loads(raw.stdout)
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == {"replicas": 2, "selector": "berth.dev/model=example"}


def test_scale_cannot_leave_the_bounds_of_replicas(where: Cluster, namespace: str, created: dict[str, Any]) -> None:
    done = where.kubectl("-n", namespace, "scale", "model/example", "--replicas=1001", check=False)
    assert done.returncode == 1
    assert "spec.replicas" in done.stderr


def test_kubectl_get_shows_where_a_model_is(where: Cluster, namespace: str, created: dict[str, Any]) -> None:
    _patch(where, namespace, {"status": STATUS}, "--subresource=status")
    head, row = _table(where, namespace)
    assert head == ["NAME", "PHASE", "READY", "BACKEND", "GPUS", "PROGRESS", "QUEUE", "URL", "AGE"]
    assert row[:-1] == ["example", "Ready", "2/2", "llamacpp", "1", "", ">10", "http://example.team.svc:80"]


def test_kubectl_get_wide_says_why(where: Cluster, namespace: str, created: dict[str, Any]) -> None:
    _patch(where, namespace, {"status": STATUS}, "--subresource=status")
    head, row = _table(where, namespace, "-o", "wide")
    assert head[9:] == ["REPLICAS", "RESTARTS", "MEMORY", "NODES", "REASON", "MESSAGE"]
    assert row[9:] == ["1", "3", "24000", '["node-a","node-b"]', "BecauseReady", "message of Ready: with spaces"]


def test_kubectl_get_of_a_fresh_model_has_no_strange_cells(
    where: Cluster, namespace: str, created: dict[str, Any]
) -> None:
    _, row = _table(where, namespace, "-o", "wide")
    assert [cell for cell in row if cell] == ["example", "Pending", "llamacpp", "1", row[8], "1"]


@pytest.mark.parametrize("name", ["models", "model", "mdl", "berth", "all"])
def test_every_name_lists_models(where: Cluster, namespace: str, created: dict[str, Any], name: str) -> None:
    def listed() -> str:
        # kubectl keeps what a server serves in a cache, and renews that only after it has failed once.
        return where.kubectl("-n", namespace, "get", name, "-o", "name", check=False).stdout

    eventually(lambda: "model.berth.dev/example" in listed(), 10, f"kubectl get {name}")


def test_the_pod_template_keeps_fields_that_we_do_not_know(where: Cluster, namespace: str) -> None:
    template = {
        "metadata": {"labels": {"kueue.x-k8s.io/queue-name": "gpu"}},
        "spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}], "fieldOfTomorrow": {"a": [1, "b"]}},
    }
    where.apply(model({"podTemplate": template}), namespace=namespace)
    found = where.get("model", "example", namespace)
    assert found is not None
    assert found["spec"]["podTemplate"] == template


def test_kubectl_explain_speaks_of_fields(where: Cluster) -> None:
    text = " ".join(where.kubectl("explain", "model.spec.gpus").stdout.split())
    assert "GPUs per replica; 0 runs on CPU." in text
    assert "enum: Exclusive, Shared" in text
    assert "GPUs of one replica." in " ".join(where.kubectl("explain", "mdl.spec").stdout.split())


def test_two_appliers_own_single_variables(where: Cluster, namespace: str) -> None:
    for manager, name in (("one", "A"), ("two", "B")):
        text = yaml.safe_dump(model({"serving": {"env": [{"name": name, "value": manager}]}}))
        where.kubectl(*("-n", namespace, "apply", "--server-side", f"--field-manager={manager}", "-f", "-"), input=text)
    found = where.get("model", "example", namespace)
    assert found is not None
    assert found["spec"]["serving"]["env"] == [{"name": "A", "value": "one"}, {"name": "B", "value": "two"}]


def test_a_rule_broken_by_a_patch_is_refused(where: Cluster, namespace: str, created: dict[str, Any]) -> None:
    patch = json.dumps({"spec": {"idle": {"after": "5m"}}})
    done = where.kubectl("-n", namespace, "patch", "mdl", "example", "--type=merge", "-p", patch, check=False)
    assert done.returncode == 1
    assert "idle.after needs state OnDemand" in done.stderr
