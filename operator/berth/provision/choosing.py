"""Which of the files are a model, told by their names: what a server is given, and what has headers to read.

A projector of images (mmproj) and an importance matrix are GGUF files beside a model and none themselves.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_PART = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.IGNORECASE)
_BESIDE = ("mmproj", "imatrix")
_PICKLE = (".bin", ".pt", ".pth", ".ckpt")
_OTHER_COPY = ("consolidated", "adapter_model")
"""The same weights in the layout of another tool, or what is put on top of them."""
_SHOWN = 8
SAFETENSORS_INDEX = "model.safetensors.index.json"
CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class GgufModel:
    """One model, in one file or split into parts."""

    parts: tuple[str, ...]
    """The files that were chosen, in their order."""
    count: int = 1
    """How many files it is split into."""

    @property
    def entry(self) -> str:
        """The file that a server is given."""
        return self.parts[0]

    @property
    def split(self) -> bool:
        """Whether it needs several files side by side."""
        return self.count > 1

    @property
    def whole(self) -> bool:
        """Whether all of its parts were chosen."""
        return len(self.parts) == self.count


def gguf_models(names: Iterable[str]) -> tuple[GgufModel, ...]:
    """The GGUF models among the files, in the order of their names."""
    single: list[GgufModel] = []
    parts: dict[tuple[str, int], dict[int, str]] = {}
    for name in sorted(names):
        if not is_gguf(name):
            continue
        found = _PART.match(name)
        if found and 1 <= int(found["number"]) <= int(found["count"]):
            parts.setdefault((found["stem"], int(found["count"])), {})[int(found["number"])] = name
        else:
            single.append(GgufModel((name,)))
    split = [
        GgufModel(tuple(name for _, name in sorted(numbered.items())), count) for (_, count), numbered in parts.items()
    ]
    return tuple(sorted([*single, *split], key=lambda model: model.entry))


def is_gguf(name: str) -> bool:
    """Whether the name is one of a GGUF model."""
    last = name.rpartition("/")[2].lower()
    return last.endswith(".gguf") and not any(word in last for word in _BESIDE)


def entry_file(names: Sequence[str], known_gguf: Sequence[str] = ()) -> str | None:
    """The file that a server of single files loads; None when that is not one of them alone.

    `known_gguf` are files that the source itself calls GGUF models. A single file without a telling name is the entry.
    """
    models = gguf_models(names) or tuple(GgufModel((name,)) for name in known_gguf)
    if len(models) == 1:
        return models[0].entry
    return names[0] if len(names) == 1 and not models and nameless(names) else None


def nameless(names: Sequence[str]) -> bool:
    """Whether no name tells what the files are."""
    endings = (".gguf", ".safetensors", *_PICKLE)
    return not any(name.lower().endswith(endings) for name in names)


def has_safetensors(names: Iterable[str]) -> bool:
    """Whether there are safetensors files, wherever they are."""
    return any(name.lower().endswith(".safetensors") for name in names)


def has_pickle(names: Iterable[str]) -> bool:
    """Whether there are weights in PyTorch's own format, which has no header that could be read."""
    return any(name.lower().endswith(_PICKLE) and "imatrix" not in name.lower() for name in names)


def safetensors_of_model(names: Sequence[str], indexed: Sequence[str] | None) -> tuple[str, ...]:
    """The safetensors files of the model itself; `indexed` are those that its index names, None without an index."""
    if indexed is not None:
        wanted = set(indexed)
        return tuple(name for name in names if name in wanted)
    top = [name for name in names if "/" not in name and name.endswith(".safetensors")]
    if "model.safetensors" in top:
        return ("model.safetensors",)
    return tuple(name for name in top if not name.startswith(_OTHER_COPY)) or tuple(top)


def ambiguity(models: Sequence[GgufModel]) -> str:
    """The sentence about several models of which a server loads one."""
    named = ", ".join(model.entry for model in models[:_SHOWN]) + (", …" if len(models) > _SHOWN else "")
    return (
        f"there are {len(models)} GGUF models and the server loads one ({named}): "
        "choose one with source.files, for example '*Q4_K_M.gguf'"
    )


def incompleteness(model: GgufModel) -> str:
    """The sentence about a split model of which parts were left out."""
    found = _PART.match(model.entry)
    stem = found["stem"] if found else model.entry
    return (
        f"only {len(model.parts)} of the {model.count} parts of {stem} are there: "
        f"take all of them with source.files, for example '{stem.rpartition('/')[2]}-*.gguf'"
    )
