"""What a Model becomes on a real API server, and whose objects are touched."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.kube import Cluster, eventually
from support.models import (
    KINDS,
    Manifest,
    Served,
    children,
    conditions,
    custom,
    model,
    patch,
    pods,
    pretend_ready,
    settle,
    stays,
    versions,
    wait_for_children,
    wait_for_phase,
    wait_for_stall,
)
from support.operator_process import ROOT, OperatorProcess

pytestmark = pytest.mark.control_plane
Start = Callable[..., OperatorProcess]

NOTATIONS: list[Manifest] = [
    custom("thousandths", limits={"cpu": "1000m", "memory": "1024Mi"}, requests={"cpu": "0.1", "memory": "1e9"}),
    custom("exponents", limits={"cpu": 2, "memory": "1048576Ki", "ephemeral-storage": "2048Mi"}),
    custom("fractions", limits={"cpu": "1.5", "memory": "1.5Gi"}, health={"period": "1m30s", "startupTimeout": "90m"}),
    custom(
        "sidecar",
        podTemplate={
            "metadata": {"labels": {"team": "a"}, "annotations": {"note": "1"}},
            "spec": {
                "tolerations": [{"key": "gpu", "operator": "Exists"}],
                "nodeSelector": {"pool": "x"},
                "terminationGracePeriodSeconds": 300,
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"team": "a"}},
                    }
                ],
                "containers": [
                    {
                        "name": "log",
                        "image": "none",
                        "resources": {"limits": {"cpu": "100m", "memory": "0.5Gi"}, "requests": {"cpu": 0.05}},
                        "ports": [{"containerPort": 9100}],
                        "env": [{"name": "EMPTY", "value": ""}],
                    },
                    {"name": "server", "livenessProbe": None, "env": [{"name": "A", "value": "b"}]},
                ],
                "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "1024Mi"}}],
            },
        },
    ),
    custom("neighbours", network={"allowFrom": [{"podSelector": {"matchLabels": {"app": "web"}}}]}, replicas=2),
    model("claims", backend="llamacpp", source={"uri": "pvc://weights/tiny.gguf"}, serving={"contextLength": 512}),
    custom("resting", state="Stopped"),
    custom("broken", podTemplate={"spec": {"hostNetwork": True}}),
]


def test_a_model_gets_its_objects_owned_so_that_they_block_no_deletion(served: Served, name: str) -> None:
    served.cluster.apply(custom(name), namespace=served.namespace)
    found = wait_for_children(served.cluster, served.namespace, name)
    uid = served.cluster.get("model", name, served.namespace)["metadata"]["uid"]  # type: ignore[index]
    owner = {"apiVersion": "berth.dev/v1alpha1", "kind": "Model", "name": name, "uid": uid}
    for kind in KINDS:
        assert found[kind]["metadata"]["ownerReferences"] == [
            {**owner, "controller": True, "blockOwnerDeletion": False}
        ], kind
    assert "pdb" not in found


def test_a_model_passes_through_pending_to_ready_and_names_its_url(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name, custom={"port": 9000, "protocolPath": "/api"}), namespace=namespace)
    pending = wait_for_phase(where, namespace, name, "Pending")
    assert conditions(where, namespace, name)["Ready"][1] in ("Creating", "Unschedulable")
    assert pending["status"]["url"] == f"http://{name}.{namespace}.svc/api"
    eventually(lambda: pods(where, namespace, name))
    pretend_ready(where, namespace, name)
    ready = wait_for_phase(where, namespace, name, "Ready")
    assert ready["status"]["ready"] == "1/1"
    assert conditions(where, namespace, name).keys() == {"Ready", "Accepted", "Available"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_of_somebody_else_stays_as_it_is_and_the_model_recovers_when_it_goes(
    served: Served, name: str, kind: str
) -> None:
    where, namespace = served.cluster, served.namespace
    labels = {"app": "mine"}
    container = {"name": "c", "image": "none"}
    specs: dict[str, Manifest] = {
        "service": {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}], "selector": labels}},
        "deployment": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
        "networkpolicy": {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "spec": {"podSelector": {"matchLabels": labels}},
        },
    }
    where.apply({**specs[kind], "metadata": {"name": name}}, namespace=namespace)
    if kind == "deployment":  # its own controller writes to it as well

        def at_rest() -> dict[str, Any] | None:
            seen = where.get(kind, name, namespace)
            return seen if seen and seen.get("status", {}).get("observedGeneration") else None

        before = eventually(at_rest)
    else:
        before = where.get(kind, name, namespace)
    where.apply(custom(name), namespace=namespace)
    message = wait_for_stall(where, namespace, name, "NameConflict")
    assert name in message
    assert where.phase(name, namespace) == "Failed"
    stays(lambda: where.get(kind, name, namespace), 1.5)  # it is tried again each second
    assert where.get(kind, name, namespace) == before
    where.kubectl("-n", namespace, "delete", kind, name)
    found = wait_for_children(where, namespace, name)
    assert found[kind]["metadata"]["ownerReferences"][0]["kind"] == "Model"
    wait_for_phase(where, namespace, name, "Pending")
    assert "Stalled" not in conditions(where, namespace, name)


def test_fields_of_ours_come_back_and_those_of_others_stay(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    wait_for_children(where, namespace, name)
    foreign = {"metadata": {"labels": {"team": "blue"}, "annotations": {"example.com/note": "hello"}}}
    patch(where, namespace, name, {**foreign, "spec": {"replicas": 7, "minReadySeconds": 99}}, "deployment")
    patch(where, namespace, name, {**foreign, "spec": {"selector": {"berth.dev/model": "stolen"}}}, "service")
    patch(where, namespace, name, {**foreign, "spec": {"ingress": [{}]}}, "networkpolicy")

    def restored() -> None:
        found = children(where, namespace, name)
        assert found["deployment"]["spec"]["replicas"] == 1
        assert found["deployment"]["spec"].get("minReadySeconds", 0) == 0
        assert found["service"]["spec"]["selector"]["berth.dev/model"] == name
        assert found["networkpolicy"]["spec"]["ingress"] != [{}]
        for kind in KINDS:
            assert found[kind]["metadata"]["labels"]["team"] == "blue", kind
            assert found[kind]["metadata"]["annotations"]["example.com/note"] == "hello", kind

    eventually(lambda: restored() or True, 20)


def test_a_label_of_ours_that_was_taken_away_comes_back(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    wait_for_children(where, namespace, name)
    for kind in KINDS:
        where.kubectl("-n", namespace, "label", kind, name, "app.kubernetes.io/managed-by-")

    def labelled() -> bool:
        found = children(where, namespace, name)
        return all(found[kind]["metadata"]["labels"].get("app.kubernetes.io/managed-by") == "berth" for kind in KINDS)

    eventually(labelled, 20)


def test_a_deleted_child_comes_back(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    before = wait_for_children(where, namespace, name)
    for kind in KINDS:
        where.kubectl("-n", namespace, "delete", kind, name, "--wait=false")

    def made_anew() -> bool:
        found = children(where, namespace, name)
        return all(
            kind in found and found[kind]["metadata"]["uid"] != before[kind]["metadata"]["uid"] for kind in KINDS
        )

    eventually(made_anew, 20)


def test_settled_models_cause_no_writes_and_neither_does_a_restart(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    operator = start_operator("--sweep-interval", "1")
    where.apply(*NOTATIONS, namespace=namespace)
    for manifest in NOTATIONS:
        name = manifest["metadata"]["name"]
        phase = {"resting": "Stopped", "broken": "Failed"}.get(name, "Pending")
        wait_for_phase(where, namespace, name, phase)
    eventually(lambda: all(pods(where, namespace, n) for n in ("claims", "sidecar", "neighbours")))
    pretend_ready(where, namespace, "claims")
    wait_for_phase(where, namespace, "claims", "Ready")
    settle(operator)
    stays(lambda: (operator.writes(), versions(where, namespace)), 5)
    assert operator.metric("berth_unequal_applies_total") == 0
    operator.stop()
    again = start_operator()
    eventually(lambda: again.metric("berth_reconciles_total") >= len(NOTATIONS))
    stays(lambda: (again.writes(), versions(where, namespace)), 3)
    assert again.writes() == 0


def test_scaling_with_kubectl_brings_a_disruption_budget_that_goes_at_one(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    wait_for_children(where, namespace, name)
    where.kubectl("-n", namespace, "scale", "model", name, "--replicas=3")
    eventually(lambda: len(pods(where, namespace, name)) == 3, 20, "three Pods")
    eventually(lambda: where.get("pdb", name, namespace), 20, "a disruption budget")
    eventually(lambda: (where.get("model", name, namespace) or {})["status"]["replicas"] == 3, 20)
    shown = where.kubectl("-n", namespace, "get", "--raw", _scale(namespace, name)).stdout
    scale = json.loads(shown)
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (3, 3)
    assert f"berth.dev/model={name}" in scale["status"]["selector"]
    where.kubectl("-n", namespace, "scale", "model", name, "--replicas=1")
    eventually(lambda: where.get("pdb", name, namespace) is None, 20, "no disruption budget")
    eventually(lambda: len(pods(where, namespace, name)) == 1, 20, "one Pod")


def _scale(namespace: str, name: str) -> str:
    return f"/apis/berth.dev/v1alpha1/namespaces/{namespace}/models/{name}/scale"


@pytest.mark.parametrize(
    ("change", "reason"), [({"state": "Stopped"}, "StoppedByUser"), ({"replicas": 0}, "ScaledToZero")]
)
def test_a_stopped_model_has_no_pods_and_is_done(
    served: Served, name: str, change: dict[str, Any], reason: str
) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    eventually(lambda: pods(where, namespace, name))
    patch(where, namespace, name, {"spec": change})
    stopped = wait_for_phase(where, namespace, name, "Stopped")
    assert conditions(where, namespace, name)["Ready"][:2] == ("True", reason)
    assert stopped["status"]["ready"] == "0/0"
    assert pods(where, namespace, name) == []
    assert where.get("deployment", name, namespace)["spec"]["replicas"] == 0  # type: ignore[index]
    patch(where, namespace, name, {"spec": {"state": "Running", "replicas": 1}})
    eventually(lambda: pods(where, namespace, name), 20, "it starts again")


def test_kubectl_wait_does_not_return_before_a_fresh_model_was_looked_at(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    def wait(*names: str) -> int:
        targets = [f"model/{n}" for n in names]
        return where.kubectl(
            "-n", namespace, "wait", "--for=condition=Ready", "--timeout=1s", *targets, check=False
        ).returncode

    where.apply(custom("early"), custom("stopped", state="Stopped"), namespace=namespace)
    assert wait("early") != 0
    assert wait("stopped") != 0
    assert where.get("model", "early", namespace)["status"]["observedGeneration"] == -1  # type: ignore[index]
    start_operator()
    wait_for_phase(where, namespace, "stopped", "Stopped")
    assert wait("stopped") == 0
    assert wait("early") != 0


def test_nothing_of_kopf_is_left_on_a_model(served: Served, name: str) -> None:
    where, namespace = served.cluster, served.namespace
    where.apply(custom(name), namespace=namespace)
    wait_for_children(where, namespace, name)
    wait_for_phase(where, namespace, name, "Pending")
    metadata = where.get("model", name, namespace)["metadata"]  # type: ignore[index]
    assert "finalizers" not in metadata
    assert set(metadata.get("annotations", ())) <= {"kubectl.kubernetes.io/last-applied-configuration"}
    managers = {(m["manager"], m.get("subresource", "")) for m in metadata["managedFields"]}
    assert managers == {("kubectl-client-side-apply", ""), ("berth", "status")}


def test_another_version_of_berth_restarts_no_pod_unless_the_model_says_so(
    where: Cluster, namespace: str, start_operator: Start
) -> None:
    def llama(name: str, **spec: Any) -> Manifest:
        return model(name, backend="llamacpp", source={"uri": "pvc://w/a.gguf"}, gpus={"count": 0}, **spec)

    def image(name: str) -> str:
        deployment = where.get("deployment", name, namespace)
        assert deployment is not None
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    first = start_operator("--image", "llamacpp=example.com/llama:1")
    where.apply(llama("manual"), llama("automatic", rollout={"onUpgrade": "Automatic"}), namespace=namespace)
    before = wait_for_children(where, namespace, "manual")["deployment"]
    wait_for_children(where, namespace, "automatic")
    first.stop()
    start_operator("--image", "llamacpp=example.com/llama:2")
    eventually(lambda: image("automatic") == "example.com/llama:2", 20, "the new template")
    eventually(lambda: (where.get("model", "manual", namespace) or {})["status"].get("upgradeAvailable"), 20)
    after = where.get("deployment", "manual", namespace)
    assert after is not None
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    assert after["spec"] == before["spec"]
    assert "upgradeAvailable" not in where.get("model", "automatic", namespace)["status"]  # type: ignore[index]
    patch(where, namespace, "manual", {"spec": {"rollout": {"onUpgrade": "Automatic"}}})
    eventually(lambda: image("manual") == "example.com/llama:2", 20, "the new template by request")
    eventually(lambda: "upgradeAvailable" not in (where.get("model", "manual", namespace) or {})["status"], 20)


def test_the_operator_needs_no_right_that_its_role_does_not_give(
    where: Cluster, namespace: str, start_operator: Start, tmp_path: Path
) -> None:
    operator = start_operator("--sweep-interval", "1")
    account = f"--as=system:serviceaccount:{namespace}:berth-operator"
    for verb in ("get", "list", "watch", "create", "patch"):
        answer = where.kubectl("auth", "can-i", verb, "secrets", "-n", namespace, account, check=False)
        assert answer.stdout.strip() == "no", verb
    where.apply(custom("a", replicas=2), namespace=namespace)
    eventually(lambda: where.get("pdb", "a", namespace), 20)
    patch(where, namespace, "a", {"spec": {"replicas": 1}})
    eventually(lambda: where.get("pdb", "a", namespace) is None, 20)
    patch(where, namespace, "a", {"spec": {"state": "Stopped"}})
    wait_for_phase(where, namespace, "a", "Stopped")
    eventually(lambda: [e for e in where.list("event", namespace) if e["reason"] == "Stopped"], 10, "an Event")
    where.kubectl("-n", namespace, "delete", "model", "a")
    assert operator.metric("berth_kubernetes_requests_total", status="403") == 0
    assert operator.metric("berth_kubernetes_requests_total", status="401") == 0


def test_the_rights_in_the_repository_are_complete_and_small() -> None:
    text = (ROOT / "deploy/rbac.yaml").read_text()
    assert "secrets" not in text
    assert "*" not in text
