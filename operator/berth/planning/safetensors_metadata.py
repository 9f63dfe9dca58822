"""Reads what safetensors files hold from their headers: types and sizes of tensors, without the weights.

The format: github.com/huggingface/safetensors, README.md (Format) and safetensors/src/tensor.rs (Dtype). A header is
one JSON object of tensors, which may come from strangers: it is walked entry by entry, so that only one small entry is
ever taken apart, and nothing but sums is kept.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

from berth.planning.model_figures import NeedMore, TypedWeights, UnreadableModelError, sum_by_type

MAX_HEADER = 16 * 2**20
"""The format allows 100 MB; a file with 100,000 tensors needs 12 MiB."""
MAX_INDEX = 32 * 2**20
_MAX_ENTRY = 2048
_MAX_FILES = 4096

BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Type of a tensor: bits of one element."""

_INPUT_NAMES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight")
_OUTPUT_NAMES = ("lm_head.weight", "embed_out.weight")

_SPACE = rb"[ \t\r\n]*+"
_STRING = rb'"((?:[^"\\\x00-\x1f]|\\.)*+)"'
_KEY = re.compile(_SPACE + _STRING + _SPACE + b":" + _SPACE, re.DOTALL)
_STRING_ONLY = re.compile(_STRING, re.DOTALL)
_NEXT = re.compile(_SPACE + b"([,}])")
_OPEN = re.compile(_SPACE + rb"\{")
_SPACES = re.compile(_SPACE)
_SAFE_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./-]{0,254}\.safetensors")


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """One file, its tensors summed up by type."""

    tensors: int
    weights: tuple[TypedWeights, ...]
    unknown_types: tuple[str, ...]
    """Types whose element size is not known here, at most ten; their bytes are counted."""
    input_bytes: int
    output_bytes: int | None
    size: int
    """Bytes from the start of the file to the first weight."""
    data_bytes: int
    """Bytes of the weights: the file has `size + data_bytes`."""


@dataclass(frozen=True, slots=True)
class SafetensorsIndex:
    """`model.safetensors.index.json` of a model in several files."""

    files: tuple[str, ...]
    total_bytes: int | None


def read_safetensors(prefix: bytes) -> SafetensorsHeader | NeedMore:
    """The header, or how many bytes of the file are needed. Raises UnreadableModelError."""
    if len(prefix) < 8:
        return NeedMore(8)
    length = int.from_bytes(prefix[:8], "little")
    if length > MAX_HEADER:
        raise UnreadableModelError(
            f"the safetensors header claims {length} bytes: the file is damaged or no safetensors file"
        )
    if len(prefix) < 8 + length:
        return NeedMore(8 + length)
    return _Walk(prefix[: 8 + length]).header()  # not copied when it ends there


def read_index(content: bytes) -> SafetensorsIndex:
    """The files that an index names. Raises UnreadableModelError."""
    if len(content) > MAX_INDEX:
        raise UnreadableModelError(f"the index of safetensors files is larger than {MAX_INDEX >> 20} MiB")
    start = content.find(b'"weight_map"')
    opening = _OPEN.match(content, content.find(b":", start) + 1) if start >= 0 else None
    if opening is None:
        raise UnreadableModelError("the index of safetensors files has no weight_map")
    files: dict[str, None] = {}
    place = opening.end()
    while True:
        key = _KEY.match(content, place)
        value = _STRING_ONLY.match(content, key.end()) if key else None
        after = _NEXT.match(content, value.end()) if value else None
        if value is None or after is None:
            raise UnreadableModelError("the weight_map of the index of safetensors files is damaged")
        name = value[1][:256].decode("utf-8", "replace")
        if not _SAFE_NAME.fullmatch(name):
            raise UnreadableModelError(
                f"the index names a file that is no safetensors file of the model: {name[:80]!r}"
            )
        files[name] = None
        if len(files) > _MAX_FILES:
            raise UnreadableModelError(f"the index names more than {_MAX_FILES} files")
        if after[1] == b"}":
            break
        place = after.end()
    total = re.search(rb'"total_size"\s*+:\s*+(\d{1,18})(?!\d)', content)
    return SafetensorsIndex(tuple(files), int(total[1]) if total else None)


def combine(headers: Sequence[SafetensorsHeader]) -> SafetensorsHeader:
    """The files of one model as if they were one."""
    outputs = [one.output_bytes for one in headers if one.output_bytes is not None]
    return SafetensorsHeader(
        tensors=sum(one.tensors for one in headers),
        weights=sum_by_type(part for one in headers for part in one.weights),
        unknown_types=tuple(sorted({name for one in headers for name in one.unknown_types}))[:10],
        input_bytes=sum(one.input_bytes for one in headers),
        output_bytes=sum(outputs) if outputs else None,
        size=sum(one.size for one in headers),
        data_bytes=sum(one.data_bytes for one in headers),
    )


def _damaged(why: str) -> UnreadableModelError:
    return UnreadableModelError(f"the safetensors header is damaged: {why}")


class _Walk:
    """Goes through the JSON of one header, which begins at byte 8, entry by entry."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.tensors = self.data_bytes = self.input_bytes = 0
        self.output_bytes: int | None = None
        self.by_type: dict[str, tuple[int, int]] = {}
        self.unknown: set[str] = set()

    def header(self) -> SafetensorsHeader:
        opening = _OPEN.match(self.text, 8)
        if opening is None:
            raise _damaged("it does not begin with {")
        place = opening.end()
        empty = _NEXT.match(self.text, place)
        while empty is None:
            key = _KEY.match(self.text, place)
            if key is None:
                raise _damaged("a name is missing")
            step = self.skip_metadata if key[1] == b"__metadata__" else partial(self.tensor, key[1])
            place = step(key.end())
            after = _NEXT.match(self.text, place)
            if after is None:
                raise _damaged("an entry does not end")
            if after[1] == b"}":
                break
            place = after.end()
        return SafetensorsHeader(
            tensors=self.tensors,
            weights=sum_by_type(TypedWeights(name, *sums) for name, sums in self.by_type.items()),
            unknown_types=tuple(sorted(self.unknown)),
            input_bytes=self.input_bytes,
            output_bytes=self.output_bytes,
            size=len(self.text),
            data_bytes=self.data_bytes,
        )

    def skip_metadata(self, place: int) -> int:
        """Step over an object of strings."""
        opening = _OPEN.match(self.text, place)
        if opening is None:
            raise _damaged("__metadata__ is no object")
        place = opening.end()
        empty = _NEXT.match(self.text, place)
        if empty is not None and empty[1] == b"}":
            return empty.end()
        while True:
            key = _KEY.match(self.text, place)
            value = _STRING_ONLY.match(self.text, key.end()) if key else None
            after = _NEXT.match(self.text, value.end()) if value else None
            if after is None:
                raise _damaged("__metadata__ is no object of strings")
            place = after.end()
            if after[1] == b"}":
                return place

    def tensor(self, name: bytes, place: int) -> int:
        """Add one tensor to the sums; a tensor has no objects inside, so it ends at the first brace."""
        end = self.text.find(b"}", place, place + _MAX_ENTRY)
        if end < 0:
            raise _damaged("a tensor does not end")
        try:
            entry = json.loads(self.text[place : end + 1])
        except (ValueError, RecursionError) as error:
            raise _damaged("a tensor is no JSON") from error
        dtype, shape, begin, stop = _entry(entry)
        elements = 1
        for length in shape:
            elements *= length
        size = stop - begin
        if elements >= 2**63 or (dtype in BITS and elements * BITS[dtype] != size * 8):
            raise _damaged("the size of a tensor does not fit its shape")
        if dtype not in BITS and len(self.unknown) < 10:
            self.unknown.add(dtype)
        dtype = dtype if dtype in BITS else "other"
        parameters, so_far = self.by_type.get(dtype, (0, 0))
        self.by_type[dtype] = (parameters + elements, so_far + size)
        self.tensors += 1
        self.data_bytes = max(self.data_bytes, stop)
        text = name[-64:].decode("utf-8", "replace")
        if text.endswith(_INPUT_NAMES):
            self.input_bytes += size
        elif text.endswith(_OUTPUT_NAMES):
            self.output_bytes = (self.output_bytes or 0) + size
        return end + 1


def _entry(entry: object) -> tuple[str, list[int], int, int]:
    if isinstance(entry, dict):
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if isinstance(dtype, str) and len(dtype) <= 32 and _sizes(shape) and _sizes(offsets) and len(offsets) == 2:
            begin, stop = offsets
            if begin <= stop:
                return dtype, shape, begin, stop
    raise _damaged("a tensor has no sensible dtype, shape and data_offsets")


def _sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) <= 64 and all(type(one) is int and 0 <= one < 2**63 for one in value)
