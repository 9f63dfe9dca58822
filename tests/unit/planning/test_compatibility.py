"""What a backend cannot load is refused with what would work; in doubt nothing is refused."""

import pytest

from berth.api.model import BackendName
from berth.planning.compatibility import Reason, check
from berth.planning.model_figures import ModelFigures, WeightsFormat

LLAMACPP, OLLAMA, VLLM = BackendName.LLAMACPP, BackendName.OLLAMA, BackendName.VLLM
SGLANG, TGI, CUSTOM = BackendName.SGLANG, BackendName.TGI, BackendName.CUSTOM


def gguf(**figures: int) -> ModelFigures:
    return ModelFigures(WeightsFormat.GGUF, "llama", (), quantization="Q4_K_M", **figures)


def safetensors(quantization: str | None = None, heads: int | None = 32) -> ModelFigures:
    return ModelFigures(WeightsFormat.SAFETENSORS, "L", (), quantization=quantization, heads=heads)


@pytest.mark.parametrize(
    ("figures", "backend", "gpus"),
    [
        (gguf(), LLAMACPP, 0),
        (gguf(heads=7), LLAMACPP, 2),
        (gguf(), OLLAMA, 1),
        (gguf(), SGLANG, 1),
        (safetensors(), VLLM, 0),
        (safetensors("awq"), VLLM, 0),
        (safetensors("fp8"), VLLM, 1),
        (safetensors("compressed-tensors"), SGLANG, 4),
        (safetensors("eetq"), TGI, 1),
        (safetensors("anything"), CUSTOM, 0),
    ],
)
def test_what_goes_together(figures: ModelFigures, backend: BackendName, gpus: int) -> None:
    assert check(figures, backend, gpus) is None


@pytest.mark.parametrize(
    ("figures", "backend", "gpus", "reason", "way_out"),
    [
        (gguf(), VLLM, 1, Reason.FORMAT, "use backend llamacpp"),
        (gguf(), TGI, 1, Reason.FORMAT, "use backend llamacpp"),
        (safetensors(), LLAMACPP, 1, Reason.FORMAT, "a GGUF file of the model"),
        (safetensors(), OLLAMA, 1, Reason.FORMAT, "use backend vllm or sglang"),
        (safetensors("hqq"), VLLM, 1, Reason.QUANTIZATION, "another quantization or in BF16"),
        (safetensors("eetq"), VLLM, 1, Reason.QUANTIZATION, "use backend tgi"),
        (safetensors("modelopt_fp4"), TGI, 1, Reason.QUANTIZATION, "use backend vllm or sglang"),
        (safetensors("fp8"), VLLM, 0, Reason.NEEDS_GPU, "set gpus.count to 1"),
        (safetensors("bitsandbytes"), VLLM, 0, Reason.NEEDS_GPU, "GGUF"),
        (safetensors("awq"), SGLANG, 0, Reason.NEEDS_GPU, "set gpus.count"),
        (safetensors(heads=40), VLLM, 3, Reason.GPU_COUNT, "set gpus.count to 1, 2, 4, 5, 8"),
    ],
)
def test_what_does_not(figures: ModelFigures, backend: BackendName, gpus: int, reason: Reason, way_out: str) -> None:
    refusal = check(figures, backend, gpus)
    assert refusal is not None
    assert refusal.reason is reason
    assert way_out in refusal.message


def test_what_is_asked_for_counts_more_than_what_is_stored() -> None:
    refusal = check(safetensors(), VLLM, 0, quantization="fp8")
    assert refusal is not None
    assert refusal.reason is Reason.NEEDS_GPU


def test_an_image_of_ones_own_may_know_more() -> None:
    assert check(gguf(), VLLM, 1, own_image=True) is None
    assert check(safetensors("hqq"), VLLM, 1, own_image=True) is None
    assert check(safetensors(), LLAMACPP, 1, own_image=True) is not None
