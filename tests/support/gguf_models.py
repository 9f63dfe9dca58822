"""Tiny random models of several architectures as GGUF files: real enough for a real llama-server to load.

The shapes are what matters here, the weights are zero. `hack/tinymodel.py` makes the one that also talks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_NORMS = {
    "llama": ("attn_norm", "ffn_norm"),
    "deci": ("attn_norm", "ffn_norm"),
    "cohere2": ("attn_norm",),
    "gemma2": ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"),
    "gemma3": ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"),
    "deepseek2": ("attn_norm", "ffn_norm"),
}


@dataclass(frozen=True)
class Shape:
    """One model. `extra` are further keys of the architecture (whole numbers or lists of bools)."""

    architecture: str = "llama"
    layers: int = 2
    heads: int = 4
    kv_heads: int | Sequence[int] = 2
    embedding: int = 64
    feed_forward: int = 128
    head_size: int = 16
    value_size: int | None = None
    context: int = 2048
    tokens: int = 300
    tied: bool = False
    dtype: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32
    extra: Mapping[str, Any] = field(default_factory=dict)


def write(path: Path, shape: Shape, *, big_endian: bool = False, weights: bool = True) -> Path:
    """Write the model to `path`; without weights only its header."""
    order = gguf.GGUFEndian.BIG if big_endian else gguf.GGUFEndian.LITTLE
    writer = gguf.GGUFWriter(str(path), shape.architecture, endianess=order)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.value_size or shape.head_size)
    if "rope.dimension_count" not in shape.extra:
        writer.add_rope_dimension_count(shape.head_size)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_layer_norm_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for key, value in shape.extra.items():
        name = f"{shape.architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)
    _vocabulary(writer, shape)
    _tensors(writer, shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    if weights:
        writer.write_tensors_to_file()
    else:
        writer.write_ti_data_to_file()
    writer.close()
    return path


def _vocabulary(writer: gguf.GGUFWriter, shape: Shape) -> None:
    special = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    tokens = special + [f"t{number}".encode() for number in range(shape.tokens - len(special))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - len(special))
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def _tensors(writer: gguf.GGUFWriter, shape: Shape) -> None:
    def norm(name: str, size: int) -> None:
        writer.add_tensor(name, np.ones(size, dtype=np.float32))

    def tensor(name: str, *size: int) -> None:
        block, width = gguf.GGML_QUANT_SIZES[shape.dtype]
        if shape.dtype == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, np.zeros(size, dtype=np.float32))
            return
        raw = np.zeros((*size[:-1], size[-1] // block * width), dtype=np.uint8)
        writer.add_tensor(name, raw, raw_dtype=shape.dtype)

    embedding = shape.embedding
    tensor("token_embd.weight", shape.tokens, embedding)
    norm("output_norm.weight", embedding)
    if not shape.tied:
        tensor("output.weight", shape.tokens, embedding)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        for name in _NORMS[shape.architecture]:
            norm(f"{block}{name}.weight", embedding)
        if shape.architecture == "deepseek2":
            _latent(tensor, norm, block, shape)
        else:
            kv_heads = shape.kv_heads if isinstance(shape.kv_heads, int) else shape.kv_heads[layer]
            value_size = shape.value_size or shape.head_size
            tensor(block + "attn_q.weight", shape.heads * shape.head_size, embedding)
            tensor(block + "attn_k.weight", kv_heads * shape.head_size, embedding)
            tensor(block + "attn_v.weight", kv_heads * value_size, embedding)
            tensor(block + "attn_output.weight", embedding, shape.heads * value_size)
        if shape.architecture == "gemma3":
            norm(block + "attn_q_norm.weight", shape.head_size)
            norm(block + "attn_k_norm.weight", shape.head_size)
        tensor(block + "ffn_gate.weight", shape.feed_forward, embedding)
        tensor(block + "ffn_up.weight", shape.feed_forward, embedding)
        tensor(block + "ffn_down.weight", embedding, shape.feed_forward)


def _latent(tensor: Any, norm: Any, block: str, shape: Shape) -> None:
    """Multi-head latent attention as DeepSeek-V2 has it."""
    rank, rope = shape.extra["attention.kv_lora_rank"], shape.extra["rope.dimension_count"]
    keys, values = shape.extra["attention.key_length_mla"], shape.extra["attention.value_length_mla"]
    query = shape.extra["attention.q_lora_rank"]
    tensor(block + "attn_q_a.weight", query, shape.embedding)
    norm(block + "attn_q_a_norm.weight", query)
    tensor(block + "attn_q_b.weight", shape.heads * keys, query)
    tensor(block + "attn_kv_a_mqa.weight", rank + rope, shape.embedding)
    norm(block + "attn_kv_a_norm.weight", rank)
    tensor(block + "attn_k_b.weight", shape.heads, rank, keys - rope)
    tensor(block + "attn_v_b.weight", shape.heads, values, rank)
    tensor(block + "attn_output.weight", shape.embedding, shape.heads * values)
