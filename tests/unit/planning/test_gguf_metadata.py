"""Headers of GGUF files: read from any prefix, in either byte order, and harmless whatever they claim."""

import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.gguf_figures import FILE_TYPES, figures_from_gguf
from berth.planning.gguf_metadata import BLOCKS, GgufHeader, read_gguf
from berth.planning.model_figures import AttentionLayer, NeedMore, Subject, UnreadableModelError, WeightsFormat
from support.gguf_models import Shape, write


def header_bytes(folder: Path, shape: Shape, **how: bool) -> bytes:
    return write(folder / "model.gguf", shape, weights=False, **how).read_bytes()


def read(data: bytes) -> GgufHeader:
    found = read_gguf(data)
    assert isinstance(found, GgufHeader)
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return header_bytes(tmp_path_factory.mktemp("plain"), Shape(layers=3, kv_heads=2, head_size=32))


def test_block_sizes_are_those_of_gguf_py() -> None:
    sizes = gguf.GGML_QUANT_SIZES.items()
    assert dict(BLOCKS) == {int(kind): (kind.name, *size) for kind, size in sizes}


def test_file_types_are_those_of_gguf_py() -> None:
    named = {int(kind): kind.name.removeprefix("ALL_").removeprefix("MOSTLY_") for kind in gguf.LlamaFileType}
    named.pop(int(gguf.LlamaFileType.GUESSED))
    assert dict(FILE_TYPES) == named


def test_figures_of_a_plain_model(plain: bytes) -> None:
    figures = figures_from_gguf([read(plain)])
    assert (figures.format, figures.architecture, figures.quantization) == (WeightsFormat.GGUF, "llama", "F32")
    assert figures.attention == (AttentionLayer(kv_heads=2, key_size=32, value_size=32),) * 3
    assert (figures.layers, figures.heads, figures.kv_heads) == (3, 4, (2, 2, 2))
    assert (figures.context_length, figures.embedding_length, figures.feed_forward_length) == (2048, 64, 128)
    assert figures.unknowns == ()


def test_weights_are_what_gguf_py_counts(tmp_path: Path) -> None:
    shape = Shape(embedding=256, head_size=64, feed_forward=512, dtype=gguf.GGMLQuantizationType.Q8_0)
    path = write(tmp_path / "q8.gguf", shape)
    tensors = gguf.GGUFReader(path).tensors
    figures = figures_from_gguf([read(path.read_bytes())])
    assert figures.weight_bytes == sum(tensor.n_bytes for tensor in tensors)
    assert figures.parameters == sum(tensor.n_elements for tensor in tensors)
    assert {one.dtype for one in figures.weights} == {"F32", "Q8_0"}
    sizes = {tensor.name: tensor.n_bytes for tensor in tensors}
    assert (figures.input_bytes, figures.output_bytes) == (sizes["token_embd.weight"], sizes["output.weight"])


def test_either_byte_order_and_both_versions(plain: bytes, tmp_path: Path) -> None:
    big = read(header_bytes(tmp_path, Shape(layers=3, kv_heads=2, head_size=32), big_endian=True))
    assert big == read(plain)
    assert replace(read(plain[:4] + b"\x02" + plain[5:]), version=3) == read(plain)


def test_version_1_and_other_files_are_refused(plain: bytes) -> None:
    with pytest.raises(UnreadableModelError, match="version 1 is not supported"):
        read_gguf(plain[:4] + b"\x01" + plain[5:])
    with pytest.raises(UnreadableModelError, match="no GGUF file"):
        read_gguf(b"PK\x03\x04" + plain[4:])


def test_a_prefix_says_how_much_more_it_needs(plain: bytes) -> None:
    size, steps = 0, 0
    while isinstance(found := read_gguf(plain[:size]), NeedMore):
        assert size < found.size <= len(plain)
        size, steps = found.size, steps + 1
    assert found == read(plain)
    assert steps < 100
    assert found.size == size


def test_a_list_of_heads_and_a_pattern_of_windows(tmp_path: Path) -> None:
    shape = Shape("deci", layers=3, kv_heads=[4, 2, 1])
    assert figures_from_gguf([read(header_bytes(tmp_path, shape))]).kv_heads == (4, 2, 1)
    extra = {"attention.sliding_window": 512, "attention.sliding_window_pattern": [True, False, True]}
    figures = figures_from_gguf([read(header_bytes(tmp_path, Shape("gemma3", layers=3, extra=extra)))])
    assert figures.attention is not None
    assert [layer.window for layer in figures.attention] == [512, None, 512]


@pytest.mark.parametrize(
    ("architecture", "windows"), [("gpt-oss", [128, None] * 2), ("gptoss", [128, None] * 2), ("phi3", [None] * 4)]
)
def test_windows_that_llama_cpp_knows_by_the_architecture(architecture: str, windows: list[int | None]) -> None:
    own = {"block_count": 4, "attention.head_count": 4, "embedding_length": 64, "attention.sliding_window": 128}
    values = {"general.architecture": architecture, **{f"{architecture}.{key}": value for key, value in own.items()}}
    figures = figures_from_gguf([GgufHeader(3, values, False, 0, (), (), 0, None, 0)])
    assert figures.attention is not None
    assert [layer.window for layer in figures.attention] == windows


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"mystery.attention.sliding_window": 512}, "which layers use the sliding window"),
        ({"mystery.full_attention_interval": 4}, "keep a state"),
        ({"mystery.attention.indexer.key_length": 128}, "index of keys"),
        ({"mystery.block_count": 0}, "block_count is missing"),
        ({"mystery.attention.head_count_kv": (1,)}, "makes no sense"),
    ],
)
def test_what_has_no_rule_is_named(values: dict[str, int], why: str) -> None:
    usual = {"general.architecture": "mystery", "mystery.block_count": 2, "mystery.attention.head_count": 4}
    header = GgufHeader(3, {**usual, "mystery.embedding_length": 64, **values}, False, 0, (), (), 0, None, 0)
    figures = figures_from_gguf([header])
    assert figures.attention is None
    assert any(why in text for text in figures.why_unknown(Subject.CACHE))
    assert figures_from_gguf([replace(header, recurrent=True)]).attention is None


def test_latent_attention_and_layers_for_drafts(tmp_path: Path) -> None:
    extra = {"attention.kv_lora_rank": 512, "attention.key_length_mla": 192, "attention.value_length_mla": 128}
    values = {f"deepseek2.{key}": value for key, value in extra.items()}
    usual = {
        "general.architecture": "deepseek2",
        "deepseek2.block_count": 62,
        "deepseek2.nextn_predict_layers": 1,
        "deepseek2.attention.head_count": 128,
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 576,
        "deepseek2.attention.value_length": 512,
    }
    figures = figures_from_gguf([GgufHeader(3, {**usual, **values}, False, 0, (), (), 0, None, 0)])
    assert figures.attention == (AttentionLayer(1, 576, 0, latent=True),) * 61


def test_a_missing_part_leaves_the_weights_unknown(plain: bytes) -> None:
    header = read(plain)
    split = replace(header, values={**header.values, "split.count": 2})
    assert figures_from_gguf([split]).weight_bytes is None
    assert figures_from_gguf([split, replace(header, values={})]).weight_bytes == 2 * sum(
        one.bytes for one in header.weights
    )
    with pytest.raises(UnreadableModelError, match="first part"):
        figures_from_gguf([replace(header, values={})])


def test_a_type_of_tomorrow_leaves_the_weights_unknown(plain: bytes) -> None:
    figures = figures_from_gguf([replace(read(plain), unknown_types=(99,))])
    assert figures.weight_bytes is None
    assert "99" in figures.why_unknown(Subject.WEIGHTS)[0]


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _start(tensors: int, entries: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries)


@pytest.mark.parametrize(
    "data",
    [
        _start(2**60, 1),
        _start(1, 2**60),
        _start(0, 1) + struct.pack("<Q", 2**60),
        _start(0, 1) + _string(b"k") + struct.pack("<IQ", 8, 2**62),
        _start(0, 1) + _string(b"k") + struct.pack("<IIQ", 9, 8, 2**40),
        _start(0, 1) + _string(b"k") + struct.pack("<IIQ", 9, 4, 2**61),
        _start(0, 1) + _string(b"k") + struct.pack("<IIQ", 9, 9, 1) + bytes(20),
        _start(0, 1) + _string(b"k") + struct.pack("<I", 77) + bytes(20),
        _start(1, 0) + _string(b"t") + struct.pack("<I", 2**31) + bytes(80),
        _start(1, 0) + _string(b"t") + struct.pack("<IQQIQ", 2, 2**62, 2**62, 0, 0),
        _start(1, 0) + _string(b"t") + struct.pack("<IQIQ", 1, 33, 2, 0),
        _start(0, 1) + _string(b"\xff") + bytes(20),
    ],
)
def test_hostile_claims_are_refused_at_once(data: bytes) -> None:
    with pytest.raises(UnreadableModelError):
        read_gguf(data + bytes(64))


def test_a_vocabulary_is_not_taken_out() -> None:
    tokens = b"".join(_string(b"token%d" % number) for number in range(100_000))
    merges = struct.pack("<IIQ", 9, 4, 200_000) + bytes(800_000)
    data = _start(0, 3) + _string(b"general.architecture") + struct.pack("<I", 8) + _string(b"llama")
    data += _string(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 100_000) + tokens
    data += _string(b"tokenizer.ggml.token_type") + merges
    tracemalloc.start()
    header = read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert set(header.values) == {"general.architecture"}
    assert peak < 256 * 1024


def test_many_lists_are_not_taken_out() -> None:
    data = _start(0, 400) + b"".join(
        _string(b"a.%d" % number) + struct.pack("<IIQ", 9, 0, 4096) + bytes([200]) * 4096 for number in range(400)
    )
    tracemalloc.start()
    header = read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(header.values) == 4
    assert peak < 2**20


@given(data=st.data())
def test_damaged_headers_raise_nothing_else_and_stay_small(plain: bytes, data: st.DataObject) -> None:
    damaged = bytearray(plain)
    for _ in range(data.draw(st.integers(1, 8))):
        # Most of the file is vocabulary: what matters is at the beginning and after it.
        place = data.draw(st.one_of(st.integers(0, 800), st.integers(0, len(plain) - 1)))
        damaged[place] = data.draw(st.integers(0, 255))
    prefix = bytes(damaged[: data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))])
    tracemalloc.start()
    try:
        found = read_gguf(prefix)
        if isinstance(found, GgufHeader):
            figures_from_gguf([found])
        else:
            assert found.size > len(prefix)
    except UnreadableModelError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * 2**20


@given(data=st.binary(max_size=400), entries=st.integers(0, 4), tensors=st.integers(0, 4))
def test_nonsense_after_the_magic_raises_nothing_else(data: bytes, entries: int, tensors: int) -> None:
    try:
        found = read_gguf(_start(tensors, entries) + data)
        if isinstance(found, GgufHeader):
            figures_from_gguf([found])
    except UnreadableModelError:
        pass
