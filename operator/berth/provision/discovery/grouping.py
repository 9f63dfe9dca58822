"""Which of the files in a folder make up a model, and whether all of them are there.

Parts of GGUF models: llama.cpp, src/llama.cpp (llama_split_path). Shards of safetensors and their index: transformers,
src/transformers/utils/hub.py (get_checkpoint_shard_files).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from berth.planning.discovered import SPLIT
from berth.planning.model_figures import UnreadableModelError, WeightsFormat
from berth.planning.safetensors_metadata import MAX_INDEX, read_index
from berth.provision.discovery.tree import File

_INDEX = "model.safetensors.index.json"
_CONFIG = "config.json"
_PIPELINE = "model_index.json"
_SHARD = re.compile(r"(?P<prefix>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.safetensors")


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one model."""

    format: WeightsFormat
    weights: tuple[File, ...]
    """What holds the tensors."""
    bytes: int
    files: int
    entry: str = ""
    """GGUF: the file to load."""
    config: File | None = None


@dataclass(frozen=True, slots=True)
class Grouped:
    """Models, and what lacks a part of one."""

    whole: tuple[Group, ...]
    broken: tuple[str, ...]


def group(files: Mapping[str, File], content: Callable[[File, int], bytes | None]) -> Grouped:
    """The models among files that are known by their path within a folder. `content` reads a small one."""
    whole: list[Group] = []
    broken: list[str] = []
    for names, count in _gguf_parts(files):
        if len(names) == count:
            weights = tuple(files[name] for name in names)
            size = sum(file.size for file in weights)
            whole.append(Group(WeightsFormat.GGUF, weights, size, count, entry=names[0]))
        else:
            broken.append(names[0])
    _add_safetensors(files, content, whole, broken)
    return Grouped(tuple(whole), tuple(broken))


def is_weights(name: str) -> bool:
    """Whether it holds a model by its name; projectors for images (mmproj-….gguf) go with another one."""
    lower = name.lower().rpartition("/")[2]
    return lower.endswith(".safetensors") or (lower.endswith(".gguf") and "mmproj" not in lower)


def _gguf_parts(files: Mapping[str, File]) -> Iterator[tuple[list[str], int]]:
    """The parts that are there of each GGUF model, in their order, and how many it has."""
    split: dict[tuple[str, int, str], list[str]] = {}
    for name in sorted(files):
        if not name.lower().endswith(".gguf") or not is_weights(name):
            continue
        part = SPLIT.fullmatch(name)
        if part is None:
            yield [name], 1
        elif 1 <= int(part["part"]) <= int(part["parts"]):
            split.setdefault((part["prefix"], int(part["parts"]), name[-len(".gguf") :]), []).append(name)
    for (_, count, _), names in split.items():
        yield names, count


def _add_safetensors(
    files: Mapping[str, File], content: Callable[[File, int], bytes | None], whole: list[Group], broken: list[str]
) -> None:
    """A model of the folder itself. Those of its subfolders are parts of pipelines, adapters or other precisions."""
    found = sorted(name for name in files if name.endswith(".safetensors") and "/" not in name)
    if not found or _CONFIG not in files or _PIPELINE in files:
        return
    names = _indexed(files[_INDEX], content) if _INDEX in files else found
    if not names or any(name not in files for name in names) or (_INDEX not in files and _has_gap(found)):
        broken.append(_INDEX if _INDEX in files else found[0])
        return
    others = [file for name, file in files.items() if not name.lower().endswith(".gguf")]
    weights = tuple(files[name] for name in names)
    size = sum(file.size for file in others)
    whole.append(Group(WeightsFormat.SAFETENSORS, weights, size, len(others), config=files[_CONFIG]))


def _indexed(index: File, content: Callable[[File, int], bytes | None]) -> list[str]:
    """The files that an index names; none when it cannot be read."""
    try:
        return sorted(read_index(content(index, MAX_INDEX) or b"").files)
    except UnreadableModelError:
        return []


def _has_gap(found: Sequence[str]) -> bool:
    """Whether numbers of shards are missing, as in a download that has not come to its index yet."""
    there = Counter((shard["prefix"], int(shard["parts"])) for shard in map(_SHARD.fullmatch, found) if shard)
    return any(count != parts for (_, parts), count in there.items())
