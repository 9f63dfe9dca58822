"""kopf's memory of handled objects, switched off.

For handlers that persist, kopf copies every object deeply, several times an event, to find out what changed.
Berth has `on.event` handlers only, which persist nothing: without these storages four tenths of the operator's
CPU time went into copies that nobody looked at.
"""

from collections.abc import Iterable
from typing import Any

import kopf


class NothingToCompare(kopf.DiffBaseStorage):
    """Sees no essence in any object, so there is nothing to copy and no difference to find."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """No essence."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


class NothingToRemember(kopf.ProgressStorage):
    """Keeps no progress: `on.event` handlers have none."""

    def fetch(self, *, key: str, body: kopf.Body) -> None:
        """Nothing was stored."""
        return

    def store(self, *, key: str, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Store nothing."""

    def purge(self, *, key: str, body: kopf.Body, patch: kopf.Patch) -> None:
        """There is nothing to purge."""

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """There is nothing to touch."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """There is nothing of ours in it, so no copy is needed."""
        return essence
