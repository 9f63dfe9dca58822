"""Whether a backend can load a model at all, told before anything is downloaded or any GPU is held.

In doubt it is allowed: a wrong refusal is worse than a server that says by itself what it cannot do.
Sources: vLLM, vllm/model_executor/layers/quantization/__init__.py and docs/features/quantization (GGUF left the image
with 0.24: pull request 39612; which methods run on CPUs: the table of supported hardware of v0.14.0). SGLang,
python/sglang/srt/server_args.py (QUANTIZATION_CHOICES). TGI 3.3.7, launcher/src/main.rs (enum Quantization).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from berth.api.model import BackendName
from berth.planning.model_figures import ModelFigures, WeightsFormat

_LOADS: Mapping[BackendName, frozenset[WeightsFormat]] = {
    BackendName.LLAMACPP: frozenset({WeightsFormat.GGUF}),
    BackendName.OLLAMA: frozenset({WeightsFormat.GGUF}),
    BackendName.VLLM: frozenset({WeightsFormat.SAFETENSORS}),
    BackendName.SGLANG: frozenset({WeightsFormat.SAFETENSORS, WeightsFormat.GGUF}),
    BackendName.TGI: frozenset({WeightsFormat.SAFETENSORS}),
}
_INSTEAD = {
    WeightsFormat.GGUF: "use backend llamacpp, or the safetensors of the model",
    WeightsFormat.SAFETENSORS: "use backend vllm or sglang, or a GGUF file of the model",
}

_COMMON = frozenset({"awq", "gptq", "fp8", "compressed-tensors", "bitsandbytes"})
_METHODS: Mapping[BackendName, frozenset[str]] = {
    BackendName.VLLM: _COMMON
    | {
        "auto_awq", "auto_gptq", "auto-round", "awq_marlin", "cpu_awq", "deepseek_v4_fp8", "experts_int8", "fbgemm_fp8",
        "fp_quant", "fp8_per_block", "fp8_per_channel", "fp8_per_tensor", "gpt_oss_mxfp4", "gptq_marlin", "humming",
        "inc", "int8_per_channel_weight_only", "modelopt", "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8",
        "moe_wna16", "mxfp4", "mxfp8", "nvfp4_per_token", "online", "quark", "torchao",
    },
    BackendName.SGLANG: _COMMON
    | {
        "auto-round", "auto-round-int8", "awq_marlin", "gptq_marlin", "humming", "marlin", "modelopt", "modelopt_fp4",
        "modelopt_fp8", "modelopt_mixed", "moe_wna16", "mxfp4", "mxfp8", "mxfp_w4a8", "nvfp4_online", "petit_nvfp4",
        "quark", "quark_int4fp8_moe", "quark_mxfp4", "unquant", "w4afp8", "w8a8_fp8", "w8a8_int8",
    },
    BackendName.TGI: _COMMON | {"eetq", "exl2", "fbgemm_fp8", "marlin"},
}  # fmt: skip
_NOT_ON_CPU = frozenset({
    "fp8", "fp8_per_block", "fp8_per_channel", "fp8_per_tensor", "fbgemm_fp8", "bitsandbytes", "modelopt",
    "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8",
})  # fmt: skip


class Reason(StrEnum):
    """What does not go together."""

    FORMAT = "IncompatibleFormat"
    QUANTIZATION = "UnsupportedQuantization"
    NEEDS_GPU = "QuantizationNeedsGpu"
    GPU_COUNT = "UnsupportedGpuCount"


@dataclass(frozen=True, slots=True)
class Incompatible:
    """Why a model cannot be loaded, and in the message what would work."""

    reason: Reason
    message: str


def check(
    figures: ModelFigures,
    backend: BackendName,
    gpu_count: int,
    *,
    quantization: str | None = None,
    own_image: bool = False,
) -> Incompatible | None:
    """None when nothing speaks against it.

    `quantization` is serving.quantization. An image of the user's own may know more than the ones that are pinned
    here; only what no build of the server can do is refused then.
    """
    if backend not in _LOADS:
        return None
    formats = _LOADS[backend]
    llamacpp = backend in (BackendName.LLAMACPP, BackendName.OLLAMA)
    if figures.format not in formats and (llamacpp or not own_image):
        loads = " and ".join(sorted(formats))
        message = f"backend {backend} loads {loads}, but these weights are {figures.format}: {_INSTEAD[figures.format]}"
        return Incompatible(Reason.FORMAT, message)
    if llamacpp:
        return None
    method = quantization or (figures.quantization if figures.format is WeightsFormat.SAFETENSORS else None)
    if method is not None and not own_image:
        refusal = _unknown_method(backend, method) or _needs_gpu(backend, method, gpu_count)
        if refusal is not None:
            return refusal
    return _gpu_count(figures, backend, gpu_count)


def _unknown_method(backend: BackendName, method: str) -> Incompatible | None:
    if method in _METHODS[backend]:
        return None
    others = [other for other, methods in _METHODS.items() if method in methods]
    instead = f"use backend {' or '.join(others)}" if others else "use weights in another quantization or in BF16"
    message = f"backend {backend} does not know quantization {method}: {instead}"
    return Incompatible(Reason.QUANTIZATION, message)


def _needs_gpu(backend: BackendName, method: str, gpu_count: int) -> Incompatible | None:
    if gpu_count or (backend is BackendName.VLLM and method not in _NOT_ON_CPU):
        return None
    message = (
        f"quantization {method} needs a GPU with backend {backend}: set gpus.count to 1 or more, "
        "or use a GGUF file of the model with backend llamacpp"
    )
    return Incompatible(Reason.NEEDS_GPU, message)


def _gpu_count(figures: ModelFigures, backend: BackendName, gpu_count: int) -> Incompatible | None:
    """Engines that divide heads between GPUs need the same number of them on each."""
    heads = figures.heads
    if gpu_count < 2 or not heads or heads % gpu_count == 0:
        return None
    counts = [str(count) for count in range(1, min(heads, 16) + 1) if heads % count == 0]
    message = (
        f"{heads} attention heads cannot be divided between {gpu_count} GPUs: set gpus.count to {', '.join(counts)}"
    )
    return Incompatible(Reason.GPU_COUNT, f"backend {backend}: {message}")
