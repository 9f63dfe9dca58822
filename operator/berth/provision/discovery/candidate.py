"""What looks like a whole model from outside, before any of its files is opened."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from berth.planning.discovered import Discovered
from berth.provision.discovery.tree import File, Tree


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finding without its figures, and the files that have them."""

    found: Discovered
    weights: tuple[File, ...] = ()
    """Files whose headers give the figures."""
    config: File | None = None
    """config.json of safetensors."""


def described(
    tree: Tree, path: str, weights: tuple[File, ...] = (), config: File | None = None, **values: Any
) -> Iterator[Candidate]:
    """The candidate, or none when no Model could name it: spaces and `#` cannot be written in source.uri."""
    try:
        found = Discovered(path=path, **values)
    except ValidationError as error:
        tree.skip(path, f"no Model can name it: {error.errors()[0]['msg']}")
        return
    yield Candidate(found, weights, config)
