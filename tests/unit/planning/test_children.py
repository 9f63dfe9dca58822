"""The objects that a Model consists of."""

import json
import time
from typing import Any

import pytest

from berth.api.model import ModelSpec, RolloutStrategy
from berth.planning import names
from berth.planning.canonical import content_hash
from berth.planning.children import (
    ModelIdentity,
    desired_children,
    render_deployment,
    render_network_policy,
    render_service,
    template_hash,
    with_applied_hash,
)
from berth.planning.pod_template import render_pod_template, template_inputs
from berth.planning.render_settings import Peer, RenderSettings

CHAT = ModelIdentity("models", "chat", "uid-1")
SETTINGS = RenderSettings(scraper=Peer("monitoring", {"app": "prometheus"}))


def spec_of(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"backend": "llamacpp", "source": {"uri": "pvc://weights/a.gguf"}, **fields})


def children(**fields: Any) -> dict[str, dict[str, Any]]:
    spec = spec_of(**fields)
    template = render_pod_template("chat", "models", spec, SETTINGS)
    made = desired_children(CHAT, spec, SETTINGS, template, replicas=spec.replicas, strategy=RolloutStrategy.SURGE)
    return {child["kind"]: child for child in made}


def deployment(**options: Any) -> dict[str, Any]:
    spec = spec_of()
    template = render_pod_template("chat", "models", spec, SETTINGS)
    return render_deployment(CHAT, spec, template, **{"replicas": 1, "strategy": RolloutStrategy.SURGE, **options})


# ---- all children --------------------------------------------------------------------------------------------


def test_a_disruption_budget_is_for_several_replicas() -> None:
    assert set(children()) == {"Deployment", "Service", "NetworkPolicy"}
    assert children(replicas=2)["PodDisruptionBudget"]["spec"] == {
        "maxUnavailable": 1,
        "selector": {"matchLabels": names.server_selector("chat")},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }


def test_children_are_owned_and_do_not_block_the_models_deletion() -> None:
    for child in children(replicas=2).values():
        assert child["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "berth.dev/v1alpha1",
                "kind": "Model",
                "name": "chat",
                "uid": "uid-1",
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]
        assert (child["metadata"]["name"], child["metadata"]["namespace"]) == ("chat", "models")


def test_children_carry_the_recommended_labels() -> None:
    for child in children(replicas=2).values():
        assert child["metadata"]["labels"] == {
            "app.kubernetes.io/name": "llamacpp",
            "app.kubernetes.io/instance": "chat",
            "app.kubernetes.io/component": "server",
            "app.kubernetes.io/part-of": "berth",
            "app.kubernetes.io/managed-by": "berth",
            "berth.dev/model": "chat",
        }


def test_every_child_carries_the_hash_of_itself() -> None:
    for child in children(replicas=2).values():
        annotations = dict(child["metadata"]["annotations"])
        applied = annotations.pop(names.APPLIED_ANNOTATION)
        bare = {**child, "metadata": {**child["metadata"], "annotations": annotations}}
        assert content_hash(bare) == applied


def test_the_hash_depends_on_the_rest_and_not_on_an_older_hash() -> None:
    manifest = {"kind": "X", "metadata": {"name": "a", "annotations": {"b": "c", names.APPLIED_ANNOTATION: "old"}}}
    hashed = with_applied_hash(manifest)
    assert hashed == with_applied_hash(hashed)
    assert manifest["metadata"]["annotations"][names.APPLIED_ANNOTATION] == "old"  # type: ignore[index]
    other = with_applied_hash({"kind": "Y", "metadata": {"name": "a"}})
    assert other["metadata"]["annotations"] != hashed["metadata"]["annotations"]


@pytest.mark.parametrize(
    "change", [{"backend": "vllm"}, {"replicas": 7}, {"serving": {"servedNames": ["x"]}}, {"state": "Stopped"}]
)
def test_selectors_never_change(change: dict[str, Any]) -> None:
    def selectors(**fields: Any) -> list[Any]:
        made = children(**{"replicas": 2, **fields})
        return [
            made["Deployment"]["spec"]["selector"],
            made["Service"]["spec"]["selector"],
            made["NetworkPolicy"]["spec"]["podSelector"],
            made["PodDisruptionBudget"]["spec"]["selector"],
        ]

    assert selectors(**change) == selectors()


# ---- the Deployment ------------------------------------------------------------------------------------------


def test_pods_are_marked_with_the_hash_of_their_template() -> None:
    spec = spec_of()
    template = render_pod_template("chat", "models", spec, SETTINGS)
    made = deployment()
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert labels[names.TEMPLATE_HASH_LABEL] == template_hash(template)
    assert labels.items() >= made["spec"]["selector"]["matchLabels"].items()
    assert json.loads(made["metadata"]["annotations"][names.POD_TEMPLATE_ANNOTATION]) == template
    assert made["metadata"]["annotations"][names.TEMPLATE_INPUTS_ANNOTATION] == template_inputs(spec)


def test_a_kept_template_renders_the_same_deployment() -> None:
    made = deployment()
    kept = json.loads(made["metadata"]["annotations"][names.POD_TEMPLATE_ANNOTATION])
    again = render_deployment(CHAT, spec_of(), kept, replicas=1, strategy=RolloutStrategy.SURGE)
    assert again == made


def test_a_template_of_other_inputs_says_so() -> None:
    assert deployment(inputs="old")["metadata"]["annotations"][names.TEMPLATE_INPUTS_ANNOTATION] == "old"


@pytest.mark.parametrize(
    ("strategy", "surge", "unavailable"), [(RolloutStrategy.SURGE, 1, 0), (RolloutStrategy.IN_PLACE, 0, 1)]
)
def test_a_rollout_is_never_recreate(strategy: RolloutStrategy, surge: int, unavailable: int) -> None:
    assert deployment(strategy=strategy)["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
    }


def test_a_deployment_waits_longer_than_the_server_may_take() -> None:
    made = children(health={"startupTimeout": "2h", "warmTime": "90s"})["Deployment"]["spec"]
    assert made["progressDeadlineSeconds"] > 7200 + 90
    assert made["minReadySeconds"] == 90
    assert made["revisionHistoryLimit"] == 2


# ---- Service and NetworkPolicy -------------------------------------------------------------------------------


def test_the_service_finds_the_port_by_name() -> None:
    assert children()["Service"]["spec"]["ports"] == [
        {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}
    ]


def test_a_closed_service_sends_nothing_anywhere() -> None:
    closed = render_service(CHAT, spec_of(), closed_since="2026-01-01T12:00:00+00:00")
    selector = closed["spec"]["selector"]
    assert closed["metadata"]["annotations"][names.CLOSED_SINCE_ANNOTATION] == "2026-01-01T12:00:00+00:00"
    assert selector.items() > names.server_selector("chat").items()
    assert names.CLOSED_LABEL not in deployment()["spec"]["template"]["metadata"]["labels"]


def peers(**fields: Any) -> list[dict[str, Any]]:
    policy = render_network_policy(CHAT, spec_of(**fields), SETTINGS)["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": "http", "protocol": "TCP"}]]
    found: list[dict[str, Any]] = policy["ingress"][0]["from"]
    return found


ALWAYS = [
    {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "berth-system"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "berth"}},
    },
    {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
        "podSelector": {"matchLabels": {"app": "prometheus"}},
    },
]


def test_the_models_namespace_may_reach_it_unless_it_says_otherwise() -> None:
    assert peers() == [{"podSelector": {}}, *ALWAYS]
    allowed = [{"podSelector": {"matchLabels": {"app": "web"}}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert peers(network={"allowFrom": allowed}) == [*allowed, *ALWAYS]
    assert peers(network={"allowFrom": []}) == ALWAYS


# ---- cost ----------------------------------------------------------------------------------------------------


def test_a_thousand_models_render_in_seconds() -> None:
    spec = spec_of(replicas=2, serving={"contextLength": 4096}, limits={"cpu": "4", "memory": "8Gi"})
    started = time.process_time()
    for _ in range(100):
        template = render_pod_template("chat", "models", spec, SETTINGS)
        desired_children(CHAT, spec, SETTINGS, template, replicas=2, strategy=RolloutStrategy.SURGE)
    per_model = (time.process_time() - started) / 100
    assert per_model < 0.005, "a millisecond is the aim; five allow for a slow machine"
