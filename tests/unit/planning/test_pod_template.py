"""The Pod template of a Model: what follows from which field."""

import json
from dataclasses import replace
from typing import Any

import pytest

from berth.api.model import ModelSpec
from berth.planning.errors import InvalidSpecError
from berth.planning.pod_template import render_pod_template, template_inputs
from berth.planning.render_settings import RenderSettings
from berth.planning.weights import Stored

LLAMA: dict[str, Any] = {"backend": "llamacpp", "source": {"uri": "pvc://weights/qwen3.gguf"}}
VLLM: dict[str, Any] = {"backend": "vllm", "source": {"uri": "pvc://weights/qwen3"}}


def spec_of(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({**LLAMA, **fields})


def render(settings: RenderSettings | None = None, stored: Stored | None = None, **fields: Any) -> dict[str, Any]:
    return render_pod_template("chat", "models", spec_of(**fields), settings or RenderSettings(), stored)


def pod(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = render(**fields)["spec"]
    return found


def server(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = pod(**fields)["containers"][0]
    return found


def volume(name: str, **fields: Any) -> dict[str, Any] | None:
    return next((v for v in pod(**fields)["volumes"] if v["name"] == name), None)


def refused(field: str, **fields: Any) -> str:
    with pytest.raises(InvalidSpecError) as error:
        render(**fields)
    assert error.value.field == field
    return error.value.message


# ---- GPUs and resources --------------------------------------------------------------------------------------


def test_gpus_are_limits_by_the_name_of_their_resource() -> None:
    assert server()["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    mig = {"resource": "nvidia.com/mig-3g.40gb", "count": 2}
    assert server(gpus=mig)["resources"]["limits"] == {"nvidia.com/mig-3g.40gb": "2"}
    assert "resources" not in server(gpus={"count": 0})


def test_quantities_are_written_as_the_api_server_writes_them() -> None:
    resources = server(limits={"cpu": "4000m", "memory": "8192Mi"}, requests={"cpu": "0.5", "ephemeral-storage": "1e3"})
    assert resources["resources"] == {
        "limits": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
        "requests": {"cpu": "500m", "ephemeral-storage": "1e3"},
    }


def test_a_wrong_quantity_names_its_field() -> None:
    assert "4 cores" in refused("limits.cpu", limits={"cpu": "4 cores"})


def test_requests_above_limits_are_refused() -> None:
    assert "8Gi" in refused("requests.memory", limits={"memory": "8Gi"}, requests={"memory": "8193Mi"})


def test_gpu_nodes_are_tolerated_by_the_name_of_the_resource() -> None:
    assert pod()["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    slices = pod(gpus={"resource": "nvidia.com/mig-1g.10gb"})["tolerations"]
    assert [toleration["key"] for toleration in slices] == ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu"]
    assert "tolerations" not in pod(gpus={"count": 0})


def test_products_are_required_of_the_node() -> None:
    node = pod(gpus={"products": ["NVIDIA-L40S"]})["affinity"]["nodeAffinity"]
    assert node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] == [
        {"matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-L40S"]}]}
    ]
    assert "affinity" not in pod()


def test_servers_that_talk_through_shared_memory_get_some() -> None:
    assert volume("shm") is None
    assert volume("shm", **VLLM) == {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}
    assert volume("shm", gpus={"count": 4}) == {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}


# ---- weights -------------------------------------------------------------------------------------------------


def test_a_claim_is_mounted_read_only() -> None:
    claim = {"claimName": "weights", "readOnly": True}
    assert volume("models") == {"name": "models", "persistentVolumeClaim": claim}
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in server()["volumeMounts"]
    assert "/models/qwen3.gguf" in server()["args"]


@pytest.mark.parametrize(
    ("uri", "path"),
    [("pvc://w/a/b.gguf", "/models/a/b.gguf"), ("pvc://w//a/./b.gguf", "/models/a/b.gguf")],
)
def test_a_path_on_a_claim_lies_below_its_mount(uri: str, path: str) -> None:
    assert path in server(source={"uri": uri})["args"]


@pytest.mark.parametrize("path", ["../b.gguf", "a/../../b.gguf", "a/..", "$(HOME)/b.gguf"])
@pytest.mark.parametrize("scheme", ["pvc://w/", "oci://r.example.com/w:1#"])
def test_a_path_cannot_leave_its_volume(scheme: str, path: str) -> None:
    # The CRD refuses most of these; a Model from before it did, or another CRD, gets no further either.
    source = spec_of().source
    assert source is not None
    spec = spec_of().model_copy(update={"source": source.model_copy(update={"uri": scheme + path})})
    with pytest.raises(InvalidSpecError) as error:
        render_pod_template("chat", "models", spec, RenderSettings())
    assert error.value.field == "source.uri"


def test_a_file_on_a_claim_may_be_named_apart() -> None:
    assert "/models/a/b.gguf" in server(source={"uri": "pvc://w/a", "files": ["b.gguf"]})["args"]
    for files in (["*.gguf"], ["a.gguf", "b.gguf"]):
        assert "one file" in refused("source.files", source={"uri": "pvc://w/a", "files": files})
    assert "remove" in refused("source.files", **{**VLLM, "source": {"uri": "pvc://w/a", "files": ["x"]}})


def test_an_image_is_mounted_where_the_cluster_can() -> None:
    source = {"uri": "oci://r.example.com/qwen3:1#models/a.gguf"}
    assert volume("models", source=source) == {"name": "models", "image": {"reference": "r.example.com/qwen3:1"}}
    assert "/models/models/a.gguf" in server(source=source)["args"]
    with pytest.raises(InvalidSpecError, match=r"^source.uri: .*pvc://"):
        render(RenderSettings(image_volumes=False), source=source)


def downloader(**fields: Any) -> dict[str, Any]:
    first: dict[str, Any] = render(**fields)["spec"]["initContainers"][0]
    return first


HUB = {"uri": "hf://Qwen/Qwen3-8B@v1", "secretRef": {"name": "hub"}}


def test_without_a_cache_an_init_container_downloads_with_the_persons_token() -> None:
    container = downloader(**{**VLLM, "source": HUB})
    assert container["args"][:5] == ["provision", "--uri", "hf://Qwen/Qwen3-8B@v1", "--destination", "/models"]
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    assert token in container["env"]
    assert server(**{**VLLM, "source": HUB})["args"][:2] == ["--model", "/models"]
    assert token not in server(**{**VLLM, "source": HUB})["env"], "the server has no use for the token"


def test_the_volume_of_a_pods_own_is_bounded() -> None:
    fields = {**VLLM, "source": HUB}
    assert volume("models", **fields) == {"name": "models", "emptyDir": {"sizeLimit": "20Gi"}}
    assert downloader(**fields)["args"][5:7] == ["--limit", str(20 * 2**30)]


def test_keys_of_a_bucket_have_the_names_that_every_client_knows() -> None:
    source = {"uri": "s3://bucket/qwen3", "secretRef": {"name": "keys"}}
    variables = {one["name"] for one in downloader(**{**VLLM, "source": source})["env"]}
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"} <= variables


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({"uri": "https://example.com/a/b.gguf?signature=x"}, "/models/b.gguf"),
        ({"uri": "hf://org/repo", "files": ["b.gguf"]}, "/models/b.gguf"),
        ({"uri": "hf://org/repo", "files": ["*Q4*"]}, "/models/model.gguf"),
        ({"uri": "hf://org/repo"}, "/models/model.gguf"),
    ],
)
def test_a_file_whose_name_only_the_download_knows_gets_a_link(source: dict[str, Any], path: str) -> None:
    assert path in server(source=source)["args"]
    linked = path.endswith("model.gguf")
    assert ("--link" in downloader(source=source)["args"]) is linked


def test_a_store_of_ollama_is_downloaded_under_its_own_name() -> None:
    container = server(backend="ollama", source={"uri": "ollama://llama3.2"})
    assert any("llama3.2/latest" in argument for argument in container["args"]), container["args"]


STORED = Stored(cache="fast", claim="modelcache-fast", path="qwen-1", file="q.gguf", format="gguf", one_node=True)


def test_weights_of_a_cache_are_mounted_read_only() -> None:
    pod = render(stored=STORED, source={"uri": "hf://org/repo"})["spec"]
    claim = {"claimName": "modelcache-fast", "readOnly": True}
    assert {"name": "models", "persistentVolumeClaim": claim} in pod["volumes"]
    assert "/models/qwen-1/q.gguf" in pod["containers"][0]["args"]
    assert "provision" not in {container["name"] for container in pod["initContainers"]}


def test_pods_on_a_volume_of_one_node_stay_together() -> None:
    template = render(stored=STORED, source={"uri": "hf://org/repo"})
    (term,) = template["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items(), "the first fits too"
    shared = render(stored=replace(STORED, one_node=False), source={"uri": "hf://org/repo"})
    assert "affinity" not in shared["spec"]


def test_other_weights_of_the_same_source_render_another_template() -> None:
    spec = spec_of(source={"uri": "hf://org/repo"})
    inputs = {template_inputs(spec, stored) for stored in (None, STORED, replace(STORED, revision="b"))}
    assert len(inputs) == 3


def test_what_a_backend_cannot_do_names_the_field() -> None:
    assert "GGUF" in refused("source.uri", source={"uri": "pvc://weights/folder"})


# ---- variables, arguments, image -----------------------------------------------------------------------------


def test_the_persons_arguments_come_last() -> None:
    assert server(serving={"args": ["--threads", "4"]})["args"][-2:] == ["--threads", "4"]


def test_the_persons_variables_win() -> None:
    env = server(**VLLM, serving={"env": [{"name": "HF_HOME", "value": "/x"}, {"name": "A", "value": ""}]})["env"]
    assert [variable for variable in env if variable["name"] == "HF_HOME"] == [{"name": "HF_HOME", "value": "/x"}]
    assert {"name": "A", "value": ""} in env
    assert {"name": "HOME", "value": "/home/server"} in env


def test_api_keys_stay_in_their_secret() -> None:
    key = {"name": "LLAMA_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "llama"}}}
    assert key in server(serving={"env": [key]})["env"]


# ---- security ------------------------------------------------------------------------------------------------


def test_servers_run_in_the_narrowest_sandbox() -> None:
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["enableServiceLinks"] is False
    assert pod()["securityContext"] == {
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
        "runAsNonRoot": True,
    }
    assert server()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    writable = {mount["mountPath"] for mount in server()["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/home/server", "/tmp"}


def test_the_operators_settings_reach_the_pod() -> None:
    settings = RenderSettings(priority_class="models", image_pull_secrets=("registry",))
    spec = render(settings)["spec"]
    assert spec["priorityClassName"] == "models"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert "priorityClassName" not in pod()


# ---- probes and shutdown -------------------------------------------------------------------------------------


def test_loading_may_take_the_whole_startup_timeout() -> None:
    probe = server(health={"startupTimeout": "10m", "period": "10s"})["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 600
    assert probe["httpGet"] == {"path": "/health", "port": "http"}


def test_a_server_leaves_its_service_before_it_is_restarted() -> None:
    container = server(health={"failureThreshold": 5, "timeout": "2s", "period": "7s"})
    assert container["readinessProbe"]["failureThreshold"] < container["livenessProbe"]["failureThreshold"] == 5
    assert container["livenessProbe"]["periodSeconds"] == 7
    assert container["livenessProbe"]["timeoutSeconds"] == 2


def test_a_dead_server_is_not_drained() -> None:
    container = server()
    assert container["startupProbe"]["terminationGracePeriodSeconds"] == 10
    assert container["livenessProbe"]["terminationGracePeriodSeconds"] == 10
    assert "terminationGracePeriodSeconds" not in container["readinessProbe"]  # the API server refuses it there


def test_the_persons_path_says_ready_and_the_backends_says_alive() -> None:
    container = server(health={"path": "/warm"})
    assert container["startupProbe"]["httpGet"]["path"] == "/warm"
    assert container["readinessProbe"]["httpGet"]["path"] == "/warm"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"


def test_a_load_command_is_tried_once_for_the_whole_time() -> None:
    ollama = {"backend": "ollama", "source": {"uri": "pvc://weights/store"}}
    probe = server(**ollama, health={"startupTimeout": "10m", "path": "/x"})["startupProbe"]
    assert probe["exec"]["command"][0] == "/bin/sh"
    assert (probe["timeoutSeconds"], probe["failureThreshold"]) == (600, 1)


def test_termination_waits_for_routing_drain_and_grace() -> None:
    spec = pod(shutdown={"drainTimeout": "90s", "gracePeriod": "10.5s"})
    assert spec["terminationGracePeriodSeconds"] == 5 + 101


@pytest.mark.parametrize(
    ("field", "value"), [("shutdown.drainTimeout", "soon"), ("health.period", "99999h"), ("health.timeout", "1 s")]
)
def test_a_wrong_duration_names_its_field(field: str, value: str) -> None:
    group, name = field.split(".")
    spec = spec_of()
    snake = {"drainTimeout": "drain_timeout"}.get(name, name)
    wrong = getattr(spec, group).model_copy(update={snake: value})
    with pytest.raises(InvalidSpecError) as error:
        render_pod_template("chat", "models", spec.model_copy(update={group: wrong}), RenderSettings())
    assert error.value.field == field


# ---- inputs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"replicas": 3},
        {"state": "Stopped"},
        {"priority": 500},
        {"state": "OnDemand", "idle": {"after": "1h"}},
        {"rollout": {"strategy": "Surge"}},
        {"network": {"allowFrom": [{"podSelector": {}}]}},
        {"gpus": {"count": 1}},
        {"health": {"period": "10s"}},
    ],
    ids=json.dumps,
)
def test_what_the_template_does_not_depend_on_restarts_nothing(fields: dict[str, Any]) -> None:
    assert template_inputs(spec_of(**fields)) == template_inputs(spec_of())
    assert render(**fields) == render()


@pytest.mark.parametrize(
    "fields",
    [
        {"source": {"uri": "pvc://weights/other.gguf"}},
        {"gpus": {"count": 2}},
        {"serving": {"contextLength": 1024}},
        {"limits": {"memory": "1Gi"}},
        {"shutdown": {"drainTimeout": "1s"}},
        {"health": {"period": "1s"}},
        {"podTemplate": {"metadata": {"labels": {"a": "b"}}}},
    ],
    ids=json.dumps,
)
def test_what_the_template_depends_on_changes_its_inputs(fields: dict[str, Any]) -> None:
    assert template_inputs(spec_of(**fields)) != template_inputs(spec_of())
    assert render(**fields) != render()


def test_rendering_leaves_the_spec_as_it_is() -> None:
    spec = spec_of(podTemplate={"spec": {"containers": [{"name": "server", "env": [{"name": "A", "value": "b"}]}]}})
    before = spec.model_dump_json()
    first = render_pod_template("chat", "models", spec, RenderSettings())
    assert render_pod_template("chat", "models", spec, RenderSettings()) == first
    assert spec.model_dump_json() == before
