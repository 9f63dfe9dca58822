"""The table of examples in model_examples.yaml, as manifests."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from berth.api.base import API_VERSION

MODEL_ON_CLAIM = {"backend": "llamacpp", "source": {"uri": "pvc://weights/model.gguf"}}


@dataclass(frozen=True)
class Example:
    """A rule, shown by one Model that it refuses and one that it accepts."""

    number: int
    at: str
    says: str
    refused: dict[str, Any]
    accepted: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.at}-{self.says}".replace(" ", "_")


def model(spec: dict[str, Any], name: str = "example") -> dict[str, Any]:
    """A Model with this spec, on llama.cpp and a claim when the spec has no backend."""
    whole = spec if "backend" in spec else {**MODEL_ON_CLAIM, **spec}
    return {"apiVersion": API_VERSION, "kind": "Model", "metadata": {"name": name}, "spec": whole}


def load_examples() -> list[Example]:
    """The table."""
    rows = yaml.safe_load((Path(__file__).parent / "model_examples.yaml").read_text())
    return [
        Example(
            number,
            row["at"],
            row["says"],
            refused=model(row.get("refused", {}), row.get("refused_name", f"refused-{number}")),
            accepted=model(row.get("accepted", {}), row.get("accepted_name", f"accepted-{number}")),
        )
        for number, row in enumerate(rows)
    ]
