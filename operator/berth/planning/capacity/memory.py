"""What is remembered of a Model, as a document to be stored, and back. What is not set is left out."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from berth.planning.capacity.world import Attempts, Remembered
from berth.planning.times import format_time, parse_time

_NAMES = {
    "queued_at": "queuedAt",
    "reason": "reason",
    "since": "since",
    "held_since": "heldSince",
    "no_node_since": "noNodeSince",
    "release_since": "releaseSince",
    "unbound_since": "unboundSince",
    "nodes": "nodes",
    "beyond": "beyond",
    "keeps": "keeps",
    "preempted_by": "preemptedBy",
    "preempting": "preempting",
    "taken_back": "takenBack",
}


def to_document(memory: Remembered) -> dict[str, Any]:
    """The document; times are whole seconds."""
    values = {_NAMES[field.name]: getattr(memory, field.name) for field in fields(memory)}
    return {name: _plain(value) for name, value in values.items() if value}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, Attempts):
        return {"count": value.count, "at": format_time(value.at)}
    return list(value) if isinstance(value, tuple) else value


def from_document(document: Mapping[str, Any]) -> Remembered:
    """What was stored; what cannot be read, whoever wrote it, was never remembered."""
    try:
        return Remembered(**{name: _read(name, document[key]) for name, key in _NAMES.items() if key in document})
    except (KeyError, TypeError, ValueError, AttributeError):
        return Remembered()


def _read(name: str, value: Any) -> Any:
    if name in ("preempting", "taken_back"):
        at = parse_time(value["at"])
        if at is None or at.tzinfo is None:
            raise ValueError(f"{name} has no time")
        return Attempts(int(value["count"]), at)
    if name == "nodes":
        return tuple(str(node) for node in value)
    if name in ("reason", "keeps", "preempted_by"):
        return str(value)
    at = parse_time(value)
    if at is None or at.tzinfo is None:
        raise ValueError(f"{name} is no time")
    return at
