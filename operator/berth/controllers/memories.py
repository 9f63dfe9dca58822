"""What this process remembers of its own writes and of what downloads and servers say; all of it may be lost."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from berth.controllers.relations import Key
from berth.planning.load_state import Load
from berth.planning.pods import Pod
from berth.planning.world import Refusal

_Stubborn = dict[str, tuple[str, frozenset[str]]]


class Memories:
    """By key of a Model or ModelCache. Nothing is remembered of what is gone."""

    def __init__(self, exists: Callable[[Key], bool]) -> None:
        """`exists` tells whether a key still stands for something."""
        self._exists = exists
        self._refusals: dict[Key, dict[tuple[str, str], Refusal]] = {}
        self._stubborn: dict[Key, _Stubborn] = {}
        self._status_written_at: dict[Key, datetime] = {}
        self.progress: dict[tuple[str, str], Mapping[str, Any]] = {}
        """By place of a Pod: what its download said last."""
        self.loads: dict[Key, Load] = {}
        """By key of a Model: what its servers said last."""

    def forget(self, key: Key) -> None:
        """It is gone."""
        self._refusals.pop(key, None)
        self._stubborn.pop(key, None)
        self._status_written_at.pop(key, None)
        self.loads.pop(key, None)

    def refuse(self, key: Key, refusal: Refusal) -> None:
        """The API server refused an object: the next plan can say so."""
        if self._exists(key):
            self._refusals.setdefault(key, {})[refusal.kind, refusal.name] = refusal

    def accept(self, key: Key, kind: str, name: str, applied_hash: str, unequal: frozenset[str]) -> None:
        """An object was applied; `unequal` are the leaves that the API server kept different."""
        if not self._exists(key):
            return
        if (refusals := self._refusals.get(key)) and refusals.pop((kind, name), None) and not refusals:
            del self._refusals[key]
        if unequal:
            self._stubborn.setdefault(key, {})[kind] = (applied_hash, unequal)
        elif key in self._stubborn:
            self._stubborn[key].pop(kind, None)

    def status_written(self, key: Key, now: datetime) -> None:
        """The status was written."""
        if self._exists(key):
            self._status_written_at[key] = now

    def refusals(self, key: Key) -> tuple[Refusal, ...]:
        """What the API server refused and has not taken since."""
        return tuple(self._refusals.get(key, {}).values())

    def stubborn(self, key: Key) -> Mapping[str, tuple[str, frozenset[str]]]:
        """By kind: the hash that was applied and the leaves that the API server kept different all the same."""
        return self._stubborn.get(key, {})

    def status_written_at(self, key: Key) -> datetime | None:
        """When this process last wrote the status."""
        return self._status_written_at.get(key)

    def progress_of(self, pods: Iterable[Pod]) -> dict[str, Mapping[str, Any]]:
        """By name of a Pod: what its download said last."""
        places = ((pod.namespace, pod.name) for pod in pods)
        return {
            name: self.progress[namespace, name] for namespace, name in places if (namespace, name) in self.progress
        }
