"""Estimates: known models against published numbers, unknown stays unknown, and which way numbers move."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.api.model import BackendName
from berth.planning.memory_estimate import MIB, Estimate, Part, PartName, estimate
from berth.planning.model_figures import (
    AttentionLayer,
    ModelFigures,
    Subject,
    TypedWeights,
    Unknown,
    WeightsFormat,
)

LLAMACPP, VLLM, SGLANG = BackendName.LLAMACPP, BackendName.VLLM, BackendName.SGLANG
ENGINES = (VLLM, SGLANG, BackendName.TGI)
WITH_RULES = (LLAMACPP, BackendName.OLLAMA, *ENGINES)

# Llama-3.1-8B in BF16: 8,030,261,248 parameters, of which 128,256 x 4,096 each are embeddings and output.
EMBEDDINGS = 128256 * 4096
LLAMA = ModelFigures(
    format=WeightsFormat.SAFETENSORS,
    architecture="LlamaForCausalLM",
    weights=(TypedWeights("BF16", 8030261248, 2 * 8030261248),),
    layers=32,
    heads=32,
    attention=(AttentionLayer(8, 128, 128),) * 32,
    embedding_length=4096,
    feed_forward_length=14336,
    context_length=131072,
    input_bytes=2 * EMBEDDINGS,
    output_bytes=2 * EMBEDDINGS,
)
GGUF = replace(LLAMA, format=WeightsFormat.GGUF, architecture="llama", quantization="BF16")


def part(found: Estimate, name: PartName) -> Part:
    return next(one for one in found.parts if one.name is name)


def cache(figures: ModelFigures, **how: Any) -> int | None:
    return part(estimate(figures, **how), PartName.CACHE).bytes


@pytest.mark.parametrize("backend", [LLAMACPP, VLLM, SGLANG])
def test_llama_3_1_8b_keeps_128_kib_for_each_token(backend: BackendName) -> None:
    assert cache(LLAMA, backend=backend, context_length=8192, concurrency=1) == 8192 * 128 * 1024
    assert cache(LLAMA, backend=backend, context_length=8192, concurrency=4) == 4 * 8192 * 128 * 1024


def test_the_sum_is_the_parts_and_each_is_explained() -> None:
    found = estimate(LLAMA, backend=VLLM, context_length=8192, concurrency=4)
    assert found.required_mib == sum(one.mib or 0 for one in found.parts)
    assert [one.name for one in found.parts] == list(PartName)
    assert all(one.explanation for one in found.parts)
    assert found.unknown == ()
    assert part(found, PartName.WEIGHTS).mib == 15317


def test_engines_start_with_room_for_one_request() -> None:
    found = estimate(LLAMA, backend=VLLM, context_length=8192, concurrency=4)
    assert found.required_mib is not None
    assert found.minimum_mib == found.required_mib - 3 * 1024
    alone = estimate(LLAMA, backend=VLLM, context_length=8192)
    assert alone.required_mib == alone.minimum_mib == found.minimum_mib


def test_llama_server_allocates_everything_at_once() -> None:
    found = estimate(GGUF, backend=LLAMACPP, context_length=8192, concurrency=4)
    assert found.minimum_mib == found.required_mib


def test_llama_server_shares_one_cache_unless_both_knobs_are_set() -> None:
    token = 128 * 1024
    assert cache(GGUF, backend=LLAMACPP, context_length=1000) == 1024 * token
    assert cache(GGUF, backend=LLAMACPP, concurrency=8) == 131072 * token
    assert cache(GGUF, backend=LLAMACPP, context_length=1000, concurrency=8) == 8 * 1024 * token


def test_llama_server_keeps_token_embeddings_on_the_host() -> None:
    untied = part(estimate(GGUF, backend=LLAMACPP), PartName.WEIGHTS).bytes
    tied = part(estimate(replace(GGUF, output_bytes=None), backend=LLAMACPP), PartName.WEIGHTS).bytes
    assert untied == 2 * (8030261248 - EMBEDDINGS)
    assert tied == 2 * 8030261248


def test_smaller_types_of_cache() -> None:
    usual = cache(GGUF, backend=LLAMACPP, context_length=8192)
    assert usual is not None
    assert cache(GGUF, backend=LLAMACPP, context_length=8192, kv_dtype="q8_0") == usual * 34 // 64
    assert cache(LLAMA, backend=VLLM, context_length=8192, kv_dtype="fp8") == usual // 2


def test_latent_attention_keeps_one_vector_on_every_gpu() -> None:
    # DeepSeek-V3: 61 layers of 512 + 64 numbers, 70,272 bytes for each token, whatever the number of GPUs.
    figures = replace(LLAMA, layers=61, heads=128, attention=(AttentionLayer(1, 576, 0, latent=True),) * 61)
    for gpus in (1, 8):
        assert cache(figures, backend=VLLM, context_length=4096, tensor_parallel=gpus) == 4096 * 70272
    assert "latent" in part(estimate(figures, backend=VLLM), PartName.CACHE).explanation


def test_heads_are_divided_and_repeated_when_there_are_too_few() -> None:
    whole = 8192 * 128 * 1024
    for gpus, share in ((2, 2), (8, 8), (16, 8)):
        assert cache(LLAMA, backend=VLLM, context_length=8192, tensor_parallel=gpus) == whole // share


def sliding(full: int, slide: int, window: int = 1024) -> ModelFigures:
    layers = (AttentionLayer(8, 128, 128, window),) * slide + (AttentionLayer(8, 128, 128),) * full
    return replace(GGUF, layers=full + slide, attention=layers, sliding_window=window)


def test_sliding_layers_of_llama_server_keep_a_window_and_a_batch() -> None:
    figures, row = sliding(1, 5), 4096
    alone = cache(figures, backend=LLAMACPP, context_length=32768, concurrency=1)
    assert alone == (32768 + 5 * (1024 + 512)) * row
    together = cache(figures, backend=LLAMACPP, context_length=32768)
    assert together == (32768 + 5 * (4 * 1024 + 512)) * row  # four slots in one cache
    short = cache(figures, backend=LLAMACPP, context_length=512, concurrency=1)
    assert short == 6 * 512 * row


def test_vllm_fills_up_groups_of_sliding_layers() -> None:
    # Gemma 3 27B: 10 full and 52 sliding layers, in groups of 10, the last of them filled up.
    row, seen = 4096, 1024 - 1 + 8192 + 1 + 16
    found = cache(sliding(10, 52), backend=VLLM, context_length=131072)
    assert found == (10 * 131072 + 60 * seen) * row
    everything = cache(sliding(10, 52), backend=SGLANG, context_length=131072)
    assert everything == 62 * 131072 * row
    only = cache(sliding(0, 32), backend=VLLM, context_length=131072)
    assert only == 32 * seen * row


def test_layers_of_different_width_have_no_rule_in_vllm() -> None:
    mixed = (AttentionLayer(8, 128, 128, 1024), AttentionLayer(4, 256, 256), AttentionLayer(2, 128, 128))
    found = estimate(replace(LLAMA, attention=mixed), backend=VLLM)
    assert found.required_mib is None
    assert "different width" in found.unknown[0]


@pytest.mark.parametrize("backend", WITH_RULES)
@pytest.mark.parametrize("subject", [Subject.WEIGHTS, Subject.CACHE, Subject.CONTEXT])
def test_what_is_unknown_stays_unknown(backend: BackendName, subject: Subject) -> None:
    gone: dict[str, Any] = {"unknowns": (Unknown(subject, "because of the moon"),)}
    if subject is Subject.CACHE:
        gone["attention"] = None
    if subject is Subject.CONTEXT:
        gone["context_length"] = None
    found = estimate(replace(LLAMA, **gone), backend=backend)
    assert found.required_mib is found.minimum_mib is None
    assert any("the moon" in why for why in found.unknown)
    assert found.context_that_fits(10**6) is None


def test_a_declared_context_needs_no_other() -> None:
    figures = replace(LLAMA, context_length=None, unknowns=(Unknown(Subject.CONTEXT, "because of the moon"),))
    assert estimate(figures, backend=VLLM, context_length=4096).required_mib is not None


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"backend": BackendName.CUSTOM}, "set gpus.memory"),
        ({"backend": BackendName.OLLAMA}, "set serving.contextLength"),
        ({"backend": VLLM, "kv_dtype": "turbo"}, "cache type turbo"),
        ({"backend": LLAMACPP, "kv_dtype": "fp8"}, "cache type fp8"),
        ({"backend": VLLM, "quantization": "bitsandbytes"}, "quantization bitsandbytes is not known"),
        ({"backend": LLAMACPP, "quantization": "fp8"}, "remove serving.quantization"),
    ],
)
def test_what_has_no_rule_says_why(how: dict[str, Any], why: str) -> None:
    found = estimate(LLAMA, **how)
    assert found.required_mib is None
    assert why in found.unknown[0]


def test_eight_bits_on_the_fly() -> None:
    weights = part(estimate(LLAMA, backend=VLLM, quantization="fp8"), PartName.WEIGHTS)
    assert weights.bytes == 4 * EMBEDDINGS + (8030261248 - 2 * EMBEDDINGS)
    stored = replace(LLAMA, quantization="fp8")
    assert part(estimate(stored, backend=VLLM, quantization="fp8"), PartName.WEIGHTS).mib == 15317


def test_an_encoder_keeps_no_cache() -> None:
    for backend in (LLAMACPP, VLLM):
        assert cache(replace(LLAMA, attention=()), backend=backend) == 0


def test_the_context_that_fits() -> None:
    for backend, figures in ((VLLM, LLAMA), (LLAMACPP, GGUF)):
        found = estimate(figures, backend=backend, context_length=131072, concurrency=1)
        assert found.required_mib is not None
        assert found.context_that_fits(found.required_mib) == 131072
        fits = found.context_that_fits(24 * 1024)
        assert fits is not None
        assert 0 < fits < 131072
        at = estimate(figures, backend=backend, context_length=fits, concurrency=1).required_mib
        over = estimate(figures, backend=backend, context_length=fits + 256, concurrency=1).required_mib
        assert at is not None
        assert over is not None
        assert at <= 24 * 1024 < over
        assert found.context_that_fits(1024) == 0


def test_llama_server_deals_out_layers() -> None:
    one, two = (estimate(GGUF, backend=LLAMACPP, context_length=8192, tensor_parallel=gpus) for gpus in (1, 2))
    assert part(two, PartName.CACHE).bytes == 17 * 8192 * 4096
    weights = [part(found, PartName.WEIGHTS).bytes or 0 for found in (one, two)]
    assert weights[0] / 2 < weights[1] < weights[0] * 0.6


@st.composite
def questions(draw: st.DrawFn) -> tuple[ModelFigures, dict[str, Any]]:
    layer = st.builds(
        AttentionLayer,
        kv_heads=st.integers(1, 32),
        key_size=st.sampled_from([64, 128, 576]),
        value_size=st.sampled_from([0, 64, 128]),
        latent=st.booleans(),
    )
    shape = draw(layer)
    layers = draw(st.integers(1, 60))
    window = draw(st.none() | st.integers(1, 5000))
    period = draw(st.integers(1, 6))
    attention = tuple(replace(shape, window=window if at % period < period - 1 else None) for at in range(layers))
    size = draw(st.integers(1, 2**38))
    ends = draw(st.integers(0, size // 3))
    figures = replace(
        LLAMA,
        weights=(TypedWeights("BF16", size // 2, size),),
        layers=layers,
        attention=attention,
        sliding_window=window,
        input_bytes=ends,
        output_bytes=draw(st.sampled_from([None, ends])),
    )
    how = {
        "backend": draw(st.sampled_from(WITH_RULES)),
        "context_length": draw(st.integers(1, 300_000)),
        "concurrency": draw(st.integers(1, 64)),
        "tensor_parallel": draw(st.sampled_from([1, 2, 4, 8])),
    }
    return figures, how


def required(figures: ModelFigures, how: dict[str, Any]) -> int:
    found = estimate(figures, **how)
    assert found.required_mib is not None
    assert found.minimum_mib is not None
    assert found.minimum_mib <= found.required_mib
    return found.required_mib


@given(question=questions(), more=st.integers(1, 100_000))
def test_more_context_or_requests_never_need_less(question: tuple[ModelFigures, dict[str, Any]], more: int) -> None:
    figures, how = question
    before = required(figures, how)
    for knob in ("context_length", "concurrency"):
        assert required(figures, {**how, knob: how[knob] + more}) >= before
    far = {**how, "context_length": how["context_length"] + 10**6}
    if any(layer.window is None for layer in figures.attention or ()):
        assert required(figures, far) > before


@given(question=questions(), more=st.integers(1, 60))
def test_more_layers_never_need_less(question: tuple[ModelFigures, dict[str, Any]], more: int) -> None:
    figures, how = question
    assert figures.attention is not None
    alike = tuple(replace(layer, window=None) for layer in figures.attention)
    layers = len(alike) + more
    smaller = replace(figures, attention=alike)
    larger = replace(figures, attention=alike[:1] * layers, layers=layers)
    assert cache(larger, **how) >= cache(smaller, **how)  # type: ignore[operator]


@given(question=questions())
def test_more_gpus_never_need_more_of_each(question: tuple[ModelFigures, dict[str, Any]]) -> None:
    figures, how = question
    needs = [required(figures, {**how, "tensor_parallel": gpus}) for gpus in (1, 2, 4, 8)]
    assert needs == sorted(needs, reverse=True)


@given(question=questions(), free=st.integers(0, 200_000))
def test_the_context_that_fits_fits(question: tuple[ModelFigures, dict[str, Any]], free: int) -> None:
    figures, how = question
    length = estimate(figures, **how).context_that_fits(free)
    assert length is not None
    if length:
        assert required(figures, {**how, "context_length": length}) <= free
    if length < 131072:
        assert required(figures, {**how, "context_length": min(length + 256, 131072)}) > free


def test_mib_are_rounded_up() -> None:
    assert Part(PartName.CACHE, MIB + 1, "").mib == 2
