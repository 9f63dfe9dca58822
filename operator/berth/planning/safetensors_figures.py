"""From config.json and safetensors headers to figures: what each layer keeps for each token.

Names of fields: the configuration classes of Hugging Face transformers. How heads, context and latent attention are
read from them: vLLM's vllm/config/model.py (get_total_num_kv_heads, get_head_size, _get_and_verify_max_len).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from berth.planning.model_figures import (
    MAX_LAYERS,
    AttentionLayer,
    ModelFigures,
    Subject,
    Unknown,
    UnreadableModelError,
    WeightsFormat,
    whole_number,
)
from berth.planning.safetensors_metadata import SafetensorsHeader, combine

MAX_CONFIG = 512 * 2**10

_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
_STATE_KEYS = (
    "mamba_d_state", "mamba_num_heads", "mamba_n_heads", "ssm_state_size", "state_size", "ssm_cfg",
    "linear_attn_config", "linear_num_key_heads", "layers_block_type", "hybrid_override_pattern", "attn_layer_period",
    "conv_L_cache", "full_attention_interval", "attn_type_list", "time_step_rank", "attention_hidden_size",
)  # fmt: skip
"""Fields of models whose layers keep a state (Mamba, RWKV, linear attention, short convolutions)."""
_OWN_FIELDS: Mapping[str, str] = {
    "index_topk": "it keeps an index of keys beside the cache",
    "global_head_dim": "its layers have heads of different sizes",
    "num_kv_shared_layers": "some of its layers share the cache of others",
    "attention_chunk_size": "it attends in chunks",
    "block_configs": "each of its layers has a shape of its own",
}
_PERIODS = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "cohere2": 4}
"""Models whose every n-th layer sees all tokens, where layer_types and sliding_window_pattern are missing."""
_ALL_SLIDE = frozenset({"mistral", "mixtral", "phi3", "starcoder2"})
_ENCODERS = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "distilbert", "mpnet", "nomic_bert", "modernbert"}
)
"""Models that read a text as a whole, unless they say that they are a decoder; they keep nothing for each token."""
_PACKED = frozenset({"U8", "I8", "I32", "U32"})
_SAME_CONTEXT = frozenset({"default", "llama3", "longrope", "su", "mrope", "proportional"})


def read_config(content: bytes) -> dict[str, Any]:
    """config.json as it is. Raises UnreadableModelError."""
    if len(content) > MAX_CONFIG:
        raise UnreadableModelError(f"config.json is larger than {MAX_CONFIG >> 10} KiB")
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableModelError("config.json is no JSON") from error
    if not isinstance(config, dict):
        raise UnreadableModelError("config.json is no object")
    return config


def figures_from_safetensors(
    headers: Sequence[SafetensorsHeader], config: Mapping[str, Any], *, files: int | None = None
) -> ModelFigures:
    """The figures of a model; `files` is how many its index names. Raises UnreadableModelError."""
    if not headers:
        raise UnreadableModelError("there is no safetensors file")
    whole, own = combine(headers), _text_part(config)
    quantization = _quantization(config) or _quantization(own)
    architecture = _architecture(config)
    layers = whole_number(own, "num_hidden_layers", "n_layer", "n_layers", "num_layers", at_most=MAX_LAYERS)
    unknowns = []
    if files is not None and files != len(headers):
        why = f"the model has {files} files, of which {len(headers)} were read"
        unknowns.append(Unknown(Subject.WEIGHTS, why))
    if quantization is not None and any(part.dtype in _PACKED for part in whole.weights):
        why = f"quantization {quantization} packs several parameters into one element"
        unknowns.append(Unknown(Subject.PARAMETERS, why))
    if whole.unknown_types:
        why = f"tensors have types that are not known here: {', '.join(whole.unknown_types)}"
        unknowns.append(Unknown(Subject.PARAMETERS, why))
    attention, why = _attention(config, own, layers)
    if attention is None:
        unknowns.append(Unknown(Subject.CACHE, f"architecture {architecture}: {why}"))
    context, why = _context(own)
    if context is None:
        unknowns.append(Unknown(Subject.CONTEXT, why))
    return ModelFigures(
        format=WeightsFormat.SAFETENSORS,
        architecture=architecture,
        weights=whole.weights,
        layers=layers,
        heads=whole_number(own, "num_attention_heads", "n_head", "n_heads"),
        attention=attention,
        embedding_length=whole_number(own, "hidden_size", "n_embd", "d_model"),
        feed_forward_length=_feed_forward(own),
        context_length=context,
        sliding_window=whole_number(own, "sliding_window"),
        quantization=quantization,
        input_bytes=whole.input_bytes,
        output_bytes=whole.output_bytes,
        unknowns=tuple(unknowns),
    )


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a model with several parts describes the one that writes text."""
    for _ in range(2):
        nested = next((config[name] for name in _NESTED if isinstance(config.get(name), dict)), None)
        if nested is None:
            break
        config = nested
    return config


def _architecture(config: Mapping[str, Any]) -> str | None:
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else config.get("model_type")
    return first[:100] if isinstance(first, str) and first else None


def _quantization(config: Mapping[str, Any]) -> str | None:
    for field in ("quantization_config", "compression_config"):
        details = config.get(field)
        if isinstance(details, dict):
            method = details.get("quant_method")
            return method[:100].lower() if isinstance(method, str) and method else "unnamed"
    return None


def _attention(
    config: Mapping[str, Any], own: Mapping[str, Any], layers: int | None
) -> tuple[tuple[AttentionLayer, ...] | None, str]:
    """What each layer keeps, or why it cannot be said."""
    if str(own.get("model_type")) in _ENCODERS and not own.get("is_decoder"):
        return (), ""
    why = next((text for field, text in _OWN_FIELDS.items() if own.get(field)), "")
    if not why and (any(own.get(field) is not None for field in _STATE_KEYS) or _has_state(own)):
        why = "it mixes attention with layers that keep a state"
    if not why and (config.get("is_encoder_decoder") or own.get("is_encoder_decoder")):
        why = "it is an encoder with a decoder"
    if why:
        return None, f"{why}, for which there is no rule yet"
    if layers is None:
        return None, "num_hidden_layers is missing"
    rank, rope = whole_number(own, "kv_lora_rank"), whole_number(own, "qk_rope_head_dim")
    windows = _windows(own, layers)
    if windows is None:
        return None, "it does not say which layers use the sliding window"
    if rank and rope:
        return tuple(AttentionLayer(1, rank + rope, 0, window, latent=True) for window in windows), ""
    heads = whole_number(own, "num_attention_heads", "n_head", "n_heads", at_most=2**20)
    hidden = whole_number(own, "hidden_size", "n_embd", "d_model", at_most=2**30)
    size = whole_number(own, "head_dim", at_most=2**20) or (hidden // heads if hidden and heads else None)
    if not heads or not size:
        return None, "num_attention_heads or hidden_size is missing or makes no sense"
    kv_heads = _kv_heads(own) or heads
    values = whole_number(own, "v_head_dim", at_most=2**20) or size
    return tuple(AttentionLayer(kv_heads, size, values, window) for window in windows), ""


def _has_state(own: Mapping[str, Any]) -> bool:
    types = own.get("layer_types")
    return isinstance(types, list) and any(one not in ("full_attention", "sliding_attention") for one in types)


def _kv_heads(own: Mapping[str, Any]) -> int | None:
    for field in ("attn_config", "attention_config"):
        nested = own.get(field)
        if isinstance(nested, dict) and (found := whole_number(nested, "kv_n_heads")):
            return found
    named = whole_number(
        own, "num_key_value_heads", "num_kv_heads", "multi_query_group_num", "n_head_kv", at_most=2**20
    )
    if own.get("multi_query") and not own.get("new_decoder_architecture") and own.get("num_key_value_heads") is None:
        return 1
    return named


def _windows(own: Mapping[str, Any], layers: int) -> tuple[int | None, ...] | None:
    """The window of each layer; None when it cannot be said."""
    window = whole_number(own, "sliding_window")
    if window is None or own.get("use_sliding_window") is False:
        return (None,) * layers
    types, model = own.get("layer_types"), str(own.get("model_type"))
    if isinstance(types, list):
        slides = [one == "sliding_attention" for one in types]
        return tuple(window if one else None for one in slides[:layers]) if len(slides) >= layers else None
    if model in _ALL_SLIDE:
        return (window,) * layers
    if own.get("use_sliding_window") is True and isinstance(first := own.get("max_window_layers"), int):
        return tuple(window if at >= first else None for at in range(layers))
    period = whole_number(own, "sliding_window_pattern", "_sliding_window_pattern")
    period = period or _PERIODS.get(model)
    if period is None:
        return None
    return tuple(None if (at + 1) % period == 0 else window for at in range(layers))


def _context(own: Mapping[str, Any]) -> tuple[int | None, str]:
    """How many tokens the model was made for, and why that is not known."""
    length = whole_number(own, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
    if length is None:
        return None, "max_position_embeddings is missing"
    scaling = own.get("rope_scaling") or own.get("rope_parameters")
    if not isinstance(scaling, dict):
        return length, ""
    kind = str(scaling.get("rope_type", scaling.get("type", "default")))
    if kind in _SAME_CONTEXT or any(isinstance(one, dict) for one in scaling.values()):
        return length, ""
    factor = scaling.get("factor")
    if kind not in ("linear", "dynamic", "yarn") or not isinstance(factor, int | float) or not 0 < factor < 10**6:
        return None, f"rope_scaling of type {kind[:40]} changes the context in a way that is not known here"
    if kind == "yarn":
        length = whole_number(scaling, "original_max_position_embeddings") or length
    return int(length * factor), ""


def _feed_forward(own: Mapping[str, Any]) -> int | None:
    """How wide the widest feed-forward step is; experts that work at once count together."""
    dense = whole_number(own, "intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim") or 0
    expert, at_once = whole_number(own, "moe_intermediate_size"), whole_number(own, "num_experts_per_tok")
    return max(dense, expert * at_once if expert and at_once else 0) or None
