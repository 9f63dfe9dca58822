"""The files of charts/models/catalogue as types; whatever does not fit is refused with the place of the mistake."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from berth.api.model import ModelSpec

FOLDER = Path(__file__).resolve().parents[2] / "charts/models/catalogue"


class Kind(StrEnum):
    """What a model is for."""

    TEXT = "text"
    CODE = "code"
    VISION = "vision"
    EMBEDDING = "embedding"
    RERANKING = "reranking"


class Weights(StrEnum):
    """How the weights lie in the files that an entry takes."""

    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"
    FP8_BLOCK = "FP8-block"
    """8 bits with a scale for each block of 128 x 128; embeddings and output keep 16 bits."""
    FP8_CHANNEL = "FP8-channel"
    """8 bits with a scale for each row; embeddings and output keep 16 bits."""
    AWQ = "AWQ"
    """4 bits in groups of 128; embeddings and output keep 16 bits."""
    MXFP4 = "MXFP4"
    """Experts have 4 bits in groups of 32, all else 16."""
    Q8_0 = "Q8_0"
    Q4_K_M = "Q4_K_M"
    MXFP4_MOE = "MXFP4_MOE"
    """GGUF: experts have 4 bits, all else 8."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _published(config: dict[str, Any]) -> dict[str, Any]:
    if "model_type" not in config:
        raise ValueError("config begins with model_type")
    return config


class Architecture(_Strict):
    """What decides how much memory a model needs, copied from the config.json that its makers publish."""

    source: Annotated[str, Field(pattern=r"^https://huggingface\.co/[^/]+/[^/]+/blob/main/config\.json$")]
    """Where that file is."""
    parameters: Annotated[int, Field(gt=0)]
    """As published for the model; for models that only write text it follows from `config`, and a test compares."""
    config: Annotated[dict[str, Any], AfterValidator(_published)]
    """The fields that matter here, by their own names."""


class Entry(_Strict):
    """One installable model."""

    title: Annotated[str, Field(min_length=1)]
    kind: Kind
    licence: Annotated[str, Field(min_length=1)]
    """SPDX identifier, or the name of a licence that has none."""
    gated: bool = False
    """The hub hands it out only to those who accepted its terms: a token is needed."""
    link: Annotated[str, Field(pattern=r"^https://(huggingface\.co|ollama\.com)/")]
    architecture: str
    weights: Weights
    spec: ModelSpec
    """What becomes the spec of the Model."""


class Family(_Strict):
    """One file."""

    files: dict[str, list[str]] = {}
    """Lists of globs that entries of the file refer to."""
    architectures: dict[str, Architecture]
    models: dict[str, Entry]


class Catalogue(_Strict):
    """All files together."""

    architectures: dict[str, Architecture]
    models: dict[str, Entry]


def read_catalogue(folder: Path = FOLDER) -> Catalogue:
    """All families, entries in the order of their names. Raises ValueError with the file and the mistake."""
    architectures: dict[str, Architecture] = {}
    models: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.yaml")):
        family = Family.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        for seen, more in ((architectures, family.architectures), (models, family.models)):
            if twice := seen.keys() & more.keys():
                raise ValueError(f"{path.name}: {', '.join(sorted(twice))} is in another file too")
        for key, entry in family.models.items():
            if entry.architecture not in family.architectures:
                raise ValueError(f"{path.name}: models.{key}.architecture is not among the architectures of the file")
        architectures |= family.architectures
        models |= family.models
    return Catalogue(architectures=architectures, models=dict(sorted(models.items())))
