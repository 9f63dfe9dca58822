"""An explicit start: the annotation `berth.dev/start` with a value that has not been seen before."""

from collections.abc import Mapping

START_ANNOTATION = "berth.dev/start"
"""A new value starts a Model that sleeps or has failed."""


def start_value(annotations: Mapping[str, str]) -> str:
    """What the annotation says; empty when there is none."""
    return annotations.get(START_ANNOTATION, "")
