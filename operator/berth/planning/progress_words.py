"""How far a download is, in words for people."""

from collections.abc import Mapping
from typing import Any

from berth.planning.redaction import redact


def progress_words(told: Mapping[str, Any]) -> str:
    """How far a download is, in a sentence."""
    total, done, speed = number(told, "bytesTotal"), number(told, "bytesDone"), number(told, "bytesPerSecond")
    words = f"{size(done)} of {size(total)} are there"
    if speed and done < total:
        words += f", {size(speed)} a second"
        if told.get("etaSeconds") is not None:
            words += f", about {_time(number(told, 'etaSeconds'))} left"
    if told.get("lastError") and done < total:
        words += f". Last trouble: {redact(str(told['lastError']))}"
    return words


def size(count: int) -> str:
    """A number of bytes for people."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _time(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def number(told: Mapping[str, Any], name: str) -> int:
    """A whole number that is not negative; 0 for anything else."""
    value = told.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
