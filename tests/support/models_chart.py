"""The chart of models, rendered by real Helm."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.chart import Helm

MODELS_CHART = Path(__file__).resolve().parents[2] / "charts/models"


def template(major: int, *args: str) -> str:
    """The objects of a release named models, as text."""
    return Helm(major, namespace="team-a")("template", "models", str(MODELS_CHART), *args).stdout


@cache
def objects(*args: str, major: int = 4) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of a release named models, by kind and name. Copy what you change."""
    documents = [one for one in yaml.load_all(template(major, *args), Loader=yaml.CSafeLoader) if one]
    found = {(one["kind"], one["metadata"]["name"]): one for one in documents}
    assert len(found) == len(documents)
    return found


def everything(keys: list[str]) -> str:
    """The setting that installs all of these entries at once."""
    return "--set=" + ",".join(f"models.{key}.enabled=true" for key in keys)


def refusal(major: int, *args: str) -> str:
    """What Helm says when it refuses these values."""
    done = Helm(major)("template", "models", str(MODELS_CHART), *args, check=False)
    assert done.returncode == 1, done.stdout
    return done.stderr
