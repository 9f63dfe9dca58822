"""A volume that is only looked at: folders in a stable order, links that stay inside, all counted and bounded."""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from berth.provision.errors import ProvisionError, Reason
from berth.provision.volume import Volume

_DEEPEST = 10
"""Folders below one another: `.cache/huggingface/hub/models--org--name/snapshots/<commit>` are six."""
_MOST_ENTRIES = 300_000
_MOST_IN_A_FOLDER = 20_000
"""Names of one folder are sorted in memory."""
_MOST_HOPS = 16
_MOST_LINES = 200
"""Lines of the log about what is passed over."""
_LOST_AND_FOUND = "lost+found"
"""Where a file system puts what it repaired."""

log = logging.getLogger("berth.provision.discovery")


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder."""

    name: str
    path: str
    """Below the volume."""
    is_folder: bool
    is_link: bool


@dataclass(frozen=True, slots=True)
class File:
    """A regular file, links to it followed."""

    path: str
    """Below the volume, without links on the way."""
    size: int


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of the volume."""

    free: int
    capacity: int


class Tree:
    """The volume, and how much of it was looked at and passed over."""

    def __init__(self, root: Path, most_entries: int = _MOST_ENTRIES) -> None:
        """Raises ProvisionError when there is no such folder or it cannot be read."""
        if not root.is_dir():
            raise ProvisionError(Reason.NOT_FOUND, f"{root} is no folder: mount the volume there")
        self._root = root
        self._left = most_entries
        self.skipped = 0
        try:
            os.scandir(root).close()
        except OSError as error:
            raise ProvisionError(
                Reason.VOLUME_FAILED,
                f"the volume cannot be read by user {os.geteuid()} ({error.strerror}): check fsGroup and its owner",
            ) from error
        self._volume = Volume(root)

    def __enter__(self) -> Self:
        self._volume.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._volume.__exit__()

    def room(self) -> Room:
        """How full the volume is."""
        status = os.statvfs(self._root)
        return Room(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)

    def skip(self, path: str, why: str) -> None:
        """Something that might have been a model, or hold some, is passed over."""
        self.skipped += 1
        if self.skipped <= _MOST_LINES:
            log.info("%r is passed over: %s", path, why)

    def entries(self, folder: str) -> list[Entry]:
        """What is in a folder, by name; nothing when it cannot be read. Special files are left out."""
        if self._left < 0:
            return []  # told when it was found
        if folder.count("/") >= _DEEPEST:
            self.skip(folder, "it is too deep")
            return []
        try:
            found = list(self._scan(folder))
        except OSError as error:
            self.skip(folder, error.strerror or type(error).__name__)
            return []
        self._left -= len(found)
        if self._left < 0:
            self.skip(folder, f"there are {_MOST_ENTRIES} files and folders before it: nothing more is looked at")
            return []
        if len(found) > _MOST_IN_A_FOLDER:
            self.skip(folder, "it has too many entries")
            return []
        return sorted(found, key=lambda entry: entry.name)

    def _scan(self, folder: str) -> Iterator[Entry]:
        descriptor = os.open(self._at(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with os.scandir(descriptor) as found:
                for count, entry in enumerate(found):
                    if count > _MOST_IN_A_FOLDER:
                        return
                    if entry.name == _LOST_AND_FOUND:
                        self.skip(below(folder, entry.name), "it is what a file system check left")
                        continue
                    folders, link = entry.is_dir(follow_symlinks=False), entry.is_symlink()
                    if folders or link or entry.is_file(follow_symlinks=False):
                        yield Entry(entry.name, below(folder, entry.name), folders, link)
        finally:
            os.close(descriptor)

    def file(self, path: str, *, links: bool = False) -> File | None:
        """The regular file at a path; with `links`, also when links lead to it that stay on the volume."""
        try:
            found = self._resolve(path, _MOST_HOPS if links else 0)
        except (OSError, ValueError):
            return None
        return found if found.size >= 0 else None

    def _resolve(self, path: str, hops: int) -> File:
        """Follows links step by step, because the server mounts the volume elsewhere: no link may lead out of it,
        not even to come back, and none may be absolute. The size is -1 for what is no regular file."""
        pending, done, status = path.split("/")[::-1], list[str](), None
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not done:
                    raise OSError(errno.EXDEV, "the link leaves the volume")
                done.pop()
                continue
            place = self._at("/".join([*done, part]))
            status = os.lstat(place)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(place)
                hops -= 1
                if hops < 0 or target.startswith("/"):
                    raise OSError(errno.ELOOP, "the link leaves the volume or leads in circles")
                pending.extend(target.split("/")[::-1])
                continue
            done.append(part)
        regular = status is not None and stat.S_ISREG(status.st_mode)
        return File("/".join(done), status.st_size if status is not None and regular else -1)

    def read(self, file: File, start: int, size: int) -> bytes:
        """Bytes of a file. Raises OSError or ProvisionError."""
        descriptor = self._volume.open(file.path, os.O_RDONLY)
        try:
            content = bytearray()
            while len(content) < size and (more := os.pread(descriptor, size - len(content), start + len(content))):
                content += more
            return bytes(content)
        finally:
            os.close(descriptor)

    def content(self, file: File | None, at_most: int) -> bytes | None:
        """All of a small file; None when it is too large or cannot be read."""
        if file is None or file.size > at_most:
            return None
        try:
            return self.read(file, 0, at_most)
        except (OSError, ProvisionError):
            return None

    def _at(self, path: str) -> str:
        return os.path.join(self._root, path)


def below(folder: str, name: str) -> str:
    """The path of something in a folder; the volume itself is `.`."""
    return name if folder == "." else f"{folder}/{name}"
