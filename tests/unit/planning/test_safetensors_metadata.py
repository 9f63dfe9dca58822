"""Headers of safetensors files and config.json: what they say, and that damaged ones do no harm."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.model_figures import AttentionLayer, ModelFigures, NeedMore, Subject, UnreadableModelError
from berth.planning.safetensors_figures import figures_from_safetensors, read_config
from berth.planning.safetensors_metadata import BITS, SafetensorsHeader, read_index, read_safetensors

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
}


def file_of(tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file's header, as the library writes it."""
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    place = 0
    for name, (dtype, shape) in tensors.items():
        size = BITS.get(dtype, 8)
        for length in shape:
            size *= length
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size // 8]}
        place += size // 8
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


SMALL = file_of(
    {
        "model.embed_tokens.weight": ("BF16", [100, 64]),
        "model.layers.0.self_attn.q_proj.weight": ("F8_E4M3", [64, 64]),
        "model.norm.weight": ("F32", [64]),
        "lm_head.weight": ("BF16", [100, 64]),
        'odd "name" \\ {}': ("F4", [3, 2]),
    },
    {"format": "pt", "note": 'with "quotes" and } braces'},
)


def read(data: bytes = SMALL) -> SafetensorsHeader:
    found = read_safetensors(data)
    assert isinstance(found, SafetensorsHeader)
    return found


def figures(**changes: Any) -> ModelFigures:
    config = {key: value for key, value in {**LLAMA, **changes}.items() if value is not None}
    return figures_from_safetensors([read()], config)


def test_sums_by_type() -> None:
    header = read()
    assert {one.dtype: (one.parameters, one.bytes) for one in header.weights} == {
        "BF16": (12800, 25600),
        "F8_E4M3": (4096, 4096),
        "F32": (64, 256),
        "F4": (6, 3),
    }
    assert (header.tensors, header.input_bytes, header.output_bytes) == (5, 12800, 12800)
    assert (header.size, header.data_bytes) == (len(SMALL), 25600 + 4096 + 256 + 3)


def test_a_prefix_says_how_much_more_it_needs() -> None:
    assert read_safetensors(b"") == NeedMore(8)
    assert read_safetensors(SMALL[:8]) == read_safetensors(SMALL[:-1]) == NeedMore(len(SMALL))
    assert read(SMALL + bytes(100)) == read()


def test_an_empty_file_and_an_unknown_type() -> None:
    assert read(file_of({})).tensors == 0
    header = read(file_of({"a": ("F3_NEW", [8])}))
    assert header.unknown_types == ("F3_NEW",)
    assert figures_from_safetensors([header], LLAMA).parameters is None
    assert figures_from_safetensors([header], LLAMA).weight_bytes == 8


def _raw(text: str) -> bytes:
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        (2**62).to_bytes(8, "little"),
        _raw("[]"),
        _raw('{"a": 1}'),
        _raw('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}}'),
        _raw('{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}'),
        _raw('{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}'),
        _raw('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}'),
        _raw('{"a": {"dtype": "F32", "shape": [' + "[" * 1000 + "}"),
        _raw('{"a": {"dtype": "F32", "shape": [' + "9" * 5000 + "]}}"),
        _raw('{"__metadata__": {"a": {"b": "c"}}}'),
        _raw('{"' + "\\" * 1001),
        _raw('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'),
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableModelError):
        read_safetensors(data)


def test_a_large_header_is_never_taken_apart_at_once() -> None:
    data = file_of({f"model.layers.{number}.weight": ("BF16", [64, 64]) for number in range(5_000)})
    tracemalloc.start()
    header = read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert header.tensors == 5_000
    assert peak < 64 * 1024


@given(data=st.data())
def test_damaged_headers_raise_nothing_else_and_stay_small(data: st.DataObject) -> None:
    damaged = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(8, len(damaged) - 1))] = data.draw(st.sampled_from(b'{}[]":,\\ 0-9eE\x00\xffn'))
    prefix = bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))])
    tracemalloc.start()
    try:
        read_safetensors(prefix)
    except UnreadableModelError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2 * 2**20


def test_an_index_names_its_files() -> None:
    content = {
        "metadata": {"total_size": 16060522496},
        "weight_map": {"lm_head.weight": "model-2.safetensors", "a": "model-1.safetensors", "b": "model-1.safetensors"},
    }
    index = read_index(json.dumps(content, indent=2).encode())
    assert index.files == ("model-2.safetensors", "model-1.safetensors")
    assert index.total_bytes == 16060522496


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"weight_map": []}',
        b'{"weight_map": {"a": "../../etc/passwd"}}',
        b'{"weight_map": {"a": "/model.safetensors"}}',
        b'{"weight_map": {"a": "x/../model.safetensors"}}',
        b'{"weight_map": {"a": "model.safetensors"',
        b'{"weight_map": {"a": 1}}',
    ],
)
def test_an_index_that_makes_no_sense_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableModelError):
        read_index(content)


@given(content=st.binary(max_size=200))
def test_any_config_and_index_raises_nothing_else(content: bytes) -> None:
    for read_one in (read_config, read_index):
        try:
            read_one(content)
            read_one(b'{"weight_map": {' + content)
        except UnreadableModelError:
            pass


def test_figures_of_a_plain_model() -> None:
    found = figures()
    assert found.attention == (AttentionLayer(8, 128, 128),) * 32
    assert (found.context_length, found.feed_forward_length, found.quantization) == (131072, 14336, None)
    assert found.unknowns == ()


@pytest.mark.parametrize(
    ("changes", "layer"),
    [
        ({"num_key_value_heads": None}, AttentionLayer(32, 128, 128)),
        ({"head_dim": 256}, AttentionLayer(8, 256, 256)),
        ({"num_key_value_heads": None, "multi_query": True}, AttentionLayer(1, 128, 128)),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64}, AttentionLayer(1, 576, 0, latent=True)),
        ({"model_type": "mistral", "sliding_window": 4096}, AttentionLayer(8, 128, 128, 4096)),
        ({"sliding_window": 4096, "use_sliding_window": False}, AttentionLayer(8, 128, 128)),
    ],
)
def test_what_each_layer_keeps(changes: dict[str, Any], layer: AttentionLayer) -> None:
    assert figures(**changes).attention == (layer,) * 32


def test_which_layers_slide() -> None:
    types = ["sliding_attention", "full_attention"] * 16
    for changes in (
        {"layer_types": types},
        {"sliding_window_pattern": 2},
        {"model_type": "gemma2"},
    ):
        attention = figures(sliding_window=1024, **changes).attention
        assert attention is not None
        assert [layer.window for layer in attention] == [1024, None] * 16


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "nomic_bert", "modernbert"])
def test_an_encoder_keeps_nothing(family: str) -> None:
    assert figures(model_type=family).attention == ()
    assert figures(model_type=family, is_decoder=True).attention == (AttentionLayer(8, 128, 128),) * 32


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sliding_window": 4096}, "which layers use the sliding window"),
        ({"layer_types": ["linear_attention"] * 32}, "keep a state"),
        ({"mamba_d_state": 128}, "keep a state"),
        ({"index_topk": 2048}, "index of keys"),
        ({"num_kv_shared_layers": 10}, "share the cache"),
        ({"is_encoder_decoder": True}, "encoder with a decoder"),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing"),
        ({"num_attention_heads": None}, "num_attention_heads"),
    ],
)
def test_what_has_no_rule_is_named(changes: dict[str, Any], why: str) -> None:
    found = figures(**changes)
    assert found.attention is None
    assert why in found.why_unknown(Subject.CACHE)[0]


def test_a_model_with_several_parts() -> None:
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": LLAMA, "vision_config": {}}
    found = figures_from_safetensors([read()], config)
    assert (found.architecture, found.layers) == ("Gemma3ForConditionalGeneration", 32)


def test_quantization_and_packed_parameters() -> None:
    config = {**LLAMA, "quantization_config": {"quant_method": "AWQ", "bits": 4}}
    packed = read(file_of({"a.qweight": ("I32", [64, 8]), "a.scales": ("F16", [64])}))
    found = figures_from_safetensors([packed], config)
    assert (found.quantization, found.parameters, found.weight_bytes) == ("awq", None, 64 * 8 * 4 + 128)
    assert figures(quantization_config={}).quantization == "unnamed"


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        ({"type": "linear", "factor": 2}, 262144),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
        ({"rope_type": "longrope", "factor": 32.0}, 131072),
        ({"rope_type": "of tomorrow", "factor": 2.0}, None),
        ({"rope_type": "yarn", "factor": "much"}, None),
        ({"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}}, 131072),
    ],
)
def test_the_context_that_a_model_was_made_for(scaling: dict[str, Any], context: int | None) -> None:
    assert figures(rope_scaling=scaling).context_length == context


def test_missing_files_leave_the_weights_unknown() -> None:
    found = figures_from_safetensors([read()], LLAMA, files=2)
    assert found.weight_bytes is None
    assert "2 files, of which 1" in found.why_unknown(Subject.WEIGHTS)[0]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 10**13), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
FIELDS = [
    *LLAMA, "head_dim", "sliding_window", "layer_types", "sliding_window_pattern", "kv_lora_rank", "qk_rope_head_dim",
    "text_config", "quantization_config", "use_sliding_window", "max_window_layers", "attn_config", "multi_query",
    "rope_parameters", "v_head_dim", "moe_intermediate_size", "num_experts_per_tok",
]  # fmt: skip


@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_no_config_is_too_odd(changes: dict[str, Any]) -> None:
    found = figures_from_safetensors([read()], {**LLAMA, **changes})
    assert found.attention is not None or found.why_unknown(Subject.CACHE)
