"""Figures as a document, and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.figures_document import from_document, to_document
from berth.planning.model_figures import (
    AttentionLayer,
    ModelFigures,
    Subject,
    TypedWeights,
    Unknown,
    WeightsFormat,
)

NUMBERS = st.integers(0, 2**63 - 1)
NAMES = st.text(max_size=40)
LAYER = st.builds(
    AttentionLayer, st.integers(0, 8), st.integers(0, 256), st.integers(0, 256), st.none() | st.just(512), st.booleans()
)
FIGURES = st.builds(
    ModelFigures,
    format=st.sampled_from(WeightsFormat),
    architecture=st.none() | NAMES,
    weights=st.lists(st.builds(TypedWeights, NAMES, NUMBERS, NUMBERS), max_size=5).map(tuple),
    layers=st.none() | NUMBERS,
    heads=st.none() | NUMBERS,
    attention=st.none() | st.lists(LAYER, max_size=12).map(tuple),
    embedding_length=st.none() | NUMBERS,
    feed_forward_length=st.none() | NUMBERS,
    context_length=st.none() | NUMBERS,
    sliding_window=st.none() | NUMBERS,
    quantization=st.none() | NAMES,
    input_bytes=NUMBERS,
    output_bytes=st.none() | NUMBERS,
    unknowns=st.lists(st.builds(Unknown, st.sampled_from(Subject), NAMES), max_size=3).map(tuple),
)
GEMMA = ModelFigures(
    WeightsFormat.GGUF,
    "gemma3",
    (TypedWeights("Q4_K", 900, 500), TypedWeights("F32", 10, 40)),
    layers=7,
    heads=8,
    attention=(
        *[AttentionLayer(4, 256, 128, 1024)] * 5,
        AttentionLayer(4, 256, 128),
        AttentionLayer(1, 576, 0, latent=True),
    ),
    context_length=131072,
    quantization="Q4_K_M",
    input_bytes=7,
)


def test_names_are_those_of_the_status() -> None:
    assert to_document(GEMMA) == {
        "format": "gguf",
        "architecture": "gemma3",
        "quantization": "Q4_K_M",
        "parameters": 910,
        "weightBytes": 540,
        "dtype": "Q4_K",
        "weights": [
            {"dtype": "Q4_K", "parameters": 900, "bytes": 500},
            {"dtype": "F32", "parameters": 10, "bytes": 40},
        ],
        "layers": 7,
        "heads": 8,
        "kvHeads": 4,
        "headSize": 256,
        "attention": [
            {"layers": 5, "kvHeads": 4, "keySize": 256, "valueSize": 128, "window": 1024},
            {"layers": 1, "kvHeads": 4, "keySize": 256, "valueSize": 128},
            {"layers": 1, "kvHeads": 1, "keySize": 576, "valueSize": 0, "latent": True},
        ],
        "contextLength": 131072,
        "inputBytes": 7,
    }


def test_an_encoder_keeps_nothing_and_that_is_not_unknown() -> None:
    encoder = ModelFigures(WeightsFormat.SAFETENSORS, "BertModel", (), attention=())
    assert to_document(encoder)["attention"] == []
    assert from_document(to_document(encoder)) == encoder


def test_sums_that_no_status_could_hold_are_left_out() -> None:
    vast = ModelFigures(WeightsFormat.GGUF, "x", (TypedWeights("F32", 2**62, 2**62),) * 2)
    assert {"parameters", "weightBytes"}.isdisjoint(to_document(vast))


@given(FIGURES)
def test_what_is_written_is_read_back(figures: ModelFigures) -> None:
    document = json.loads(json.dumps(to_document(figures)))
    assert from_document(document) == figures


NONSENSE: list[Any] = [
    None,
    [],
    "gguf",
    {},
    {"format": "pickle"},
    {"format": "gguf", "layers": "many"},
    {"format": "gguf", "layers": True},
    {"format": "gguf", "layers": -1},
    {"format": "gguf", "architecture": 7},
    {"format": "gguf", "weights": [{"dtype": "F32"}]},
    {"format": "gguf", "weights": {"dtype": "F32"}},
    {"format": "gguf", "attention": [{"layers": 1}]},
    {"format": "gguf", "layers": 1 << 63},
    {"format": "gguf", "attention": [{"layers": 1, "kvHeads": 1, "keySize": 1, "valueSize": 1}] * 1025},
    {"format": "gguf", "attention": [{"layers": 1 << 40, "kvHeads": 1, "keySize": 1, "valueSize": 1}]},
    {"format": "gguf", "unknowns": [{"what": "everything", "why": "?"}]},
    {"format": "gguf", "unknowns": [{"what": "cache"}]},
    {"format": "gguf", "unknowns": ["cache"]},
]


@pytest.mark.parametrize("document", NONSENSE, ids=str)
def test_nonsense_is_no_figures(document: Any) -> None:
    assert from_document(document) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*to_document(GEMMA), "unknowns"]), JSON))
def test_nothing_that_json_can_say_raises(document: dict[str, Any]) -> None:
    from_document({**to_document(GEMMA), **document})
