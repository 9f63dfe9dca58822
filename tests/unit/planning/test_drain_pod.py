"""Who holds SIGTERM back, for which backend, and what the sidecar is told."""

from typing import Any

import pytest

from berth.api.model import ModelSpec
from berth.planning import names
from berth.planning.pod_template import render_pod_template
from berth.planning.render_settings import RenderSettings

LLAMA: dict[str, Any] = {"backend": "llamacpp", "source": {"uri": "pvc://weights/qwen3.gguf"}}
OLLAMA: dict[str, Any] = {"backend": "ollama", "source": {"uri": "pvc://weights/store"}}
CUSTOM: dict[str, Any] = {"backend": "custom", "serving": {"image": "server:1"}, "custom": {"port": 9000}}
METRICS = {"running": "busy", "waiting": "queued"}
KEY = {"name": "LLAMA_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "llama"}}}


def pod(**fields: Any) -> dict[str, Any]:
    spec = ModelSpec.model_validate(fields)
    found: dict[str, Any] = render_pod_template("chat", "models", spec, RenderSettings(provisioner_image="berth:1"))
    body: dict[str, Any] = found["spec"]
    return body


def hook(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = pod(**fields)["containers"][0]["lifecycle"]["preStop"]
    return found


def sidecar(**fields: Any) -> dict[str, Any]:
    (found,) = [one for one in pod(**fields)["initContainers"] if one["name"] == names.DRAIN_CONTAINER]
    container: dict[str, Any] = found
    return container


# ---- who waits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["vllm", "sglang", "tgi"])
def test_servers_that_drain_by_themselves_get_time_for_routing_only(backend: str) -> None:
    fields = {"backend": backend, "source": {"uri": "pvc://weights/qwen3"}}
    assert hook(**fields) == {"sleep": {"seconds": 5}}
    assert "initContainers" not in pod(**fields)


@pytest.mark.parametrize("fields", [LLAMA, OLLAMA, {**CUSTOM, "custom": {"port": 9000, "metrics": METRICS}}])
def test_the_others_are_held_back_by_a_sidecar(fields: dict[str, Any]) -> None:
    assert hook(**fields) == {"httpGet": {"path": "/drain", "port": 61999}}
    assert "--port=61999" in sidecar(**fields)["args"]


def test_where_there_is_nothing_to_ask_the_whole_drain_time_is_slept() -> None:
    shutdown = {"drainTimeout": "90s", "gracePeriod": "10s"}
    assert hook(**CUSTOM, shutdown=shutdown) == {"sleep": {"seconds": 95}}
    assert pod(**CUSTOM, shutdown=shutdown)["terminationGracePeriodSeconds"] == 105
    assert "initContainers" not in pod(**CUSTOM)


def test_a_custom_server_on_the_port_of_the_sidecar_keeps_it() -> None:
    fields = {**CUSTOM, "custom": {"port": 61999, "metrics": METRICS}}
    assert hook(**fields)["httpGet"]["port"] == 61998
    assert {"--port=61998", "--server-port=61999"} <= set(sidecar(**fields)["args"])


# ---- what the sidecar is told ------------------------------------------------------------------------------------


def test_times_are_seconds() -> None:
    arguments = sidecar(**LLAMA, shutdown={"drainTimeout": "1m30s", "gracePeriod": "500ms"})["args"]
    assert arguments[0] == "drain"
    assert {"--routing-time=5", "--drain-timeout=90", "--grace-period=0.5"} <= set(arguments)


def test_metrics_are_those_of_the_backend_or_of_the_person() -> None:
    assert "--running=llamacpp:requests_processing" in sidecar(**LLAMA)["args"]
    custom = sidecar(**{**CUSTOM, "custom": {"port": 9000, "metrics": {**METRICS, "path": "/m"}}})["args"]
    assert {"--metrics=/m", "--running=busy", "--waiting=queued"} <= set(custom)
    assert not [argument for argument in custom if argument.startswith(("--worked", "--loading", "--key", "--unload"))]


def test_memory_is_freed_in_the_backends_way_or_in_the_persons() -> None:
    assert '--unload-body={"model": "chat", "keep_alive": 0}' in sidecar(**OLLAMA)["args"]
    unload = {"method": "PUT", "path": "/free"}
    custom = sidecar(**CUSTOM, shutdown={"unload": unload})["args"]
    assert {"--unload-method=PUT", "--unload-path=/free"} <= set(custom)


def test_a_key_comes_from_where_the_server_has_it() -> None:
    assert KEY in sidecar(**LLAMA, serving={"env": [KEY, {"name": "OTHER", "value": "1"}]})["env"]
    assert "OTHER" not in {one["name"] for one in sidecar(**LLAMA, serving={"env": [KEY]})["env"]}
    source = [{"secretRef": {"name": "keys"}}]
    assert sidecar(**LLAMA, serving={"envFrom": source})["envFrom"] == source
    assert "envFrom" not in sidecar(**LLAMA, serving={"envFrom": source, "env": [KEY]})
    assert "envFrom" not in sidecar(**OLLAMA, serving={"envFrom": source}), "its metrics need no key"


# ---- the container -----------------------------------------------------------------------------------------------


def test_it_runs_berths_own_image_in_the_narrowest_sandbox() -> None:
    container = sidecar(**LLAMA)
    assert (container["image"], container["restartPolicy"]) == ("berth:1", "Always")
    assert "volumeMounts" not in container
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
    }


def test_it_starts_after_the_download_and_before_the_server() -> None:
    starters = pod(**{**LLAMA, "source": {"uri": "hf://org/repo"}})["initContainers"]
    assert [one["name"] for one in starters] == [names.PROVISIONER_CONTAINER, names.DRAIN_CONTAINER]


def test_it_needs_next_to_nothing() -> None:
    assert sidecar(**LLAMA)["resources"]["requests"] == {"cpu": "10m", "memory": "32Mi"}


def test_it_takes_no_guarantee_from_a_pod_that_has_one() -> None:
    limits = {"cpu": "4", "memory": "8Gi"}
    resources = sidecar(**LLAMA, limits=limits)["resources"]
    assert resources["limits"] == resources["requests"]
    less = sidecar(**LLAMA, limits=limits, requests={"cpu": "1"})["resources"]
    assert less["limits"] != less["requests"]


def test_a_hook_of_the_persons_takes_its_place() -> None:
    own = {"containers": [{"name": "server", "lifecycle": {"preStop": {"exec": {"command": ["/stop"]}}}}]}
    assert hook(**LLAMA, podTemplate={"spec": own}) == {"exec": {"command": ["/stop"]}}
