"""From the fields of a config.json to the tensors of the model: shapes, and what each is for.

Written after the modules of Hugging Face transformers (src/transformers/models/*/modeling_*.py). A sum of all elements
that is the published number of parameters, to the last one, is what proves a family right.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a tensor is for: it decides what a quantization does to it."""

    EMBEDDING = "embedding"
    OUTPUT = "output"
    VALUE = "value"
    QUERY_KEY_VALUE = "query, key and value in one"
    ATTENTION = "other projections of attention"
    DOWN = "last step of feed-forward"
    FEED_FORWARD = "other steps of feed-forward"
    ROUTER = "choice of experts"
    VECTOR = "norm or bias"
    POSITION = "embeddings of positions and kinds of token"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A matrix, or several of one shape: one for each expert."""

    role: Role
    columns: int
    rows: int = 1
    layer: int = -1
    experts: int = 1

    @property
    def elements(self) -> int:
        """All elements."""
        return self.columns * self.rows * self.experts


_QKV_BIAS = frozenset({"qwen2", "qwen2_vl", "qwen2_5_vl"})
_NORM_OF_HEADS = frozenset({"qwen3", "qwen3_moe", "qwen3_vl_text", "gemma3_text"})
_NORM_OF_ALL_HEADS = frozenset({"olmo2"})
_NORMS = {"gemma2": 4, "gemma3_text": 4, "glm4": 4, "cohere": 1, "cohere2": 1}
"""Norms of a layer where there are not two."""
_DECODERS = frozenset({
    "llama", "mistral", "mixtral", "qwen2", "qwen2_5_vl", "qwen3", "qwen3_moe", "qwen3_vl_text", "gemma2",
    "gemma3_text", "phi3", "granite", "smollm3", "olmo2", "glm4", "glm4_moe", "cohere", "cohere2", "gpt_oss",
    "deepseek_v2", "deepseek_v3",
})  # fmt: skip


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that describes the model that writes text."""
    nested: Mapping[str, Any] = config.get("text_config", config)
    return nested


def tensors(config: Mapping[str, Any]) -> Iterator[Tensor]:
    """All tensors of the part that handles text. Raises ValueError for a family without a rule."""
    own = text_config(config)
    family = own["model_type"]
    if family in _DECODERS:
        yield from _decoder(own)
    elif family in ("bert", "xlm-roberta"):
        yield from _bert(own)
    elif family == "nomic_bert":
        yield from _nomic_bert(own)
    else:
        raise ValueError(f"there is no rule for the tensors of {family}: add one to hack/catalogue/tensors.py")


def _decoder(own: Mapping[str, Any]) -> Iterator[Tensor]:
    hidden, vocabulary = own["hidden_size"], own["vocab_size"]
    yield Tensor(Role.EMBEDDING, hidden, vocabulary)
    for layer in range(own["num_hidden_layers"]):
        attention = _latent_attention if own.get("kv_lora_rank") else _attention
        yield from attention(own, layer)
        yield from _feed_forward(own, layer)
        for _ in range(_NORMS.get(own["model_type"], 2)):
            yield Tensor(Role.VECTOR, hidden, layer=layer)
    yield Tensor(Role.VECTOR, hidden)
    if not own["tie_word_embeddings"]:
        yield Tensor(Role.OUTPUT, hidden, vocabulary)


def _attention(own: Mapping[str, Any], layer: int) -> Iterator[Tensor]:
    family, hidden, heads = own["model_type"], own["hidden_size"], own["num_attention_heads"]
    size = own.get("head_dim") or hidden // heads
    queries, keys = heads * size, own["num_key_value_heads"] * size
    if family == "phi3":
        yield Tensor(Role.QUERY_KEY_VALUE, hidden, queries + 2 * keys, layer)
    else:
        yield Tensor(Role.ATTENTION, hidden, queries, layer)
        yield Tensor(Role.ATTENTION, hidden, keys, layer)
        yield Tensor(Role.VALUE, hidden, keys, layer)
    yield Tensor(Role.ATTENTION, queries, hidden, layer)
    if family in _QKV_BIAS or own.get("attention_bias") or family == "gpt_oss":
        yield Tensor(Role.VECTOR, queries + 2 * keys, layer=layer)
    if family == "gpt_oss":
        yield Tensor(Role.VECTOR, hidden + heads, layer=layer)  # bias of the last projection, and the sinks
    if family in _NORM_OF_HEADS or own.get("use_qk_norm"):
        yield Tensor(Role.VECTOR, 2 * size, layer=layer)
    if family in _NORM_OF_ALL_HEADS:
        yield Tensor(Role.VECTOR, queries + keys, layer=layer)


def _latent_attention(own: Mapping[str, Any], layer: int) -> Iterator[Tensor]:
    hidden, heads, rank = own["hidden_size"], own["num_attention_heads"], own["kv_lora_rank"]
    plain, turned, values = own["qk_nope_head_dim"], own["qk_rope_head_dim"], own["v_head_dim"]
    query_rank = own.get("q_lora_rank")
    if query_rank:
        yield Tensor(Role.ATTENTION, hidden, query_rank, layer)
        yield Tensor(Role.VECTOR, query_rank, layer=layer)
    yield Tensor(Role.ATTENTION, query_rank or hidden, heads * (plain + turned), layer)
    yield Tensor(Role.ATTENTION, hidden, rank + turned, layer)
    yield Tensor(Role.VECTOR, rank, layer=layer)
    yield Tensor(Role.ATTENTION, rank, heads * (plain + values), layer)
    yield Tensor(Role.ATTENTION, heads * values, hidden, layer)


def _feed_forward(own: Mapping[str, Any], layer: int) -> Iterator[Tensor]:
    hidden, inner = own["hidden_size"], own["intermediate_size"]
    experts = own.get("num_experts") or own.get("num_local_experts") or own.get("n_routed_experts")
    if not experts or layer < own.get("first_k_dense_replace", 0):
        yield from _gated(hidden, inner, layer)
        return
    width = own.get("moe_intermediate_size") or inner
    yield Tensor(Role.ROUTER, hidden, experts, layer)
    yield from _gated(hidden, width, layer, experts)
    if shared := own.get("n_shared_experts"):
        yield from _gated(hidden, shared * width, layer)
    if own["model_type"] == "gpt_oss":
        yield Tensor(Role.VECTOR, experts * (2 * width + hidden + 1), layer=layer)
    if own.get("topk_method") == "noaux_tc" or own["model_type"] == "glm4_moe":
        yield Tensor(Role.VECTOR, experts, layer=layer)


def _gated(hidden: int, width: int, layer: int, experts: int = 1) -> Iterator[Tensor]:
    for _ in range(2):
        yield Tensor(Role.FEED_FORWARD, hidden, width, layer, experts)
    yield Tensor(Role.DOWN, width, hidden, layer, experts)


def _bert(own: Mapping[str, Any]) -> Iterator[Tensor]:
    hidden, inner = own["hidden_size"], own["intermediate_size"]
    yield Tensor(Role.EMBEDDING, hidden, own["vocab_size"])
    yield Tensor(Role.POSITION, hidden, own["max_position_embeddings"] + own["type_vocab_size"])
    yield Tensor(Role.VECTOR, 2 * hidden)
    for layer in range(own["num_hidden_layers"]):
        yield Tensor(Role.ATTENTION, hidden, 2 * hidden, layer)
        yield Tensor(Role.VALUE, hidden, hidden, layer)
        yield Tensor(Role.ATTENTION, hidden, hidden, layer)
        yield Tensor(Role.FEED_FORWARD, hidden, inner, layer)
        yield Tensor(Role.DOWN, inner, hidden, layer)
        yield Tensor(Role.VECTOR, 4 * hidden + inner + hidden + 4 * hidden, layer=layer)
    yield Tensor(Role.OUTPUT, hidden, hidden)  # pools, or begins the classifier
    yield Tensor(Role.VECTOR, hidden)
    if "ForSequenceClassification" in str(own.get("architectures")):
        yield Tensor(Role.VECTOR, len(own["id2label"]) * (hidden + 1))


def _nomic_bert(own: Mapping[str, Any]) -> Iterator[Tensor]:
    hidden, inner = own["n_embd"], own["n_inner"]
    yield Tensor(Role.EMBEDDING, hidden, own["vocab_size"])
    yield Tensor(Role.POSITION, hidden, own["type_vocab_size"])
    yield Tensor(Role.VECTOR, 2 * hidden)
    for layer in range(own["n_layer"]):
        yield Tensor(Role.QUERY_KEY_VALUE, hidden, 3 * hidden, layer)
        yield Tensor(Role.ATTENTION, hidden, hidden, layer)
        yield from _gated(hidden, inner, layer)
        yield Tensor(Role.VECTOR, 4 * hidden, layer=layer)
