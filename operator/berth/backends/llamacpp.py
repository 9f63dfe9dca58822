"""llama.cpp's llama-server: GGUF files on CPU and GPU.

Flags, health, metrics and behaviour at shutdown: tried with build 11669, whose tools/server/README.md lists them.
"""

from typing import ClassVar

from berth.api.model import BackendName, ModelSpec
from berth.backends.base import (
    AMD,
    CPU,
    NVIDIA,
    Backend,
    DrainMethod,
    HttpCheck,
    LoadMetrics,
    Server,
    ServerRequest,
    UnsupportedSpecError,
    WeightsKind,
)

_PORT = 8080


class LlamaCpp(Backend):
    """llama-server with one model."""

    name = BackendName.LLAMACPP
    images: ClassVar = {
        CPU: "ghcr.io/ggml-org/llama.cpp:server-b11669",
        NVIDIA: "ghcr.io/ggml-org/llama.cpp:server-cuda-b11669",
        AMD: "ghcr.io/ggml-org/llama.cpp:server-rocm-b11669",
    }
    loads = WeightsKind.FILE
    drain = DrainMethod.SIDECAR  # on SIGTERM decoding stops at once and open streams freeze
    api_key_env = "LLAMA_API_KEY"
    shown_metrics = ("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total")

    def server(self, request: ServerRequest) -> Server:
        """The command line of llama-server."""
        weights, spec = request.weights, request.spec
        if not weights.path.lower().endswith(".gguf"):
            raise UnsupportedSpecError(
                "source.uri",
                "backend llamacpp loads one GGUF file: end the path in it, for example "
                "pvc://claim/folder/model.gguf (the first part when it is split), or name it in source.files",
            )
        args = (
            *("--model", weights.path, "--alias", ",".join(request.served_names)),
            # The default port has changed before (8080, then 9931), so it is always said.
            *("--host", "0.0.0.0", "--port", str(_PORT)),  # noqa: S104  # NetworkPolicy decides who may connect
            "--metrics",
            # By default the server shrinks what is not set until it fits; a Model gets what it declares.
            *("--fit", "off"),
            *("--n-gpu-layers", "all" if spec.gpus.count else "0"),
            *_context(spec),
        )
        health = HttpCheck("/health")  # 503 while loading, needs no API key
        return Server(port=_PORT, args=args, started=health, ready=health, alive=health)

    def load(self, spec: ModelSpec) -> LoadMetrics:
        """Slots that decode and requests that wait for a slot."""
        return LoadMetrics(
            "/metrics",
            running="llamacpp:requests_processing",
            waiting="llamacpp:requests_deferred",
            needs_key=True,
            worked="llamacpp:n_decode_total",
            loading_status=503,
        )


def _context(spec: ModelSpec) -> tuple[str, ...]:
    """`--ctx-size` is the total of all slots, of which each request gets its share.

    Without maxConcurrency the server has four slots that share one cache of contextLength. With maxConcurrency
    only, `--kv-unified` lets the slots share the context that the model was trained with.
    """
    context = spec.serving.context_length if spec.serving else None
    slots = spec.serving.max_concurrency if spec.serving else None
    if slots is None:
        return ("--ctx-size", str(context)) if context else ()
    if context is None:
        return ("--parallel", str(slots), "--kv-unified")
    return ("--parallel", str(slots), "--ctx-size", str(context * slots))
