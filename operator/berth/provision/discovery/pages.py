"""Findings in pieces that fit into the termination message of a container."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from berth.planning.discovered import Discovered
from berth.provision.discovery.candidate import Candidate
from berth.provision.discovery.examining import BrokenError, examine
from berth.provision.discovery.tree import Room, Tree
from berth.provision.errors import ProvisionError
from berth.provision.termination import LONGEST

_LONGEST_TEXT = 1000


@dataclass(slots=True)
class Page:
    """What one run tells."""

    room: Room
    found: list[Discovered] = field(default_factory=list)
    more: bool = False
    skipped: int = 0

    def message(self) -> bytes:
        """The message of a run that succeeded."""
        return _encoded(
            {
                "result": "Succeeded",
                "found": [finding.document() for finding in self.found],
                "more": self.more,
                "after": self.found[-1].cursor if self.more and self.found else None,
                "volumeFree": self.room.free,
                "volumeCapacity": self.room.capacity,
                "skipped": self.skipped,
            }
        )


def page(tree: Tree, candidates: Iterable[Candidate], after: str | None) -> Page:
    """As many findings behind `after` as fit; only those are opened.

    What the walk passed over is counted on the first page, what was opened in vain on the page where it would stand:
    the sum of all pages is right.
    """
    made = Page(tree.room())
    told = tree.skipped
    before = told if after is not None else 0
    for candidate in candidates:
        if after is not None and candidate.found.cursor <= after:
            continue
        finding = _examined(tree, candidate)
        if finding is None:
            continue
        made.found.append(finding)
        if _fits(made):
            told = tree.skipped
            continue
        made.found.pop()
        if made.found:
            made.more = True
            break
        tree.skip(finding.path, "what there is to say about it does not fit into a message")
    made.skipped = (told if made.more else tree.skipped) - before
    return made


def failure_message(failure: ProvisionError) -> bytes:
    """The message of a run that failed."""
    message = failure.message[:_LONGEST_TEXT].encode("utf-8", "replace").decode()
    return _encoded({"result": "Failed", "reason": failure.reason, "message": message})


def _examined(tree: Tree, candidate: Candidate) -> Discovered | None:
    try:
        return examine(tree, candidate)
    except BrokenError as error:
        tree.skip(candidate.found.cursor, str(error))
        return None


def _fits(made: Page) -> bool:
    """Whether it does when there is more, and with any number of skipped ones."""
    trial = Page(made.room, made.found, more=True, skipped=10**9)
    return len(trial.message()) <= LONGEST


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
