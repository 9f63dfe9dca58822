"""From GGUF headers to figures: the rules by which llama.cpp decides what each layer keeps for each token.

Names of keys: gguf-py, constants.py. Rules: llama.cpp's src/llama-model.cpp, src/llama-hparams.cpp and
src/llama-kv-cache*.cpp, checked against what build 11669 logs (tests/e2e/test_memory_of_llama_server.py).
"""

from collections.abc import Mapping, Sequence

from berth.planning.gguf_metadata import GgufHeader, Value
from berth.planning.model_figures import (
    MAX_LAYERS,
    AttentionLayer,
    ModelFigures,
    Subject,
    Unknown,
    UnreadableModelError,
    WeightsFormat,
    sum_by_type,
    whole_number,
)

FILE_TYPES: Mapping[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4",
    40: "Q1_0",
}  # fmt: skip
"""general.file_type: enum llama_ftype in llama.h."""

_WINDOW_PERIODS = {"gemma2": 2, "gemma3": 6, "cohere2": 4, "gpt-oss": 2, "gptoss": 2}
"""Architectures whose every n-th layer sees all tokens and the others a window, where the file does not say so.

Ollama writes gpt-oss without the dash.
"""
_IGNORE_WINDOW = frozenset({"llama", "phi3"})
_ENCODERS = frozenset({"bert", "nomic-bert", "jina-bert-v2", "modern-bert"})
_NO_RULE: Mapping[str, str] = {
    "gemma3n": "some of its layers share the cache of others",
    "gemma4": "its layers have heads of different sizes and share caches",
    "llama4": "it attends in chunks",
    "t5": "it is an encoder with a decoder",
    "deepseek4": "it compresses its cache in its own way",
}
_OWN_KEYS: Mapping[str, str] = {
    "attention.indexer.key_length": "it keeps an index of keys beside the cache",
    "attention.key_length_swa": "its sliding layers have heads of another size",
    "attention.value_length_swa": "its sliding layers have heads of another size",
    "attention.shared_kv_layers": "some of its layers share the cache of others",
    "full_attention_interval": "it mixes attention with layers that keep a state",
}


def figures_from_gguf(headers: Sequence[GgufHeader]) -> ModelFigures:
    """The figures of a model, of which a split file gives one header for each part. Raises UnreadableModelError."""
    if not headers:
        raise UnreadableModelError("there is no GGUF file")
    values = headers[0].values
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise UnreadableModelError(
            "the GGUF file does not name its architecture: when the model is split, begin with its first part"
        )
    own = {key.removeprefix(f"{architecture}."): value for key, value in values.items()}
    layers = whole_number(own, "block_count", at_most=MAX_LAYERS)
    unknowns = [*_missing_parts(headers)]
    attention, why = _attention(architecture, own, layers, recurrent=headers[0].recurrent)
    if attention is None:
        unknowns.append(Unknown(Subject.CACHE, f"architecture {architecture}: {why}"))
    context = whole_number(own, "context_length")
    if context is None:
        unknowns.append(Unknown(Subject.CONTEXT, f"{architecture}.context_length is missing"))
    file_type = values.get("general.file_type")
    outputs = [header.output_bytes for header in headers if header.output_bytes is not None]
    return ModelFigures(
        format=WeightsFormat.GGUF,
        architecture=architecture,
        weights=sum_by_type(part for header in headers for part in header.weights),
        layers=layers,
        heads=_most_heads(own),
        attention=attention,
        embedding_length=whole_number(own, "embedding_length"),
        feed_forward_length=_feed_forward(own),
        context_length=context,
        sliding_window=whole_number(own, "attention.sliding_window"),
        quantization=FILE_TYPES.get(file_type) if isinstance(file_type, int) else None,
        input_bytes=sum(header.input_bytes for header in headers),
        output_bytes=sum(outputs) if outputs else None,
        unknowns=tuple(unknowns),
    )


def _missing_parts(headers: Sequence[GgufHeader]) -> list[Unknown]:
    found = []
    kinds = sorted({kind for header in headers for kind in header.unknown_types})
    if kinds:
        why = f"tensors have types that are not known here: {', '.join(map(str, kinds))}"
        found.append(Unknown(Subject.WEIGHTS, why))
    parts = whole_number(headers[0].values, "split.count") or 1
    if parts != len(headers):
        why = f"the model is split into {parts} files, of which {len(headers)} were read"
        found.append(Unknown(Subject.WEIGHTS, why))
    return found


def _attention(
    architecture: str, own: Mapping[str, Value], layers: int | None, *, recurrent: bool
) -> tuple[tuple[AttentionLayer, ...] | None, str]:
    """What each layer keeps, or why it cannot be said."""
    if architecture in _ENCODERS:
        return (), ""
    why = _NO_RULE.get(architecture) or next((text for key, text in _OWN_KEYS.items() if own.get(key)), "")
    if recurrent and not why:
        why = "it mixes attention with layers that keep a state"
    if why:
        return None, f"{why}, for which there is no rule yet"
    if layers is None:
        return None, "block_count is missing"
    cached = layers - (whole_number(own, "nextn_predict_layers", at_most=layers) or 0)  # for drafts; they keep nothing
    kv_heads, sizes = _per_layer(own, layers), _head_sizes(own)
    if kv_heads is None or sizes is None:
        return None, "attention.head_count or embedding_length is missing or makes no sense"
    windows = _windows(architecture, own, layers)
    if windows is None:
        return None, "it does not say which layers use the sliding window"
    keys, values = sizes
    if own.get("attention.key_length_mla") and own.get("attention.kv_lora_rank"):
        return tuple(AttentionLayer(1, keys, 0, windows[at], latent=True) for at in range(cached)), ""
    return tuple(AttentionLayer(kv_heads[at], keys, values, windows[at]) for at in range(cached)), ""


def _per_layer(own: Mapping[str, Value], layers: int) -> tuple[int, ...] | None:
    """Heads of keys and values; without the key as many as there are heads."""
    value = own.get("attention.head_count_kv", own.get("attention.head_count"))
    if isinstance(value, tuple):
        sensible = len(value) >= layers and all(0 <= one <= 2**20 for one in value)
        return value[:layers] if sensible else None
    if isinstance(value, int) and 0 < value <= 2**20:
        return (value,) * layers
    return None


def _most_heads(own: Mapping[str, Value]) -> int | None:
    value = own.get("attention.head_count")
    most = max(value, default=0) if isinstance(value, tuple) else value
    return most if isinstance(most, int) and 0 < most <= 2**20 else None


def _head_sizes(own: Mapping[str, Value]) -> tuple[int, int] | None:
    embedding, heads = whole_number(own, "embedding_length"), own.get("attention.head_count")
    if isinstance(heads, tuple):
        heads = heads[0] if heads else None
    usual = embedding // heads if embedding and isinstance(heads, int) and heads > 0 else None
    keys = whole_number(own, "attention.key_length", at_most=2**20) or usual
    values = whole_number(own, "attention.value_length", at_most=2**20) or usual
    return (keys, values) if keys and values else None


def _windows(architecture: str, own: Mapping[str, Value], layers: int) -> tuple[int | None, ...] | None:
    """The window of each layer (llama-hparams.cpp: set_swa_pattern); None when it cannot be said."""
    window = whole_number(own, "attention.sliding_window")
    if window is None or architecture in _IGNORE_WINDOW:
        return (None,) * layers
    pattern = own.get("attention.sliding_window_pattern", _WINDOW_PERIODS.get(architecture))
    if isinstance(pattern, tuple):
        return tuple(window if slides else None for slides in pattern[:layers]) if len(pattern) >= layers else None
    if isinstance(pattern, int) and pattern >= 0:
        return tuple(window if pattern == 0 or at % pattern < pattern - 1 else None for at in range(layers))
    return None


def _feed_forward(own: Mapping[str, Value]) -> int | None:
    """How wide the widest feed-forward step is; experts that work at once count together."""
    value = own.get("feed_forward_length")
    dense = max(value, default=0) if isinstance(value, tuple) else value if isinstance(value, int) else 0
    expert, at_once = whole_number(own, "expert_feed_forward_length"), whole_number(own, "expert_used_count")
    return max(dense, expert * at_once if expert and at_once else 0) or None
