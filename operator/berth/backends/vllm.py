"""vLLM: the OpenAI-compatible server for safetensors on GPUs, and on CPU with an image of its own.

Flags and metrics: vLLM 0.33.0, vllm/engine/arg_utils.py, vllm/entrypoints/openai/cli_args.py and vllm/v1/metrics.
"""

from typing import ClassVar

from berth.api.model import BackendName, ModelSpec
from berth.backends.base import (
    AMD,
    CPU,
    HOME,
    NVIDIA,
    Backend,
    HttpCheck,
    LoadMetrics,
    SecurityProfile,
    Server,
    ServerRequest,
    flag,
    python_caches,
    whole_seconds,
)

_PORT = 8000
_USER = "vllm"


class Vllm(Backend):
    """`vllm serve`, which is the entrypoint of the images."""

    name = BackendName.VLLM
    images: ClassVar = {
        NVIDIA: "vllm/vllm-openai:v0.33.0",
        AMD: "vllm/vllm-openai-rocm:v0.33.0",
        CPU: "public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v0.33.0",
    }
    # The image has a user `vllm` with this id since PR #40275; older ones run with any id and the variables below.
    security = SecurityProfile(uid=2000, gid=0)
    api_key_env = "VLLM_API_KEY"
    shown_metrics = (
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:e2e_request_latency_seconds_bucket",
        "vllm:request_queue_time_seconds_bucket",
        "vllm:kv_cache_usage_perc",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:num_preemptions_total",
    )

    def server(self, request: ServerRequest) -> Server:
        """The command line of `vllm serve`."""
        weights, spec, serving = request.weights, request.spec, request.serving
        args = (
            *("--model", weights.path),
            *("--served-model-name", *request.served_names),
            *("--host", "0.0.0.0", "--port", str(_PORT)),  # noqa: S104  # NetworkPolicy decides who may connect
            *flag("--tensor-parallel-size", spec.gpus.count if spec.gpus.count > 1 else None),
            *flag("--max-model-len", serving.context_length),
            *flag("--max-num-seqs", serving.max_concurrency),
            *flag("--quantization", serving.quantization),
            *flag("--dtype", serving.dtype),
            *flag("--gpu-memory-utilization", request.memory_share),
            # The default of 0 aborts running requests on SIGTERM.
            *("--shutdown-timeout", whole_seconds("shutdown.drainTimeout", spec.shutdown.drain_timeout)),
        )
        env = {
            **python_caches(_USER),
            "VLLM_CACHE_ROOT": f"{HOME}/.cache/vllm",
            "VLLM_CONFIG_ROOT": f"{HOME}/.config/vllm",
            "VLLM_NO_USAGE_STATS": "1",
        }
        # Refused while loading, 200 when the engine is up, 503 when it is dead; needs no API key.
        health = HttpCheck("/health")
        return Server(
            port=_PORT,
            args=args,
            started=health,
            ready=health,
            alive=health,
            env=env,
            working_dir=HOME,
            shared_memory=True,  # the engine is a process of its own
        )

    def load(self, spec: ModelSpec) -> LoadMetrics:
        """Requests in the engine and before it; the counter takes in those that were aborted."""
        return LoadMetrics(
            "/metrics",
            running="vllm:num_requests_running",
            waiting="vllm:num_requests_waiting",
            worked="vllm:request_success_total",
        )
