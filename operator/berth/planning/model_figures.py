"""What a model's own files say about it: the figures from which memory is estimated and backends are chosen.

GGUF headers and safetensors headers with config.json end in the same dataclass. What the files leave open is
named as unknown: nobody guesses further down.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

MAX_LAYERS = 4096
"""No real model comes near it, and a list with one entry per layer stays small."""


class UnreadableModelError(ValueError):
    """Files that are not what their format says. The message is one sentence for a person."""


class WeightsFormat(StrEnum):
    """How weights lie on disk."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"


class Subject(StrEnum):
    """What about a model can be unknown."""

    WEIGHTS = "weights"
    CACHE = "cache"
    CONTEXT = "context"
    PARAMETERS = "parameters"


@dataclass(frozen=True, slots=True)
class Unknown:
    """One thing that the files leave open, and why."""

    what: Subject
    why: str


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The prefix ends inside the header; at least this many bytes from the start of the file are needed."""

    size: int


@dataclass(frozen=True, slots=True)
class TypedWeights:
    """The tensors of one type together."""

    dtype: str
    parameters: int
    bytes: int


@dataclass(frozen=True, slots=True)
class AttentionLayer:
    """What one layer keeps for each token."""

    kv_heads: int
    key_size: int
    value_size: int
    window: int | None = None
    """Tokens that a sliding layer looks back; None for all of them."""
    latent: bool = False
    """Multi-head latent attention: one compressed vector for all heads, from which values are computed too."""


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model. None and `unknowns` say what could not be read."""

    format: WeightsFormat
    architecture: str | None
    weights: tuple[TypedWeights, ...]
    """By type, as stored; together they are the size of the weights unless WEIGHTS is unknown."""
    layers: int | None = None
    heads: int | None = None
    attention: tuple[AttentionLayer, ...] | None = None
    """One entry for each layer that keeps keys and values; empty for encoders; None when there is no rule."""
    embedding_length: int | None = None
    feed_forward_length: int | None = None
    context_length: int | None = None
    sliding_window: int | None = None
    quantization: str | None = None
    """GGUF: the file type (Q4_K_M, BF16); safetensors: quantization_config.quant_method; None: none."""
    input_bytes: int = 0
    """Size of the token embeddings, as stored."""
    output_bytes: int | None = None
    """Size of the output matrix; None when the token embeddings serve as it."""
    unknowns: tuple[Unknown, ...] = ()

    @property
    def parameters(self) -> int | None:
        """How many parameters the model has; None when they are packed several to an element."""
        if self.why_unknown(Subject.PARAMETERS, Subject.WEIGHTS):
            return None
        return sum(one.parameters for one in self.weights)

    @property
    def weight_bytes(self) -> int | None:
        """What all tensors take, as stored."""
        return None if self.why_unknown(Subject.WEIGHTS) else sum(one.bytes for one in self.weights)

    @property
    def kv_heads(self) -> tuple[int, ...] | None:
        """Heads that keys and values have, for each layer that keeps them."""
        return None if self.attention is None else tuple(layer.kv_heads for layer in self.attention)

    def why_unknown(self, *subjects: Subject) -> tuple[str, ...]:
        """Why these are not known; empty when they are."""
        return tuple(unknown.why for unknown in self.unknowns if unknown.what in subjects)


def sum_by_type(parts: Iterable[TypedWeights]) -> tuple[TypedWeights, ...]:
    """Weights of several files as one list, largest type first."""
    sums: dict[str, TypedWeights] = {}
    for part in parts:
        so_far = sums.get(part.dtype, TypedWeights(part.dtype, 0, 0))
        sums[part.dtype] = TypedWeights(part.dtype, so_far.parameters + part.parameters, so_far.bytes + part.bytes)
    return tuple(sorted(sums.values(), key=lambda one: (-one.bytes, one.dtype)))


def whole_number(values: Mapping[str, object], *names: str, at_most: int = 2**40) -> int | None:
    """The first of these keys that has a sensible positive whole number."""
    for name in names:
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= at_most:
            return value
    return None
