"""Whom to ask for the load of a server, and what the answer means.

Where a Pod has a drain sidecar, that one is asked: it has the server's API key, which the operator has not.
"""

import math
from dataclasses import dataclass
from typing import Any

import orjson

from berth.backends.base import LoadMetrics
from berth.backends.load import sample_sum
from berth.planning import names
from berth.planning.drain_pod import LOAD_PATH, drain_port
from berth.planning.load_state import Reading
from berth.planning.pods import Pod


@dataclass(frozen=True, slots=True)
class Question:
    """A GET to a server, or to the sidecar beside it."""

    url: str
    metrics: LoadMetrics | None
    """What the server's answer is read by; None for the sidecar, which answers in numbers."""


def can_be_asked(pod: Pod) -> bool:
    """Whether a Pod has a server that has started and is not about to end."""
    server = pod.server
    return (
        server is not None
        and server.started
        and server.running_since is not None
        and bool(pod.living and not pod.deleting and pod.address)
    )


def server_name(pod: Pod) -> str:
    """Stands for one run of the server of a Pod: with the next one its counters begin anew."""
    return f"{pod.uid}/{pod.server.restarts if pod.server else 0}"


def question(pod: Pod, metrics: LoadMetrics | None) -> Question | None:
    """How the server of a Pod is asked; None when nothing tells. `metrics` are those of the Model's backend."""
    if metrics is None:
        return None
    host = f"[{pod.address}]" if ":" in pod.address else pod.address
    if any(one.initial and one.name == names.DRAIN_CONTAINER for one in pod.containers):
        return Question(f"http://{host}:{drain_port(pod.port)}{LOAD_PATH}", None)
    if metrics.needs_key or not pod.port:
        return None
    return Question(f"http://{host}:{pod.port}{metrics.path}", metrics)


def understood(asked: Question, answer: bytes) -> Reading | None:
    """What the answer says; None when it says nothing."""
    return _in_numbers(answer) if asked.metrics is None else _in_metrics(answer, asked.metrics)


def _in_metrics(answer: bytes, metrics: LoadMetrics) -> Reading | None:
    text = answer.decode("utf-8", "replace")
    running = sample_sum(text, metrics.running)
    waiting = sample_sum(text, metrics.waiting) if metrics.waiting else 0.0
    if running is None or waiting is None:
        return None
    return Reading(running, waiting, sample_sum(text, metrics.worked) if metrics.worked else None)


def _in_numbers(answer: bytes) -> Reading | None:
    try:
        told: Any = orjson.loads(answer)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    running, waiting, worked = (_number(told.get(field)) for field in ("running", "waiting", "worked"))
    return None if running is None or waiting is None else Reading(running, waiting, worked)


def _number(value: Any) -> float | None:
    """A number that counts something."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if known else None
