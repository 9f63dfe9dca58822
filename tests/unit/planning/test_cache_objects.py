"""The objects of a ModelCache: how its Jobs run, and what a podTemplate may say of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.cache_objects import job_name
from berth.planning.plan import Apply
from berth.planning.policy import Policy
from berth.planning.render_settings import Peer, RenderSettings
from support import builders
from support.builders import URI
from support.cache_simulation import CacheSimulation, arguments, bound, folder_of, jobs_in, option


def job(uri: str = URI, source: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """The Job of a download."""
    cluster = bound(**spec)
    cluster.add_model(uri=uri, **({"source": {"uri": uri, **source}} if source else {}))
    (made,) = jobs_in(cluster.plan())
    return made


def container(made: dict[str, Any]) -> dict[str, Any]:
    """Its only container."""
    (found,) = made["spec"]["template"]["spec"]["containers"]
    result: dict[str, Any] = found
    return result


# ---- Jobs ----------------------------------------------------------------------------------------------------


def test_a_job_belongs_to_the_cache_and_says_which_artifact_it_is_about() -> None:
    made = job()
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["blockOwnerDeletion"]) == ("ModelCache", builders.CACHE_UID, False)
    assert made["metadata"]["labels"]["berth.dev/artifact"] == folder_of(made)


def test_a_job_asks_for_what_the_source_says() -> None:
    files = {"files": ["*.json", "*Q4*.gguf"]}
    made = job(source=files)
    assert option(made, "--uri") == URI
    assert [word for word in arguments(made) if word in files["files"]] == ["*.json", "*Q4*.gguf"]
    digest = "a" * 64
    assert option(job("https://host/x.gguf", {"sha256": digest}), "--sha256") == digest


def test_a_job_knows_who_wants_to_load_the_artifact() -> None:
    """Whether a server can load it is looked at before the first byte."""
    assert '"backend":"custom","gpus":0,"model":"m","ownImage":true' in option(job(), "--for")


def test_nothing_but_a_final_failure_ends_a_job_early() -> None:
    spec = job()["spec"]
    fail, ignore = spec["podFailurePolicy"]["rules"]
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [65])
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_a_download_has_no_rights_in_the_cluster_and_few_on_its_node() -> None:
    made = job()
    pod, program = made["spec"]["template"]["spec"], container(made)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert program["securityContext"]["readOnlyRootFilesystem"] is True
    assert program["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_token_comes_from_the_secret_and_is_never_written() -> None:
    env = {one["name"]: one for one in container(job(source={"secretRef": {"name": "mine"}}))["env"]}
    assert env["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "mine", "key": "token"}}
    keys = container(job("s3://bucket/x", {"secretRef": {"name": "mine"}}))["env"]
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} < {one["name"] for one in keys}


def test_a_removal_and_a_download_of_the_same_artifact_have_different_names() -> None:
    assert job_name("c", "remove", "llama-1") != job_name("c", "download", "llama-1")


@given(
    st.text("abc-", min_size=1, max_size=80).filter(lambda name: name.strip("-")),
    st.sampled_from(["download", "discover"]),
)
def test_names_of_jobs_are_names_and_fit_into_labels(about: str, task: str) -> None:
    name = job_name("cache", task, about)
    assert len(name) <= 63
    assert name[0].isalpha()
    assert name[-1].isalnum()


def test_caches_in_one_namespace_have_different_jobs() -> None:
    assert job_name("one", "download", "llama-1") != job_name("two", "download", "llama-1")


def test_only_berth_and_the_scraper_may_ask_a_download() -> None:
    settings = RenderSettings(operator=Peer("berth", {"app": "berth"}), scraper=Peer("metrics", {"app": "scraper"}))
    plan = CacheSimulation(Policy(render=settings)).plan()
    (guard,) = [
        one.manifest for one in plan.changes if isinstance(one, Apply) and one.manifest["kind"] == "NetworkPolicy"
    ]
    (rule,) = guard["spec"]["ingress"]
    assert len(rule["from"]) == 2
    assert rule["ports"] == [{"port": 8081, "protocol": "TCP"}]
    assert guard["spec"]["policyTypes"] == ["Ingress"]


# ---- what podTemplate may say --------------------------------------------------------------------------------


def provision(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "provision", **fields}]}}


def test_proxy_authorities_tolerations_and_identity_may_be_said() -> None:
    made = job(
        podTemplate={
            "metadata": {"labels": {"team": "ml"}},
            "spec": {
                "serviceAccountName": "weights-reader",
                "tolerations": [{"key": "ml", "operator": "Exists"}],
                "volumes": [{"name": "ca", "configMap": {"name": "authorities"}}],
                "containers": [
                    {
                        "name": "provision",
                        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
                        "volumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/own"}],
                        "resources": {"limits": {"memory": "1Gi"}},
                    }
                ],
            },
        }
    )
    template = made["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "ml"
    assert template["spec"]["serviceAccountName"] == "weights-reader"
    program = container(made)
    assert {"HOME", "HTTPS_PROXY"} <= {one["name"] for one in program["env"]}
    assert {one["mountPath"] for one in program["volumeMounts"]} == {"/cache", "/tmp", "/etc/ssl/own"}
    assert program["resources"]["limits"]["memory"] == "1Gi"


@pytest.mark.parametrize(
    ("said", "path"),
    [
        ({"spec": {"initContainers": [{"name": "x"}]}}, "spec.initContainers"),
        ({"spec": {"containers": [{"name": "sidecar"}]}}, "spec.containers[0].name"),
        (provision(image="other"), "spec.containers[0].image"),
        (provision(command=["sh"]), "spec.containers[0].command"),
        (provision(args=["--uri"]), "spec.containers[0].args"),
        (provision(lifecycle={"postStart": {}}), "spec.containers[0].lifecycle"),
        (provision(livenessProbe={"exec": {"command": ["sh"]}}), "spec.containers[0].livenessProbe"),
        (provision(startupProbe={"exec": {"command": ["sh"]}}), "spec.containers[0].startupProbe"),
        (provision(readinessProbe={"exec": {"command": ["sh"]}}), "spec.containers[0].readinessProbe"),
        ({"spec": {"containers": [{"name": "provision", "$patch": "delete"}]}}, "spec.containers[0].$patch"),
        (provision(env=[{"name": "LD_PRELOAD", "value": "x"}]), "spec.containers[0].env[0].name"),
        (provision(env=[{"name": "PYTHONPATH", "value": "x"}]), "spec.containers[0].env[0].name"),
        (provision(envFrom=[{"configMapRef": {"name": "x"}}]), "spec.containers[0].envFrom"),
        (provision(volumeMounts=[{"name": "x", "mountPath": "/app"}]), "spec.containers[0].volumeMounts[0].mountPath"),
        (
            provision(volumeMounts=[{"name": "x", "mountPath": "/mnt/../app"}]),
            "spec.containers[0].volumeMounts[0].mountPath",
        ),
        (provision(securityContext={"privileged": True}), "spec.containers[0].securityContext.privileged"),
        ({"spec": {"hostNetwork": True}}, "spec.hostNetwork"),
        ({"spec": {"automountServiceAccountToken": True}}, "spec.automountServiceAccountToken"),
        ({"spec": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}}, "spec.volumes[0].hostPath"),
        ({"spec": {"tolerations": "all"}}, "spec.tolerations"),
        ({"kind": "Pod"}, "kind"),
    ],
)
def test_what_would_run_something_else_is_refused_with_its_path(said: dict[str, Any], path: str) -> None:
    cluster = CacheSimulation(podTemplate=said)
    cluster.reconcile()
    assert (cluster.status["phase"], cluster.status["conditions"][0]["reason"]) == ("Failed", "InvalidSpec")
    assert cluster.status["conditions"][0]["message"].startswith(f"podTemplate.{path}: ")
    assert cluster.status["conditions"][-1] == cluster.status["conditions"][-1] | {
        "type": "Accepted",
        "status": "False",
    }


def test_a_mistake_is_told_whether_or_not_there_is_something_to_download() -> None:
    """Otherwise the status would change whenever an attempt is due."""
    cluster = bound()
    cluster.edit(podTemplate=provision(image="other"))
    cluster.settle()
    assert cluster.status["phase"] == "Failed"
    cluster.edit(podTemplate=None)
    cluster.settle()
    assert cluster.status["phase"] == "Ready"


def test_a_mistake_keeps_what_is_known_of_the_artifacts() -> None:
    cluster = bound()
    cluster.add_model()
    cluster.settle()
    cluster.edit(podTemplate=provision(image="other"))
    cluster.settle()
    assert (cluster.state(), cluster.status["claim"]) == ("Present", "modelcache-default")


def test_an_operator_may_allow_everything() -> None:
    cluster = CacheSimulation(
        Policy(render=RenderSettings(allow_unsafe_pod_template=True)), podTemplate=provision(image="other")
    )
    cluster.settle()
    cluster.add_model()
    (made,) = jobs_in(cluster.plan())
    assert container(made)["image"] == "other"


def test_the_labels_that_find_the_pods_stay() -> None:
    mine = {"berth.dev/cache": "other", "berth.dev/artifact": "other"}
    for labels in (mine, None):
        made = job(podTemplate={"metadata": {"labels": labels}})
        assert made["spec"]["template"]["metadata"]["labels"] == made["metadata"]["labels"]


_SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text("ab/", max_size=4)
_KEYS = st.sampled_from(
    [
        "name",
        "containers",
        "env",
        "volumeMounts",
        "affinity",
        "nodeAffinity",
        "labels",
        "volumes",
        "resources",
        "limits",
    ]
)
_JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=3), max_leaves=6
)
_PARTS = {"metadata": st.dictionaries(_KEYS, _JSON, max_size=2), "spec": st.dictionaries(_KEYS, _JSON, max_size=3)}


@given(st.fixed_dictionaries({}, optional=_PARTS))
def test_any_pod_template_is_a_job_or_a_sentence(said: dict[str, Any]) -> None:
    cluster = CacheSimulation(podTemplate=said)
    cluster.add_model()
    cluster.reconcile()
    plan = cluster.reconcile()
    invalid = cluster.status["conditions"][0]["reason"] == "InvalidSpec"
    assert invalid or jobs_in(plan)
