"""The folder that an artifact is written to. No symbolic link below it is ever followed."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from berth.provision import paths
from berth.provision.errors import ProvisionError, Reason
from berth.provision.plan import FoundFile

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def volume_errors(path: str) -> Iterator[None]:
    """Turns what the volume answers into sentences."""
    try:
        yield
    except OSError as error:
        raise _explained(error, path) from error


def _explained(error: OSError, path: str) -> ProvisionError:
    if error.errno in _FULL:
        what = "the largest size of a file is reached" if error.errno == errno.EFBIG else "the volume is full"
        return ProvisionError(
            Reason.NO_SPACE,
            f"{what} while writing {path}: enlarge the volume; what has arrived is kept for the next run",
        )
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EMLINK):
        return ProvisionError(
            Reason.UNSAFE_PATH,
            f"on the volume, a symbolic link or another kind of file is in the way of {path}: remove it",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ProvisionError(
            Reason.VOLUME_NOT_WRITABLE,
            f"{path} cannot be written ({os.strerror(error.errno)}): check fsGroup and readOnly",
        )
    return ProvisionError(Reason.VOLUME_FAILED, f"{path}: {error.strerror or type(error).__name__}")


class Volume:
    """Files below one folder, reached through its descriptor."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with volume_errors(str(root)):
            root.mkdir(parents=True, exist_ok=True)
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    @contextmanager
    def _folder(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """The descriptor of the folder that holds `path`, and the last part of the path."""
        *folders, name = path.split("/")
        with volume_errors(path):
            here = os.dup(self._root)
        try:
            for folder in folders:
                with volume_errors(path):
                    if create:
                        with suppress(FileExistsError):
                            os.mkdir(folder, 0o777, dir_fd=here)
                            os.fsync(here)
                    below = os.open(folder, _FOLDER, dir_fd=here)
                os.close(here)
                here = below
            yield here, name
        finally:
            os.close(here)

    def open(self, path: str, flags: int) -> int:
        """A descriptor of a regular file; with O_CREAT its folders are made."""
        with self._folder(path, create=bool(flags & os.O_CREAT)) as (folder, name), volume_errors(path):
            # O_NONBLOCK: a FIFO in the way must not hold us.
            descriptor = os.open(name, flags | _FILE | os.O_NONBLOCK, 0o666, dir_fd=folder)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.ELOOP, "not a regular file")
            return descriptor

    def read(self, path: str) -> bytes | None:
        """The content of a small file; None when there is none."""
        try:
            with self._folder(path) as (folder, name):
                descriptor = os.open(name, os.O_RDONLY | _FILE | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            return None
        except ProvisionError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        except OSError as error:
            raise _explained(error, path) from error
        with os.fdopen(descriptor, "rb") as stream, volume_errors(path):
            return stream.read()

    def write(self, path: str, content: bytes) -> None:
        """Replaces a small file at once: after a crash either the old or the new content is there."""
        temporary = path + paths.PARTIAL
        self.remove(temporary)
        descriptor = self.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with volume_errors(path):
                view = memoryview(content)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.rename(temporary, path)

    def append(self, path: str, content: bytes) -> None:
        """Adds a line to a small file, on disk when this returns."""
        descriptor = self.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            with volume_errors(path):
                os.write(descriptor, content)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        """Renames within a folder, on disk when this returns."""
        with self._folder(new) as (folder, name), volume_errors(new):
            os.replace(old.rpartition("/")[2], name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def remove(self, path: str) -> None:
        """Removes a file, or the link in its place; nothing to do when there is none."""
        try:
            with self._folder(path) as (folder, name), volume_errors(path):
                os.unlink(name, dir_fd=folder)
        except ProvisionError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise

    def find(self, path: str) -> FoundFile | None:
        """The regular file at a path."""
        try:
            with self._folder(path) as (folder, name), volume_errors(path):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except ProvisionError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        return _found(found)

    def link(self, name: str, target: str) -> None:
        """A symbolic link at the top of the folder, replaced at once when it leads elsewhere."""
        with volume_errors(name):
            with suppress(OSError):
                if os.readlink(name, dir_fd=self._root) == target:
                    return
            temporary = name + paths.PARTIAL
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._root)
            os.symlink(target, temporary, dir_fd=self._root)
            os.replace(temporary, name, src_dir_fd=self._root, dst_dir_fd=self._root)
            os.fsync(self._root)

    def files(self) -> dict[str, FoundFile]:
        """Every regular file, by path, Berth's own folder left out. Links are neither followed nor listed."""
        everything: dict[str, FoundFile] = {}
        with volume_errors(str(self.root)):
            for folder, subfolders, names, descriptor in os.fwalk(".", dir_fd=self._root, follow_symlinks=False):
                below = folder.removeprefix(".").lstrip("/")
                if not below and paths.CONTROL in subfolders:
                    subfolders.remove(paths.CONTROL)
                for name in names:
                    with suppress(FileNotFoundError):
                        found = _found(os.stat(name, dir_fd=descriptor, follow_symlinks=False))
                        if found:
                            everything[f"{below}/{name}" if below else name] = found
        return everything

    def free(self) -> int:
        """Bytes that may still be written."""
        with volume_errors(str(self.root)):
            status = os.fstatvfs(self._root)
        return status.f_bavail * status.f_frsize

    @contextmanager
    def locked(self, patience: float, waiting: Callable[[], None], stopped: Callable[[float], bool]) -> Iterator[None]:
        """Holds the folder against other writers, on other nodes too; the kernel lets go when the process dies.

        `waiting` is called once when another one holds it; `stopped` sleeps and tells whether to give up.
        """
        name = f"{paths.CONTROL}/lock"
        descriptor = self.open(name, os.O_RDWR | os.O_CREAT)
        try:
            until = time.monotonic() + patience
            told = False
            while not _try_lock(descriptor, name):
                if not told:
                    waiting()
                    told = True
                if time.monotonic() >= until:
                    raise ProvisionError(
                        Reason.LOCKED, f"another download has been writing to {self.root} for {patience:.0f} s"
                    )
                if stopped(0.2):
                    raise ProvisionError(Reason.INTERRUPTED, "stopped while another download was writing")
            yield
        finally:
            os.close(descriptor)


def _try_lock(descriptor: int, name: str) -> bool:
    with volume_errors(name):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
                return False
            raise
    return True


def _found(status: os.stat_result) -> FoundFile | None:
    return FoundFile(status.st_size, status.st_mtime_ns, status.st_ino) if stat.S_ISREG(status.st_mode) else None
