"""The forms that the API server gives back, so that what is applied can be compared with what is observed."""

import hashlib
import json
from typing import Any

from berth.api.base import duration_seconds
from berth.planning.errors import InvalidSpecError


def canonical_json(value: Any) -> str:
    """The value as text in which equal values are equal."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(value: Any) -> str:
    """Hash of a value, short enough for a label (64 bits)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def duration(field: str, text: str) -> float:
    """Seconds of a duration in the spec. Raises InvalidSpecError with the field."""
    try:
        return duration_seconds(text)
    except ValueError as error:
        raise InvalidSpecError(field, str(error)) from None
