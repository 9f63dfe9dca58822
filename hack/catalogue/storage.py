"""How many bytes the tensors of a model take, as they lie in files of one kind.

Safetensors: the formats that transformers, compressed-tensors, AutoAWQ and gpt-oss publish. GGUF: what llama-quantize
does without further wishes (llama.cpp, src/llama-quant.cpp: llama_tensor_get_type_impl and tensor_type_fallback). Who
quantizes by another recipe gets files that are a few percent larger or smaller.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from berth.planning.gguf_metadata import BLOCKS
from berth.planning.model_figures import TypedWeights
from catalogue.entries import Weights
from catalogue.tensors import Role, Tensor

GGUF = frozenset({Weights.Q8_0, Weights.Q4_K_M, Weights.MXFP4_MOE})
"""Kinds that only GGUF files have."""

_PLAIN = {Weights.F32: "F32", Weights.F16: "F16", Weights.BF16: "BF16"}
_BLOCKS = {name: (block, width) for name, block, width in BLOCKS.values()}
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""For matrices whose rows cannot be divided into blocks of 256."""
_NEVER = frozenset({Role.VECTOR, Role.POSITION, Role.ROUTER})
"""What no quantization touches."""
_ENDS = frozenset({Role.EMBEDDING, Role.OUTPUT})
_FP8_BLOCK = 128
_AWQ_GROUP = 128


@dataclass(frozen=True, slots=True)
class Stored:
    """The sums of one model."""

    weights: tuple[TypedWeights, ...]
    input_bytes: int
    output_bytes: int | None
    """None: the token embeddings are the output matrix too."""

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(one.bytes for one in self.weights)


def stored(parts: Iterable[Tensor], kind: Weights, *, gguf: bool, further: int = 0) -> Stored:
    """The sums of these tensors and of `further` parameters that no quantization touches (a vision tower)."""
    found = list(parts)
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    ends: Mapping[Role, int] = defaultdict(int)
    tied = not any(one.role is Role.OUTPUT for one in found)
    layers = 1 + max(one.layer for one in found)
    for one in found:
        dtype, size = _gguf(one, kind, tied, layers) if gguf else _safetensors(one, kind)
        sums[dtype][0] += one.elements
        sums[dtype][1] += size
        if one.role in _ENDS:
            ends[one.role] += size  # type: ignore[index]
    if further:
        dtype = "F16" if gguf else _PLAIN.get(kind, "BF16")
        sums[dtype][0] += further
        sums[dtype][1] += further * (4 if dtype == "F32" else 2)
    weights = tuple(TypedWeights(dtype, *both) for dtype, both in sums.items())
    return Stored(weights, ends[Role.EMBEDDING], None if tied else ends[Role.OUTPUT])


def _safetensors(one: Tensor, kind: Weights) -> tuple[str, int]:
    if kind in _PLAIN:
        return _PLAIN[kind], one.elements * (4 if kind is Weights.F32 else 2)
    plain = ("F16" if kind is Weights.AWQ else "BF16", one.elements * 2)
    if one.role in _NEVER or one.role in _ENDS:
        return plain
    if kind is Weights.MXFP4:
        return ("U8", one.elements // 2 + one.elements // 32) if one.experts > 1 else plain
    if kind is Weights.FP8_CHANNEL:
        return "F8_E4M3", one.elements + 2 * one.rows * one.experts
    if kind is Weights.FP8_BLOCK:
        scales = -(-one.columns // _FP8_BLOCK) * -(-one.rows // _FP8_BLOCK) * one.experts
        return "F8_E4M3", one.elements + 4 * scales
    if kind is Weights.AWQ:
        groups = one.elements // _AWQ_GROUP
        return "I32", one.elements // 2 + 2 * groups + groups // 2
    raise ValueError(f"{kind} is a kind of GGUF files")


def _gguf(one: Tensor, kind: Weights, tied: bool, layers: int) -> tuple[str, int]:
    dtype = _gguf_type(one, kind, tied, layers)
    if one.columns % _BLOCKS[dtype][0]:
        dtype = _FALLBACK.get(dtype, "F16")
        dtype = dtype if one.columns % _BLOCKS[dtype][0] == 0 else "F16"
    block, width = _BLOCKS[dtype]
    return dtype, -(-one.columns // block) * width * one.rows * one.experts


def _gguf_type(one: Tensor, kind: Weights, tied: bool, layers: int) -> str:
    if one.role in _NEVER:
        return "F32"
    if kind in _PLAIN or kind is Weights.Q8_0:
        return str(kind)
    if kind is Weights.MXFP4_MOE:
        return "MXFP4" if one.experts > 1 else "Q8_0"
    if kind is not Weights.Q4_K_M:
        raise ValueError(f"{kind} is no kind of GGUF files")
    if one.role is Role.OUTPUT or (tied and one.role is Role.EMBEDDING):
        return "Q8_0" if one.columns % 256 else "Q6_K"
    if one.role is Role.QUERY_KEY_VALUE:
        return "Q5_K"
    if one.role in (Role.VALUE, Role.DOWN) and _more_bits(one.layer, layers):
        return "Q6_K"
    return "Q5_K" if one.role is Role.VALUE and layers == 80 else "Q4_K"  # the 70B models have 80 layers


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth, and every third layer between them."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
