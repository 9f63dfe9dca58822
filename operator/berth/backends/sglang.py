"""SGLang: the OpenAI-compatible server for safetensors on GPUs.

Flags and metrics: SGLang 0.5.23, python/sglang/srt/server_args.py and docs/references/production_metrics.md.
The image is built for CUDA 13; for older drivers set serving.image to lmsysorg/sglang:v0.5.19-cu129.
"""

from typing import ClassVar

from berth.api.model import BackendName, ModelSpec
from berth.backends.base import (
    NVIDIA,
    Backend,
    HttpCheck,
    LoadMetrics,
    Server,
    ServerRequest,
    UnsupportedSpecError,
    flag,
    python_caches,
)

_PORT = 30000


def _static(share: float | None) -> float | None:
    """Weights and KV cache of a share. What SGLang takes beside them, activations and graphs, is to fit into it, too.

    A rule of thumb: without a flag SGLang leaves 10 to 20 % of the GPU for that.
    """
    return None if share is None else int(share * 850) / 1000


class Sglang(Backend):
    """`sglang.launch_server`; it finishes running requests after SIGTERM by itself, without a limit of its own."""

    name = BackendName.SGLANG
    images: ClassVar = {NVIDIA: "lmsysorg/sglang:v0.5.23"}
    api_key_env = "SGLANG_API_KEY"
    shown_metrics = (
        "sglang:prompt_tokens_total",
        "sglang:generation_tokens_total",
        "sglang:time_to_first_token_seconds_bucket",
        "sglang:token_usage",
    )

    def server(self, request: ServerRequest) -> Server:
        """The command line of the launcher; the image starts nothing by itself."""
        weights, spec, serving = request.weights, request.spec, request.serving
        if len(request.served_names) > 1:
            raise UnsupportedSpecError("serving.servedNames", "SGLang serves one name: keep one")
        args = (
            *("--model-path", weights.path),
            *("--served-model-name", *request.served_names),
            *("--host", "0.0.0.0", "--port", str(_PORT)),  # noqa: S104  # NetworkPolicy decides who may connect
            "--enable-metrics",
            *flag("--tensor-parallel-size", spec.gpus.count if spec.gpus.count > 1 else None),
            *flag("--context-length", serving.context_length),
            *flag("--max-running-requests", serving.max_concurrency),
            *flag("--quantization", serving.quantization),
            *flag("--dtype", serving.dtype),
            *flag("--mem-fraction-static", _static(request.memory_share)),
            # SGLang reads the key from its command line only; Kubernetes puts the variable's value there.
            *(("--api-key", f"$({self.api_key_env})") if self.api_key_env in request.environment_names else ()),
        )
        return Server(
            port=_PORT,
            command=("python3", "-m", "sglang.launch_server"),
            args=args,
            # /ready is 200 only when the server is up and not draining. /health makes the engine generate a token,
            # so it notices an engine that hangs; it counts other requests' tokens too and bears load.
            started=HttpCheck("/ready"),
            ready=HttpCheck("/ready"),
            alive=HttpCheck("/health"),
            env=python_caches("sglang"),
            shared_memory=True,
        )

    def load(self, spec: ModelSpec) -> LoadMetrics:
        """Requests in the running batch and in the queue; the metrics need no key.

        Health checks generate a token, and are not counted (`log_metrics` in managers/io_struct.py).
        """
        return LoadMetrics(
            "/metrics",
            running="sglang:num_running_reqs",
            waiting="sglang:num_queue_reqs",
            worked="sglang:num_requests_total",
        )
