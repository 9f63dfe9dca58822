"""Removes an artifact from its volume. No link is followed, and a half-removed artifact is never taken for a whole one.

The folder first gets another name beside itself, at once; a removal that was cut off leaves only that, and the next
one clears it away.
"""

import errno
import logging
import os
import shutil
import stat
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

from berth.provision.errors import ProvisionError, Reason
from berth.provision.volume import Volume, volume_errors

TRASH = ".trash-"
"""Beginning of the name of a folder that is being removed."""

log = logging.getLogger("berth.provision")


def remove(destination: Path, patience: float, stop: threading.Event) -> None:
    """Removes the folder with all that is in it; nothing to do when there is none. Raises ProvisionError.

    Waits until nobody writes to it, at most for `patience` seconds.
    """
    name = destination.name
    if not name or name == ".." or name.startswith(TRASH):
        raise ProvisionError(Reason.UNSAFE_PATH, f"{destination} is no folder of an artifact: nothing was removed")
    parent = _opened(destination.parent)
    if parent is None:
        return
    try:
        _clear(parent)
        if not _is_folder(parent, name):
            return
        with ExitStack() as stack:
            try:
                volume = stack.enter_context(Volume(destination))
                stack.enter_context(volume.locked(patience, _waiting, stop.wait))
            except ProvisionError as error:
                if error.reason is not Reason.NO_SPACE:  # no lock file fits on the volume, so nobody holds one
                    raise
            with volume_errors(name):
                os.rename(name, TRASH + name, src_dir_fd=parent, dst_dir_fd=parent)
                os.fsync(parent)
            _clear(parent)  # a download that waited finds its folder gone, and begins anew in its next run
    finally:
        os.close(parent)


def _opened(folder: Path) -> int | None:
    with volume_errors(str(folder)), suppress(FileNotFoundError):
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return None


def _is_folder(parent: int, name: str) -> bool:
    """Whether it is there. Raises ProvisionError when it is something else than a folder."""
    with volume_errors(name):
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(found.st_mode):
            raise OSError(errno.ENOTDIR, "not a folder")
    return True


def _clear(parent: int) -> None:
    """Removes every folder that some removal has renamed; another one may be at it too."""
    with volume_errors("the volume"):
        for name in os.listdir(parent):
            if name.startswith(TRASH):
                log.info("removing %s", name)
                while _is_folder(parent, name):
                    with suppress(FileNotFoundError):  # the other one was quicker with a file: go on with the rest
                        shutil.rmtree(name, dir_fd=parent)
        os.fsync(parent)


def _waiting() -> None:
    log.info("a download is writing to this folder: waiting until it ends")
