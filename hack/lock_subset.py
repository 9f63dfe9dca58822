"""What one project needs, out of a lock that holds more: `python3 lock_subset.py requirements.lock berth`.

uv writes under each pin who needs it (`# via`), and that is enough to follow. Runs while the image is built, where
there is only Python's own library.
"""

import re
import sys
from pathlib import Path

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
_REQUIRER = re.compile(r"^ {4}#(?: via|  ) +(\S.*)$", re.MULTILINE)
_PROJECT = " (pyproject.toml)"
"""Behind the name of the project itself; its groups of dependencies are `(pyproject.toml:dev)`."""


def subset(lock: str, root: str) -> str:
    """Return the pins of a lock that `root` needs, itself included where it is pinned, each as it stands."""
    pins = _pins(lock)
    requirers: dict[str, set[str]] = {}
    for name, text in pins:
        found = {requirer.removesuffix(_PROJECT) for requirer in _REQUIRER.findall(text)}
        requirers[name] = requirers.get(name, set()) | found
    needed = {root}
    while more := {name for name, by in requirers.items() if by & needed} - needed:
        needed |= more
    chosen = [text for name, text in pins if name in needed]
    if not chosen:
        raise ValueError(f"the lock has nothing for {root}")
    return "".join(chosen)


def _pins(lock: str) -> list[tuple[str, str]]:
    """Each pin's name and lines. A name that has one pin for each of several Pythons comes several times."""
    starts = list(_PIN.finditer(lock))
    ends = [match.start() for match in starts[1:]] + [len(lock)]
    return [(match[1], lock[match.start() : end]) for match, end in zip(starts, ends, strict=True)]


if __name__ == "__main__":
    sys.stdout.write(subset(Path(sys.argv[1]).read_text(), sys.argv[2]))
