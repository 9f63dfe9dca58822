"""Figures of a model as a document, for manifests, messages and status, and back.

Layers in a row that keep the same for each token are one entry. What is marked as informative below follows from the
rest and is not read back.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, TypeVar

from berth.planning.model_figures import (
    MAX_LAYERS,
    AttentionLayer,
    ModelFigures,
    Subject,
    TypedWeights,
    Unknown,
    WeightsFormat,
)

T = TypeVar("T")

_MAX_TYPES = 64
_MAX_RUNS = 1024
_MAX_UNKNOWNS = 16
_TOO_LARGE = 2**63
"""The status of a ModelCache holds numbers of 64 bits, and no longer lists than these."""
_LONGEST = 1024


def to_document(figures: ModelFigures) -> dict[str, Any]:
    """The figures under the names of `figures` in the status of a ModelCache; what is not known is left out."""
    first = figures.attention[0] if figures.attention else None
    document: dict[str, Any] = {
        "format": str(figures.format),
        "architecture": figures.architecture,
        "quantization": figures.quantization,
        "parameters": _held(figures.parameters),  # informative, like the next two
        "weightBytes": _held(figures.weight_bytes),
        "dtype": max(figures.weights, key=lambda one: one.bytes).dtype if figures.weights else None,
        "weights": [{"dtype": one.dtype, "parameters": one.parameters, "bytes": one.bytes} for one in figures.weights],
        "layers": figures.layers,
        "heads": figures.heads,
        "kvHeads": first and first.kv_heads,  # informative, like the next
        "headSize": first and first.key_size,
        "attention": None if figures.attention is None else [_run(*run) for run in _runs(figures.attention)],
        "embeddingLength": figures.embedding_length,
        "feedForwardLength": figures.feed_forward_length,
        "contextLength": figures.context_length,
        "slidingWindow": figures.sliding_window,
        "inputBytes": figures.input_bytes,
        "outputBytes": figures.output_bytes,
        "unknowns": [{"what": str(one.what), "why": one.why} for one in figures.unknowns] or None,
    }
    return {name: value for name, value in document.items() if value is not None}


def from_document(document: Any) -> ModelFigures | None:
    """The figures of a document; None when it is not one, whoever wrote it."""
    try:
        return _read(document)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _held(total: int | None) -> int | None:
    return total if total is not None and total < _TOO_LARGE else None


def _runs(attention: Sequence[AttentionLayer]) -> list[tuple[AttentionLayer, int]]:
    return [(layer, sum(1 for _ in run)) for layer, run in groupby(attention)]


def _run(layer: AttentionLayer, count: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "layers": count,
        "kvHeads": layer.kv_heads,
        "keySize": layer.key_size,
        "valueSize": layer.value_size,
    }
    if layer.window is not None:
        entry["window"] = layer.window
    if layer.latent:
        entry["latent"] = True
    return entry


def _read(document: Any) -> ModelFigures:
    unknowns = _list(document.get("unknowns"), _MAX_UNKNOWNS)
    return ModelFigures(
        format=WeightsFormat(document["format"]),
        architecture=_text(document, "architecture"),
        weights=tuple(
            TypedWeights(_known(_text(one, "dtype")), _known(_number(one, "parameters")), _known(_number(one, "bytes")))
            for one in _list(document.get("weights"), _MAX_TYPES)
        ),
        layers=_number(document, "layers"),
        heads=_number(document, "heads"),
        attention=_attention(document),
        embedding_length=_number(document, "embeddingLength"),
        feed_forward_length=_number(document, "feedForwardLength"),
        context_length=_number(document, "contextLength"),
        sliding_window=_number(document, "slidingWindow"),
        quantization=_text(document, "quantization"),
        input_bytes=_number(document, "inputBytes") or 0,
        output_bytes=_number(document, "outputBytes"),
        unknowns=tuple(Unknown(Subject(one["what"]), _known(_text(one, "why"))) for one in unknowns),
    )


def _attention(document: Mapping[str, Any]) -> tuple[AttentionLayer, ...] | None:
    if document.get("attention") is None:
        return None
    layers: list[AttentionLayer] = []
    for entry in _list(document["attention"], _MAX_RUNS):
        layer = AttentionLayer(
            _known(_number(entry, "kvHeads")),
            _known(_number(entry, "keySize")),
            _known(_number(entry, "valueSize")),
            _number(entry, "window"),
            entry.get("latent") is True,
        )
        count = _known(_number(entry, "layers"))
        if len(layers) + count > MAX_LAYERS:
            raise ValueError("too many layers")
        layers += [layer] * count
    return tuple(layers)


def _list(value: Any, longest: int) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > longest:
        raise ValueError("no list, or a long one")
    return value


def _number(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    if value is not None and (type(value) is not int or not 0 <= value < _TOO_LARGE):
        raise ValueError(f"{name} is no whole number")
    return value


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > _LONGEST):
        raise ValueError(f"{name} is no short text")
    return value


def _known(value: T | None) -> T:
    if value is None:
        raise ValueError("a value is missing")
    return value
