"""Reads the header of a GGUF file from the first bytes of it: figures without the weights and without a vocabulary.

The format: ggml/docs/gguf.md of ggml-org/ggml; versions 2 and 3 differ in nothing that is read here. Block sizes:
ggml/src/ggml-common.h, as gguf-py lists them (constants.py: GGML_QUANT_SIZES); a test compares both.
Headers come from strangers, so whatever they claim costs nothing before it is there: counts are checked against
limits, strings and arrays that nobody asked for are stepped over, and the vocabulary is never taken out.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from berth.planning.model_figures import NeedMore, TypedWeights, UnreadableModelError

MAX_HEADER = 64 * 2**20
"""A vocabulary of 260,000 tokens with its merges takes 15 MiB."""
_MAX_ENTRIES = 100_000
_MAX_TENSORS = 200_000
_MAX_STRINGS = 4_000_000
"""Strings in arrays, all together: stepping over one takes a tenth of a microsecond."""
_MAX_NAME = 1024
_MAX_KEPT = 512
_MAX_KEPT_ARRAY = 4096
_MAX_KEPT_NUMBERS = 20_000
"""Numbers in arrays that are kept, all together: a few lists with one for each layer."""

BLOCKS: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Type of a tensor: name, elements in a block, bytes of a block."""

_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "B", 10: "Q", 11: "q", 12: "d"}
_WHOLE = frozenset({0, 1, 2, 3, 4, 5, _BOOL, 10, 11})
_KEPT_STRINGS = frozenset({"general.architecture", "general.type"})
_RECURRENT = ("ssm.", "wkv.", "shortconv.", "kda.")

Value = int | bool | str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """One file: what its keys say, and its tensors summed up by type."""

    version: int
    values: Mapping[str, Value]
    """Whole numbers, short lists of them and a few names, by key."""
    recurrent: bool
    """Whether a key speaks of a state that is not a cache of keys and values."""
    tensors: int
    weights: tuple[TypedWeights, ...]
    unknown_types: tuple[int, ...]
    """Types of tensors whose size is not known, at most ten."""
    input_bytes: int
    output_bytes: int | None
    size: int
    """Bytes from the start of the file to the end of the list of tensors."""


def read_gguf(prefix: bytes | bytearray | memoryview) -> GgufHeader | NeedMore:
    """The header, or how many bytes of the file are needed at least. Raises UnreadableModelError."""
    try:
        return _read(_Reader(memoryview(prefix)))
    except _ShortError as short:
        return NeedMore(short.size)


class _ShortError(Exception):
    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class _Reader:
    """A place in the prefix, from which numbers and strings are taken."""

    def __init__(self, data: memoryview) -> None:
        self.data = data.cast("B")
        self.end = len(self.data)
        self.at = 0
        self.order = "<"
        self.strings = 0
        self.kept = 0

    def require(self, size: int) -> None:
        """Ends the reading when the prefix is shorter than that."""
        if size > MAX_HEADER:
            raise UnreadableModelError(f"the GGUF header claims more than {MAX_HEADER >> 20} MiB: the file is damaged")
        if size > self.end:
            raise _ShortError(size)

    def number(self, kind: str) -> int:
        form = struct.Struct(self.order + kind)
        self.require(self.at + form.size)
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return int(value) if kind not in "fd" else 0

    def skip(self, size: int) -> None:
        self.require(self.at + size)
        self.at += size

    def text(self, what: str) -> str:
        length = self.number("Q")
        if length > _MAX_NAME:
            raise UnreadableModelError(f"{what} in the GGUF header has {length} bytes: the file is damaged")
        start = self.at
        self.skip(length)
        try:
            return str(self.data[start : self.at], "utf-8")
        except UnicodeDecodeError as error:
            raise UnreadableModelError(f"{what} in the GGUF header is no UTF-8: the file is damaged") from error

    def skip_strings(self, count: int) -> None:
        """Step over an array of strings. Where it ends is only known once all lengths have been read."""
        self.strings += count
        if self.strings > _MAX_STRINGS:
            raise UnreadableModelError(f"the GGUF header has more than {_MAX_STRINGS} strings: the file is damaged")
        self.require(self.at + 8 * count)
        length, at, last = struct.Struct(self.order + "Q").unpack_from, self.at, self.end - 8
        for left in range(count, 0, -1):
            if at > last:
                self.require(at + 8 * left)
            at += 8 + length(self.data, at)[0]
        self.require(at)
        self.at = at


def _read(reader: _Reader) -> GgufHeader:
    version = _version(reader)
    tensors, entries = reader.number("Q"), reader.number("Q")
    if tensors > _MAX_TENSORS or entries > _MAX_ENTRIES:
        raise UnreadableModelError(f"the GGUF header claims {tensors} tensors and {entries} keys: the file is damaged")
    reader.require(reader.at + 13 * entries + 24 * tensors)  # the least that they can take
    values: dict[str, Value] = {}
    recurrent = False
    for _ in range(entries):
        key = reader.text("a key")
        value = _value(reader, key)
        recurrent = recurrent or key.partition(".")[2].startswith(_RECURRENT)
        if value is not None and len(values) < _MAX_KEPT:
            values[key] = value
    sums = _sum_tensors(reader, tensors)
    return GgufHeader(
        version=version,
        values=values,
        recurrent=recurrent,
        tensors=tensors,
        weights=tuple(TypedWeights(*one) for one in sums.by_type.values()),
        unknown_types=tuple(sorted(sums.unknown)),
        input_bytes=sums.named.get("token_embd.weight", 0),
        output_bytes=sums.named.get("output.weight"),
        size=reader.at,
    )


def _version(reader: _Reader) -> int:
    reader.require(8)
    if bytes(reader.data[:4]) != b"GGUF":
        raise UnreadableModelError("the file does not begin with GGUF: it is no GGUF file")
    reader.at = 4
    version = reader.number("I")
    if version & 0xFFFF == 0:  # llama.cpp tells files of the other byte order apart in the same way
        reader.at, reader.order = 4, ">"
        version = reader.number("I")
    if version not in (2, 3):
        raise UnreadableModelError(f"GGUF version {version} is not supported: convert the file to version 3")
    return version


def _value(reader: _Reader, key: str) -> Value | None:
    """The value that follows, or None when it is one to step over."""
    kind = reader.number("I")
    if kind == _STRING:
        if key in _KEPT_STRINGS:
            return reader.text(key)
        reader.skip(reader.number("Q"))
        return None
    if kind == _ARRAY:
        return _array(reader, key)
    form = _SCALARS.get(kind)
    if form is None:
        raise UnreadableModelError(f"the GGUF header has a value of type {kind}, which does not exist")
    number = reader.number(form)
    if kind not in _WHOLE:
        return None
    return bool(number) if kind == _BOOL else number


def _array(reader: _Reader, key: str) -> Value | None:
    kind, count = reader.number("I"), reader.number("Q")
    if kind == _STRING:
        reader.skip_strings(count)
        return None
    form = _SCALARS.get(kind)
    if form is None:
        raise UnreadableModelError(f"the GGUF header has an array of type {kind}, which is not supported")
    width = struct.calcsize("=" + form)
    start = reader.at
    reader.skip(width * count)
    if kind not in _WHOLE or count > _MAX_KEPT_ARRAY or key.startswith("tokenizer."):
        return None
    reader.kept += count
    if reader.kept > _MAX_KEPT_NUMBERS:
        return None
    return tuple(struct.unpack_from(f"{reader.order}{count}{form}", reader.data, start))


class _Sums:
    def __init__(self) -> None:
        self.by_type: dict[int, tuple[str, int, int]] = {}
        self.unknown: set[int] = set()
        self.named: dict[str, int] = {}


def _sum_tensors(reader: _Reader, count: int) -> _Sums:
    sums = _Sums()
    for left in range(count, 0, -1):
        reader.require(reader.at + 24 * left)
        name = reader.text("the name of a tensor")
        dimensions = reader.number("I")
        if not 0 <= dimensions <= 4:  # GGML_MAX_DIMS
            raise UnreadableModelError(f"a tensor of the GGUF file has {dimensions} dimensions: the file is damaged")
        shape = [reader.number("Q") for _ in range(dimensions)]
        kind = reader.number("I")
        reader.skip(8)  # where its data begins
        elements = 1
        for length in shape:
            elements *= length
        if elements >= 2**63:
            raise UnreadableModelError("a tensor of the GGUF file has more than 2^63 elements: the file is damaged")
        if kind not in BLOCKS:
            if len(sums.unknown) < 10:
                sums.unknown.add(kind)
            continue
        type_name, block, width = BLOCKS[kind]
        if (shape[0] if shape else 1) % block:
            raise UnreadableModelError(f"a row of a {type_name} tensor does not fill its blocks: the file is damaged")
        size = elements // block * width
        _, parameters, so_far = sums.by_type.get(kind, (type_name, 0, 0))
        sums.by_type[kind] = (type_name, parameters + elements, so_far + size)
        if name in ("token_embd.weight", "output.weight"):
            sums.named[name] = size
    return sums
