"""What each inference server is told, and what Berth knows of it."""

from collections.abc import Callable
from typing import Any

import pytest

from berth.api.model import BackendName, ModelSpec
from berth.backends.base import (
    Backend,
    CommandCheck,
    DrainMethod,
    HttpCheck,
    Server,
    ServerRequest,
    TcpCheck,
    UnsupportedSpecError,
    Weights,
)
from berth.backends.registry import all_backends, backend_for

Start = Callable[..., Server]
FOLDER = Weights(path="/models/qwen3")
FILE = Weights(path="/models/qwen3.gguf")


def spec_of(backend: str, **fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"backend": backend, **fields})


def start(backend: str, weights: Weights = FOLDER, **fields: Any) -> Server:
    spec = spec_of(backend, **fields)
    return backend_for(spec.backend).server(ServerRequest("chat", spec, weights))


def flags(server: Server) -> dict[str, list[str]]:
    """The values of every flag."""
    found: dict[str, list[str]] = {}
    for arg in server.args:
        if arg.startswith("--"):
            found[arg] = []
        else:
            found[list(found)[-1]].append(arg)
    return found


# ---- all of them ---------------------------------------------------------------------------------------------


def test_every_backend_of_the_api_is_known() -> None:
    assert {backend.name for backend in all_backends()} == set(BackendName)


@pytest.mark.parametrize("backend", all_backends(), ids=lambda b: b.name)
def test_every_default_image_is_pinned(backend: Backend) -> None:
    for image in backend.images.values():
        tag = image.rpartition(":")[2]
        assert "/" not in tag
        assert any(character.isdigit() for character in tag)


def test_a_person_may_choose_the_image() -> None:
    spec = spec_of("vllm", serving={"image": "registry.example.com/vllm:1"})
    assert backend_for(BackendName.VLLM).image(spec) == "registry.example.com/vllm:1"


def test_the_image_fits_the_vendor_of_the_gpu() -> None:
    ollama = backend_for(BackendName.OLLAMA)
    assert ollama.image(spec_of("ollama", gpus={"resource": "amd.com/gpu"})).endswith("-rocm")
    assert "cuda" in backend_for(BackendName.LLAMACPP).image(spec_of("llamacpp"))
    assert "cuda" not in backend_for(BackendName.LLAMACPP).image(spec_of("llamacpp", gpus={"count": 0}))


def test_an_unknown_vendor_needs_an_image() -> None:
    with pytest.raises(UnsupportedSpecError, match=r"^serving.image: .* habana.ai GPUs: name one"):
        backend_for(BackendName.VLLM).image(spec_of("vllm", gpus={"resource": "habana.ai/gaudi"}))


@pytest.mark.parametrize("name", ["vllm", "sglang", "tgi"])
def test_weights_are_a_folder(name: str) -> None:
    model = {"vllm": "--model", "sglang": "--model-path", "tgi": "--model-id"}[name]
    assert flags(start(name))[model] == ["/models/qwen3"]


@pytest.mark.parametrize(
    ("name", "one", "four"),
    [
        ("vllm", {}, {"--tensor-parallel-size": ["4"]}),
        ("sglang", {}, {"--tensor-parallel-size": ["4"]}),
        ("tgi", {"--num-shard": ["1"]}, {"--num-shard": ["4"]}),
    ],
)
def test_the_model_is_split_over_the_gpus(name: str, one: dict[str, Any], four: dict[str, Any]) -> None:
    relevant = {"--tensor-parallel-size", "--num-shard"}
    assert {k: v for k, v in flags(start(name)).items() if k in relevant} == one
    assert {k: v for k, v in flags(start(name, gpus={"count": 4})).items() if k in relevant} == four


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "vllm",
            {"--max-model-len": "4096", "--max-num-seqs": "8", "--quantization": "fp8", "--dtype": "bfloat16"},
        ),
        (
            "sglang",
            {"--context-length": "4096", "--max-running-requests": "8", "--quantization": "fp8", "--dtype": "bfloat16"},
        ),
        (
            "tgi",
            {"--max-total-tokens": "4096", "--max-input-tokens": "4095", "--max-concurrent-requests": "8",
             "--quantize": "fp8", "--dtype": "bfloat16"},
        ),
    ],
)  # fmt: skip
def test_portable_knobs_become_the_servers_own_flags(name: str, expected: dict[str, str]) -> None:
    serving = {"contextLength": 4096, "maxConcurrency": 8, "quantization": "fp8", "dtype": "bfloat16"}
    assert flags(start(name, serving=serving)).items() >= {flag: [value] for flag, value in expected.items()}.items()
    assert not set(expected) & set(flags(start(name)))


@pytest.mark.parametrize(("name", "flag"), [("vllm", "--shutdown-timeout"), ("tgi", "--graceful-termination-timeout")])
def test_servers_that_drain_by_themselves_know_how_long(name: str, flag: str) -> None:
    assert backend_for(BackendName(name)).drain is DrainMethod.SERVER
    assert flags(start(name, shutdown={"drainTimeout": "1m30.5s"}))[flag] == ["91"]


@pytest.mark.parametrize("name", ["llamacpp", "ollama", "custom"])
def test_servers_that_cut_requests_need_something_that_waits(name: str) -> None:
    assert backend_for(BackendName(name)).drain is DrainMethod.SIDECAR


@pytest.mark.parametrize(
    ("name", "running", "waiting", "needs_key"),
    [
        ("vllm", "vllm:num_requests_running", "vllm:num_requests_waiting", False),
        ("sglang", "sglang:num_running_reqs", "sglang:num_queue_reqs", False),
        ("llamacpp", "llamacpp:requests_processing", "llamacpp:requests_deferred", True),
        ("tgi", "tgi_batch_current_size", "tgi_queue_size", False),
    ],
)
def test_load_is_read_from_the_servers_metrics(name: str, running: str, waiting: str, needs_key: bool) -> None:
    load = backend_for(BackendName(name)).load(spec_of(name))
    assert load is not None
    assert (load.running, load.waiting, load.needs_key) == (running, waiting, needs_key)


@pytest.mark.parametrize("name", ["vllm", "sglang", "tgi"])
def test_pytorch_servers_find_a_user_and_writable_caches(name: str) -> None:
    env = start(name).env
    assert env["USER"] == env["LOGNAME"]
    assert all(env[cache].startswith("/home/server/") for cache in ("HF_HOME", "TRITON_CACHE_DIR", "XDG_CACHE_HOME"))


def test_only_tgi_runs_as_root_and_says_so() -> None:
    assert [b.name for b in all_backends() if not b.security.restricted or not b.security.uid] == [BackendName.TGI]
    assert any("restricted" in note for note in backend_for(BackendName.TGI).notes)


# ---- one by one ----------------------------------------------------------------------------------------------


def test_vllm_answers_to_all_served_names() -> None:
    assert flags(start("vllm"))["--served-model-name"] == ["chat"]
    serving = {"servedNames": ["a", "b"]}
    assert flags(start("vllm", serving=serving))["--served-model-name"] == ["a", "b"]


def test_sglang_is_ready_only_while_it_does_not_drain() -> None:
    server = start("sglang")
    assert (server.started, server.ready, server.alive) == (
        HttpCheck("/ready"),
        HttpCheck("/ready"),
        HttpCheck("/health"),
    )
    assert "--enable-metrics" in server.args
    assert server.command == ("python3", "-m", "sglang.launch_server")


def test_sglang_takes_its_key_from_the_variable_only_when_there_is_one() -> None:
    key = {"name": "SGLANG_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}
    assert flags(start("sglang", serving={"env": [key]}))["--api-key"] == ["$(SGLANG_API_KEY)"]
    assert "--api-key" not in start("sglang").args


def test_sglang_serves_one_name() -> None:
    with pytest.raises(UnsupportedSpecError, match="servedNames"):
        start("sglang", serving={"servedNames": ["a", "b"]})


def test_llamacpp_loads_what_is_declared_or_fails() -> None:
    server = start("llamacpp", FILE)
    assert flags(server).items() >= {"--fit": ["off"], "--port": ["8080"], "--metrics": []}.items()
    assert flags(server)["--n-gpu-layers"] == ["all"]
    assert flags(start("llamacpp", FILE, gpus={"count": 0}))["--n-gpu-layers"] == ["0"]


@pytest.mark.parametrize(
    ("serving", "expected"),
    [
        ({}, {}),
        ({"contextLength": 4096}, {"--ctx-size": ["4096"]}),
        ({"maxConcurrency": 8}, {"--parallel": ["8"], "--kv-unified": []}),
        ({"contextLength": 4096, "maxConcurrency": 8}, {"--parallel": ["8"], "--ctx-size": ["32768"]}),
    ],
)
def test_llamacpp_gives_every_request_its_context(serving: dict[str, int], expected: dict[str, list[str]]) -> None:
    found = flags(start("llamacpp", FILE, serving=serving))
    assert {flag: found[flag] for flag in ("--parallel", "--ctx-size", "--kv-unified") if flag in found} == expected


def test_llamacpp_needs_a_gguf_file() -> None:
    with pytest.raises(UnsupportedSpecError, match=r"^source.uri: .*GGUF"):
        start("llamacpp", FOLDER)


def test_llamacpp_answers_to_all_served_names() -> None:
    assert flags(start("llamacpp", FILE, serving={"servedNames": ["a", "b"]}))["--alias"] == ["a,b"]


def test_ollama_is_ready_when_the_model_is_loaded_under_every_name() -> None:
    server = start("ollama", Weights(path="/models/store", reference="llama3.2:1b"), serving={"servedNames": ["x/y"]})
    assert server.args == (
        "/models/store",
        "registry.ollama.ai/library/llama3.2/1b",
        "registry.ollama.ai/x/y/latest",
        "registry.ollama.ai/library/chat/latest",
    )
    assert isinstance(server.started, CommandCheck)
    assert server.ready == HttpCheck("/v1/models/chat")
    assert server.env["OLLAMA_KEEP_ALIVE"] == "-1"


def test_ollama_takes_the_served_name_when_the_source_names_no_model() -> None:
    store = Weights(path="/models/store")
    assert start("ollama", store).args[1] == "registry.ollama.ai/library/chat/latest"
    named = start("ollama", store, serving={"servedNames": ["qwen3:8b"]})
    assert named.args[1] == "registry.ollama.ai/library/qwen3/8b"


def test_ollama_knobs_are_variables() -> None:
    env = start("ollama", serving={"contextLength": 4096, "maxConcurrency": 3}).env
    assert (env["OLLAMA_CONTEXT_LENGTH"], env["OLLAMA_NUM_PARALLEL"]) == ("4096", "3")


@pytest.mark.parametrize("name", ["../x", "a/b/c/d", "-x", "a/b.c/d/e", "$(id)", "a/../b", "h:p/a/b"])
def test_ollama_refuses_names_that_are_no_names(name: str) -> None:
    with pytest.raises(UnsupportedSpecError, match="servedNames"):
        start("ollama", serving={"servedNames": [name]})


def test_ollama_refuses_flags_and_files() -> None:
    with pytest.raises(UnsupportedSpecError, match=r"serving.args: .*serving.env"):
        start("ollama", serving={"args": ["--x"]})
    with pytest.raises(UnsupportedSpecError, match=r"source.uri: .*llamacpp"):
        start("ollama", FILE)


def test_ollama_is_unloaded_by_keeping_the_model_for_no_time() -> None:
    unload = backend_for(BackendName.OLLAMA).unload("chat", spec_of("ollama"))
    assert unload is not None
    assert (unload.method, unload.path, unload.body) == ("POST", "/api/generate", '{"model": "chat", "keep_alive": 0}')


def custom(**fields: Any) -> dict[str, Any]:
    return {"serving": {"image": "x:1"}, "custom": {"port": 9000}, **fields}


def test_a_custom_server_is_checked_by_its_port_or_its_path() -> None:
    assert start("custom", **custom()).started == TcpCheck()
    server = start("custom", **custom(health={"path": "/ok"}))
    assert server.started == server.ready == server.alive == HttpCheck("/ok")


def test_a_custom_servers_load_is_unknown_unless_it_names_its_metrics() -> None:
    backend = backend_for(BackendName.CUSTOM)
    assert backend.load(spec_of("custom", **custom())) is None
    load = backend.load(spec_of("custom", **custom(custom={"port": 1, "metrics": {"running": "busy"}})))
    assert load is not None
    assert (load.path, load.running, load.waiting) == ("/metrics", "busy", "")


def test_a_custom_server_is_unloaded_as_the_person_says() -> None:
    backend = backend_for(BackendName.CUSTOM)
    assert backend.unload("chat", spec_of("custom", **custom())) is None
    unload = backend.unload("chat", spec_of("custom", **custom(shutdown={"unload": {"path": "/free"}})))
    assert unload is not None
    assert (unload.method, unload.path) == ("POST", "/free")


@pytest.mark.parametrize(
    ("fields", "field"), [({"serving": {"image": "x"}}, "custom"), ({"custom": {"port": 1}}, "serving.image")]
)
def test_a_custom_server_needs_an_image_and_a_port(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(UnsupportedSpecError) as refused:
        start("custom", **fields)
    assert refused.value.field == field
