"""Which paths a source may name. Whatever a server lists is written below the destination or not at all."""

from collections.abc import Iterable

from berth.provision.errors import ProvisionError, Reason

PARTIAL = ".partial"
"""Ending of a file that is being downloaded."""
STATE = ".partial.state"
"""Ending of the journal beside it."""
MANIFEST = "manifest.json"
CONTROL = ".berth"
"""Folder of the lock and of what an unfinished download remembers."""

_LONGEST_SEGMENT = 255 - len(STATE)
_LONGEST_PATH = 1024


def safe_path(path: str) -> str:
    """The path itself when it stays below the destination; raises ProvisionError when it does not."""
    problem = _problem(path)
    if problem:
        shown = path if len(path) <= 200 else path[:200] + "…"
        raise ProvisionError(Reason.UNSAFE_PATH, f"the source names the file {shown!r}, which {problem}")
    return path


def _problem(path: str) -> str | None:
    if not path or len(path.encode("utf-8", "replace")) > _LONGEST_PATH:
        return "is empty or too long"
    if path.startswith("/"):
        return "is absolute"
    if "\\" in path or any(ord(character) < 32 or 127 <= ord(character) < 160 for character in path):
        return "has a backslash or control characters in its name"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    segments = path.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        return "leaves its folder or has empty parts"
    if any(len(segment.encode()) > _LONGEST_SEGMENT for segment in segments):
        return "has a part that is too long"
    if path == MANIFEST or segments[0] == CONTROL or path.endswith((PARTIAL, STATE)):
        return "has a name that Berth keeps for itself: leave it out with source.files"
    return None


def check_together(paths: Iterable[str]) -> None:
    """Raises ProvisionError when two of the paths cannot exist side by side."""
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise ProvisionError(Reason.UNSAFE_PATH, f"the source names the file {path!r} twice")
        seen.add(path)
    for path in seen:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder in seen:
                raise ProvisionError(Reason.UNSAFE_PATH, f"the source names {folder!r} as a file and as a folder")
