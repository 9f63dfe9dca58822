"""Text Generation Inference: archived upstream since March 2026, kept for Models that depend on it.

Flags: TGI 3.3.7, launcher/src/main.rs. Metrics: docs/source/reference/metrics.md.
"""

from typing import ClassVar

from berth.api.model import BackendName, ModelSpec
from berth.backends.base import (
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

_PORT = 8080


class Tgi(Backend):
    """`text-generation-launcher`, which is the entrypoint of the image. It answers to any model name."""

    name = BackendName.TGI
    images: ClassVar = {NVIDIA: "ghcr.io/huggingface/text-generation-inference:3.3.7"}
    # Its Python lies below /root, which only root may read (issue #3082), and writes beside itself.
    security = SecurityProfile(uid=0, gid=0, restricted=False, read_only_root=False)
    api_key_env = "API_KEY"
    shown_metrics = (
        "tgi_request_generated_tokens_sum",
        "tgi_request_duration_bucket",
        "tgi_request_queue_duration_bucket",
    )
    notes = (
        "TGI is archived upstream: vllm, sglang and llamacpp are its successors",
        "TGI runs as root, so namespaces that enforce the Pod Security standard `restricted` refuse it",
    )

    def server(self, request: ServerRequest) -> Server:
        """The command line of the launcher."""
        weights, spec, serving = request.weights, request.spec, request.serving
        context = serving.context_length
        args = (
            *("--model-id", weights.path),
            *("--hostname", "0.0.0.0", "--port", str(_PORT)),  # noqa: S104  # NetworkPolicy decides who may connect
            *("--num-shard", str(spec.gpus.count)),
            *flag("--max-total-tokens", context),
            *flag("--max-input-tokens", context - 1 if context else None),  # one token is left for the answer
            *flag("--max-concurrent-requests", serving.max_concurrency),
            *flag("--quantize", serving.quantization),
            *flag("--dtype", serving.dtype),
            *flag("--cuda-memory-fraction", request.memory_share),
            *(
                "--graceful-termination-timeout",
                whole_seconds("shutdown.drainTimeout", spec.shutdown.drain_timeout),
            ),
            *("--usage-stats", "off"),
        )
        health = HttpCheck("/health")
        return Server(
            port=_PORT,
            args=args,
            started=health,
            ready=health,
            alive=health,
            env={**python_caches("root"), "HUGGINGFACE_HUB_CACHE": f"{HOME}/.cache/huggingface/hub"},
            shared_memory=True,
        )

    def load(self, spec: ModelSpec) -> LoadMetrics:
        """Requests in the running batch and in the queue."""
        return LoadMetrics(
            "/metrics", running="tgi_batch_current_size", waiting="tgi_queue_size", worked="tgi_request_count"
        )
