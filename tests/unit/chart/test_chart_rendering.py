"""The chart as both Helms render it: what is in it, what is left out when, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from berth import __version__
from berth.api.crd import RESOURCES
from support.chart import CHART, Helm, component, rendered

pytestmark = pytest.mark.slow

ROOT = CHART.parents[1]
EVERYTHING = (
    "--set=uninstall.stopModels=true,serviceMonitor.enabled=true,podMonitor.enabled=true,prometheusRule.enabled=true",
    "--set=modelMonitor.enabled=true,dashboards.enabled=true,operator.allowUnsafePodTemplates=true,operator.backendImages.vllm=mirror/vllm:1",
    "--set=commonLabels.team=ml,imagePullSecrets[0].name=registry,agent.runtimeClassName=nvidia",
    "--set=serviceMonitor.interval=30s,operator.priorityClassName=system-cluster-critical,operator.podLabels.a=b",
    "--api-versions=monitoring.coreos.com/v1",
)
NAMESPACE_ONLY = ("--set=clusterObjects=false",)
CLUSTER_KINDS = {
    "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "Namespace", "PriorityClass",
    "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding",
}  # fmt: skip
MONITORING = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
Object = dict[str, Any]


def by_kind(documents: tuple[Object, ...], kind: str) -> list[Object]:
    return [document for document in documents if document["kind"] == kind]


def operator(*args: str) -> Object:
    """The operator's container."""
    (deployment,) = by_kind(rendered(*args), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found: Object = container
    return found


@pytest.mark.parametrize("values", [EVERYTHING, NAMESPACE_ONLY], ids=["everything", "namespace"])
def test_both_helms_render_the_same(values: tuple[str, ...]) -> None:
    version = "--kube-version=1.34.0"
    assert Helm(3).template(version, *values) == Helm(4).template(version, *values)


@pytest.mark.parametrize("major", [3, 4])
def test_lint_finds_nothing(major: int) -> None:
    done = Helm(major)("lint", "--strict", str(CHART), *EVERYTHING[:4])
    assert "[WARNING]" not in done.stdout + done.stderr


def test_the_crds_are_those_of_the_repository() -> None:
    found = {crd["metadata"]["name"]: crd["spec"] for crd in by_kind(rendered(), "CustomResourceDefinition")}
    crds = [yaml.load(path.read_text(), yaml.CSafeLoader) for path in (ROOT / "crds").glob("*.yaml")]
    assert found == {crd["metadata"]["name"]: crd["spec"] for crd in crds}
    assert not (CHART / "crds").exists()  # Helm would never upgrade what is there


@pytest.mark.parametrize(("keep", "policy"), [("true", "keep"), ("false", None)])
def test_crds_stay_when_the_release_goes_unless_that_is_not_wanted(keep: str, policy: str | None) -> None:
    for crd in by_kind(rendered(f"--set=crds.keep={keep},crds.annotations.note=x"), "CustomResourceDefinition"):
        assert crd["metadata"]["annotations"].get("helm.sh/resource-policy") == policy
        assert crd["metadata"]["annotations"]["note"] == "x"


def test_crds_can_be_left_to_somebody_else() -> None:
    assert by_kind(rendered("--set=crds.enabled=false"), "CustomResourceDefinition") == []


def test_rights_are_those_of_the_repository() -> None:
    roles = {
        role["metadata"]["name"]: role["rules"] for role in yaml.safe_load_all((ROOT / "deploy/rbac.yaml").read_text())
    }
    documents = by_kind(rendered(), "ClusterRole") + by_kind(rendered(), "Role")
    found = {role["metadata"]["name"]: role["rules"] for role in documents}
    assert {name: found[name] for name in roles} == roles
    assert found.keys() - roles.keys() == {"berth-view", "berth-edit", "berth-test"}


@pytest.mark.parametrize("values", [EVERYTHING, NAMESPACE_ONLY], ids=["everything", "namespace"])
def test_nobody_may_read_secrets_or_has_a_right_by_wildcard(values: tuple[str, ...]) -> None:
    for role in by_kind(rendered(*values), "ClusterRole") + by_kind(rendered(*values), "Role"):
        named = {name for rule in role["rules"] for part in ("apiGroups", "resources", "verbs") for name in rule[part]}
        assert not named & {"secrets", "*"}, role["metadata"]["name"]


def test_one_namespace_takes_nothing_of_the_whole_cluster() -> None:
    documents = rendered(*NAMESPACE_ONLY, namespace="team-a")
    assert {document["kind"] for document in documents} & CLUSTER_KINDS == set()
    assert {document["metadata"]["namespace"] for document in documents} == {"team-a"}
    assert (
        "--namespace=team-a"
        in next(iter(by_kind(documents, "Deployment")))["spec"]["template"]["spec"]["containers"][0]["args"]
    )


def test_an_operator_of_one_namespace_has_rights_in_no_other() -> None:
    documents = rendered("--set=watchNamespace=team-a")
    bound = {
        (role["kind"], role["metadata"].get("namespace"))
        for role in component(documents, "operator")
        if "roleRef" in role
    }
    assert bound == {
        ("RoleBinding", "team-a"),  # everything to do with Models
        ("RoleBinding", "berth-system"),  # the Lease
        ("ClusterRoleBinding", None),  # what nodes offer
    }


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ((), f"ghcr.io/berth/berth:{__version__}"),
        (("--set=image.registry=mirror:5000,image.tag=x",), "mirror:5000/berth/berth:x"),
        (("--set=image.registry=",), f"berth/berth:{__version__}"),
        ((f"--set=image.tag=x,image.digest=sha256:{'0' * 64}",), f"ghcr.io/berth/berth@sha256:{'0' * 64}"),
    ],
)
def test_one_image_runs_everything(values: tuple[str, ...], image: str) -> None:
    documents = rendered(*values, "--set=uninstall.stopModels=true")
    pods = [document["spec"]["template"]["spec"] for document in documents if "template" in document.get("spec", {})]
    pods += [document["spec"] for document in by_kind(documents, "Pod")]
    assert len(pods) == 4  # operator, agent, test, uninstall
    assert {container["image"] for pod in pods for container in pod["containers"]} == {image}
    assert {"name": "BERTH_IMAGE", "value": image} in operator(*values)["env"]


def test_what_is_set_reaches_the_operator() -> None:
    args = operator(*EVERYTHING, "--set=operator.extraArgs[0]=--workers=8,operator.logLevel=debug")["args"]
    assert args == [
        "operator",
        "--log-format=json",
        "--log-level=debug",
        "--ephemeral-max=20Gi",
        "--image=vllm=mirror/vllm:1",
        "--priority-class=berth-model",
        "--allow-unsafe-pod-templates",
        "--workers=8",
    ]


def test_labels_that_are_common_are_on_everything() -> None:
    for document in rendered(*EVERYTHING):
        assert document["metadata"]["labels"]["team"] == "ml", document["metadata"]["name"]
        pod = document.get("spec", {}).get("template", {}).get("metadata", {"labels": {"team": "ml"}})
        assert pod["labels"]["team"] == "ml"


def test_pods_do_not_start_anew_because_the_chart_has_another_version() -> None:
    workloads = by_kind(rendered(), "Deployment") + by_kind(rendered(), "DaemonSet")
    for pod in (workload["spec"]["template"] for workload in workloads):
        assert {"helm.sh/chart", "app.kubernetes.io/version"} & pod["metadata"]["labels"].keys() == set()


def test_models_let_the_operator_of_any_release_reach_them() -> None:
    text = Helm(4).template("--set=fullnameOverride=inference,crds.enabled=false", release="other")
    (deployment,) = (document for document in yaml.safe_load_all(text) if document and document["kind"] == "Deployment")
    assert deployment["metadata"]["name"] == "inference-operator"
    assert deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "berth"


def test_the_policy_names_the_account_that_the_agents_have() -> None:
    documents = rendered("--set=agent.namespace.name=gpus,fullnameOverride=inference")
    (daemonset,) = by_kind(documents, "DaemonSet")
    (policy,) = by_kind(documents, "ValidatingAdmissionPolicy")
    account = daemonset["spec"]["template"]["spec"]["serviceAccountName"]
    assert daemonset["metadata"]["namespace"] == "gpus"
    assert f"'system:serviceaccount:gpus:{account}'" in policy["spec"]["matchConditions"][0]["expression"]


def test_the_class_of_models_preempts_nobody() -> None:
    (found,) = by_kind(rendered(), "PriorityClass")
    assert (found["metadata"]["name"], found["value"], found["preemptionPolicy"]) == ("berth-model", 0, "Never")


def pod_monitors(*args: str, namespace: str = "berth-system") -> tuple[Object, Object]:
    """The one of the agents, and the one of the servers of Models."""
    found = {
        monitor["metadata"]["name"]: monitor for monitor in by_kind(rendered(*args, namespace=namespace), "PodMonitor")
    }
    return found.get("berth-agent", {}), found["berth-models"]


MONITORS = "--set=serviceMonitor.enabled=true,podMonitor.enabled=true,prometheusRule.enabled=true"


@pytest.mark.parametrize(
    ("further", "kinds"),
    [
        ((), set()),
        (("--api-versions=monitoring.coreos.com/v1",), MONITORING),
        (("--set=serviceMonitor.renderMode=alwaysRender",), MONITORING),
    ],
)
def test_monitors_are_rendered_where_the_cluster_knows_them(further: tuple[str, ...], kinds: set[str]) -> None:
    assert {document["kind"] for document in rendered(MONITORS, *further)} & MONITORING == kinds


def test_missing_monitors_can_be_an_error() -> None:
    mode = "--set=serviceMonitor.renderMode=failIfMissing"
    done = Helm(4)("template", "berth", str(CHART), MONITORS, mode, check=False)
    assert "install the Prometheus operator first, or set serviceMonitor.renderMode to skipIfMissing" in done.stderr


def test_monitors_find_what_they_scrape() -> None:
    documents = rendered(*EVERYTHING)
    (service_monitor,) = by_kind(documents, "ServiceMonitor")
    (service,) = by_kind(documents, "Service")
    assert service_monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service_monitor["spec"]["endpoints"] == [
        {"port": "http", "path": "/metrics", "interval": "30s", "honorLabels": True}
    ]
    assert [port["name"] for port in service["spec"]["ports"]] == ["http"]
    (pod_monitor, _), (daemonset,) = pod_monitors(*EVERYTHING), by_kind(documents, "DaemonSet")
    pods = daemonset["spec"]["template"]["metadata"]["labels"]
    assert pod_monitor["spec"]["selector"]["matchLabels"].items() <= pods.items()
    assert pod_monitor["metadata"]["namespace"] == daemonset["metadata"]["namespace"]
    # Series of Models and of Pods that hold GPUs have a namespace of their own, which is not that of who tells them.
    assert [endpoint["honorLabels"] for endpoint in pod_monitor["spec"]["podMetricsEndpoints"]] == [True]


def test_servers_of_models_are_found_in_every_namespace_by_the_labels_that_they_have() -> None:
    _, monitor = pod_monitors(*EVERYTHING)
    deployments = yaml.safe_load_all((ROOT / "tests/golden/vllm-gpu.yaml").read_text())
    (pod,) = (found["spec"]["template"] for found in deployments if found["kind"] == "Deployment")
    spec, labels = monitor["spec"], pod["metadata"]["labels"]
    assert spec["namespaceSelector"] == {"any": True}
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    (expression,) = spec["selector"]["matchExpressions"]
    assert expression == {"key": "app.kubernetes.io/name", "operator": "In", "values": ["vllm", "sglang", "tgi"]}
    assert labels[expression["key"]] in expression["values"]
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    assert endpoint["relabelings"] == [
        {"sourceLabels": ["__meta_kubernetes_pod_label_berth_dev_model"], "targetLabel": "model"}
    ]


@pytest.mark.parametrize(
    ("values", "namespace"), [("clusterObjects=false", "team-a"), ("watchNamespace=team-b", "team-b")]
)
def test_servers_of_models_are_looked_for_where_models_are_served(values: str, namespace: str) -> None:
    _, monitor = pod_monitors(*EVERYTHING, f"--set={values}", namespace="team-a")
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": [namespace]}


def test_dashboards_arrive_as_they_are() -> None:
    maps = [
        found for found in by_kind(rendered(*EVERYTHING), "ConfigMap") if "-dashboard-" in found["metadata"]["name"]
    ]
    files = {path.name: json.loads(path.read_text()) for path in (CHART / "files/dashboards").iterdir()}
    assert {name: json.loads(text) for found in maps for name, text in found["data"].items()} == files
    assert {found["metadata"]["labels"]["grafana_dashboard"] for found in maps} == {"1"}


def test_rules_arrive_as_they_are() -> None:
    found = [rule["spec"] for rule in by_kind(rendered(*EVERYTHING), "PrometheusRule")]
    assert found == [yaml.safe_load(path.read_text()) for path in sorted((CHART / "files/rules").iterdir())]


def test_alerts_can_be_left_out_by_name() -> None:
    def alerts(*further: str) -> set[str]:
        found = by_kind(rendered(*EVERYTHING, *further), "PrometheusRule")
        groups = [group for rule in found for group in rule["spec"]["groups"]]
        return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}

    disabled = "--set=prometheusRule.disabled={BerthGPUMemoryHigh,BerthModelCacheNearlyFull}"
    assert alerts() - alerts(disabled) == {"BerthGPUMemoryHigh", "BerthModelCacheNearlyFull"}


def test_models_are_stopped_at_the_end_only_where_that_is_wanted() -> None:
    assert by_kind(rendered(), "Job") == []
    documents = rendered("--set=uninstall.stopModels=true,uninstall.timeout=30")
    (job,) = by_kind(documents, "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["uninstall", "--timeout=30"]
    rules = {role["metadata"]["name"]: role["rules"] for role in component(documents, "uninstall") if "rules" in role}
    assert rules == {
        "berth-stop-models": [{"apiGroups": ["berth.dev"], "resources": ["models"], "verbs": ["list"]}],
        "berth-stop-models-order": [
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["berth-operator"], "verbs": ["patch"]}
        ],
    }
    (switch,) = by_kind(documents, "ConfigMap")
    assert (switch["metadata"]["name"], switch["data"]) == ("berth-operator", {"stopModels": "false"})


def test_rights_of_hooks_live_no_longer_than_they() -> None:
    documents = rendered("--set=uninstall.stopModels=true")
    for document in component(documents, "uninstall") + component(documents, "test"):
        policy = document["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        if document["kind"] not in ("Job", "Pod"):
            assert policy == "before-hook-creation,hook-succeeded,hook-failed"


def test_further_objects_may_be_objects_or_text_with_templates(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "extraObjects:\n"
        "  - {apiVersion: v1, kind: Secret, metadata: {name: '{{ .Release.Name }}-one'}}\n"
        "  - |\n"
        "    apiVersion: v1\n"
        "    kind: Secret\n"
        "    metadata: {name: '{{ include \"berth.operator\" . }}-two'}\n"
    )
    documents = yaml.safe_load_all(Helm(4).template("--values", str(values), "--set=crds.enabled=false"))
    names = [document["metadata"]["name"] for document in documents if document and document["kind"] == "Secret"]
    assert names == ["berth-one", "berth-operator-two"]


def test_what_the_chart_says_of_itself_is_true() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    annotations = {key.removeprefix("artifacthub.io/"): value for key, value in chart["annotations"].items()}
    assert chart["appVersion"] == __version__
    crds = {(crd["kind"], crd["version"], crd["name"]) for crd in yaml.safe_load(annotations["crds"])}
    assert crds == {(found.kind, "v1alpha1", found.name) for found in RESOURCES}
    assert [image["image"] for image in yaml.safe_load(annotations["images"])] == [operator()["image"]]


@pytest.mark.parametrize("values", [(), NAMESPACE_ONLY], ids=["defaults", "namespace"])
def test_the_notes_say_what_comes_next(values: tuple[str, ...]) -> None:
    done = Helm(4)("install", "berth", str(CHART), "--dry-run=client", "--hide-notes=false", *values)
    notes = done.stdout.split("NOTES:\n")[1]
    assert "helm test berth --namespace berth-system" in notes
    assert ("kubectl get gpunodes" in notes) == (values != NAMESPACE_ONLY)


def test_the_namespace_of_the_release_is_not_made_by_it() -> None:
    documents = rendered("--set=agent.namespace.name=berth-system")
    assert by_kind(documents, "Namespace") == []
    (daemonset,) = by_kind(documents, "DaemonSet")
    assert daemonset["metadata"]["namespace"] == "berth-system"
