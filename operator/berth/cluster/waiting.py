"""How long to wait before a request is sent again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential waiting with jitter, in seconds."""

    first: float = 0.1
    longest: float = 5.0

    def delay(self, attempt: int, retry_after: float | None = None) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 0), never less than the server asks for.

        The jitter keeps many waiting clients from coming back at the same moment.
        """
        delay = min(self.longest, self.first * 2.0 ** min(attempt, 30))
        delay *= random.uniform(0.5, 1.0)  # noqa: S311 — no secret
        return delay if retry_after is None else retry_after + delay


def parse_retry_after(header: str | None, details: Mapping[str, Any]) -> float | None:
    """Seconds from a Retry-After header (dates are not understood), else from a Status's `retryAfterSeconds`."""
    for value in (header, details.get("retryAfterSeconds")):
        try:
            seconds = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            continue
        if 0 < seconds < float("inf"):
            return seconds
    return None
