"""Opens the files of one model: figures from their headers, and whether they are what their names say."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from berth.planning.discovered import Discovered, as_word
from berth.planning.gguf_figures import figures_from_gguf
from berth.planning.gguf_metadata import MAX_HEADER as MAX_GGUF_HEADER
from berth.planning.gguf_metadata import GgufHeader, read_gguf
from berth.planning.model_figures import ModelFigures, NeedMore, UnreadableModelError, WeightsFormat
from berth.planning.safetensors_figures import MAX_CONFIG, figures_from_safetensors, read_config
from berth.planning.safetensors_metadata import MAX_HEADER as MAX_SAFETENSORS_HEADER
from berth.planning.safetensors_metadata import SafetensorsHeader, read_safetensors
from berth.provision.discovery.candidate import Candidate
from berth.provision.discovery.tree import File, Tree
from berth.provision.errors import ProvisionError

_FIRST_READ = 64 * 2**10
_MOST_HEADERS = 256 * 2**20
"""Bytes read for the figures of one model."""
_GGUF_MAGIC = b"GGUF"
_LFS_POINTER = b"version https://git-lfs"
"""What a clone has in place of a large file that was not fetched (git-lfs, docs/spec.md)."""
_NO_MODELS = frozenset({"mmproj", "adapter", "imatrix"})
"""general.type of files that go with a model (gguf-py, constants.py: GGUFType)."""
_PROJECTOR = "clip"
"""general.architecture of projectors that were made before there was general.type."""

log = logging.getLogger("berth.provision.discovery")
_Header = TypeVar("_Header", GgufHeader, SafetensorsHeader)


class BrokenError(Exception):
    """The files are not what they look like. The message says why."""


def examine(tree: Tree, candidate: Candidate) -> Discovered | None:
    """The finding with its figures; None when it goes with a model but is none. Raises BrokenError.

    What cannot be understood in a header only costs the figures: servers read more formats than we do.
    """
    found = candidate.found
    if not candidate.weights:
        return found
    try:
        if found.format is WeightsFormat.GGUF:
            return _examine_gguf(tree, candidate)
        return _examine_safetensors(tree, candidate)
    except UnreadableModelError as error:
        log.info("%s has no figures: %s", found.cursor, error)
        return found
    except (OSError, ProvisionError) as error:
        raise BrokenError(f"it cannot be read: {error}") from error


def _examine_gguf(tree: Tree, candidate: Candidate) -> Discovered | None:
    budget = _Budget()
    headers = []
    for file in candidate.weights:
        if tree.read(file, 0, len(_GGUF_MAGIC)) != _GGUF_MAGIC:
            raise BrokenError("it is no GGUF file")
        header = budget.header(tree, file, read_gguf, MAX_GGUF_HEADER)
        if file.size < header.size + sum(part.bytes for part in header.weights):
            raise BrokenError("its end is missing")
        headers.append(header)
    values = headers[0].values
    if values.get("general.type") in _NO_MODELS or values.get("general.architecture") == _PROJECTOR:
        return None
    return _with_figures(candidate.found, figures_from_gguf(headers))


def _examine_safetensors(tree: Tree, candidate: Candidate) -> Discovered | None:
    budget = _Budget()
    config: dict[str, Any] | None = None
    if candidate.config is not None:
        try:
            config = read_config(tree.read(candidate.config, 0, MAX_CONFIG + 1))
        except UnreadableModelError as error:
            raise BrokenError(str(error)) from error
        if not config.get("architectures") and not config.get("model_type"):
            return None  # a part of a pipeline for images, or something else of its own kind
    headers = []
    for file in candidate.weights:
        if tree.read(file, 0, len(_LFS_POINTER)) == _LFS_POINTER:
            raise BrokenError("it was cloned without its large files")
        header = budget.header(tree, file, read_safetensors, MAX_SAFETENSORS_HEADER)
        if file.size < header.size + header.data_bytes:
            raise BrokenError("its end is missing")
        headers.append(header)
    return _with_figures(candidate.found, figures_from_safetensors(headers, config or {}))


class _Budget:
    """How much may still be read for one model."""

    def __init__(self) -> None:
        self._left = _MOST_HEADERS

    def header(self, tree: Tree, file: File, parse: Callable[[bytes], _Header | NeedMore], most: int) -> _Header:
        """The header of a file. Raises UnreadableModelError, or BrokenError when the file ends before it does."""
        content, size = b"", _FIRST_READ
        while True:
            content += tree.read(file, len(content), size - len(content))
            self._left -= size
            found = parse(content)
            if not isinstance(found, NeedMore):
                return found
            if len(content) < size:
                raise BrokenError("it ends within its header")
            if self._left < 0 or found.size > most + 8:
                raise UnreadableModelError("its headers are too large")
            size = max(found.size, min(2 * size, most))


def _with_figures(found: Discovered, figures: ModelFigures) -> Discovered:
    return replace(
        found,
        architecture=as_word(figures.architecture),
        quantization=as_word(figures.quantization),
        parameters=_count(figures.parameters),
        context_length=_count(figures.context_length),
    )


def _count(number: int | None) -> int | None:
    return number if number is not None and 0 < number < 2**63 else None
