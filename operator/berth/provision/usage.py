"""What an artifact takes on its volume, and what the volume has left. Nothing here fails: unknown is None."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from berth.provision import paths

_BLOCK = 512
"""The unit of st_blocks, whatever the file system's own is."""


def bytes_present(root: Path) -> int:
    """Bytes of the artifact's files that are on the volume; of unfinished ones, which have holes, what takes room."""
    total = 0
    for folder, subfolders, names, descriptor in os.fwalk(root, follow_symlinks=False):
        if Path(folder) == root and paths.CONTROL in subfolders:
            subfolders.remove(paths.CONTROL)
        for name in names:
            if Path(folder) == root and name == paths.MANIFEST:
                continue
            with suppress(OSError):
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    unfinished = name.endswith(paths.PARTIAL)
                    total += min(found.st_size, found.st_blocks * _BLOCK) if unfinished else found.st_size
    return total


def volume_size(root: Path) -> tuple[int | None, int | None]:
    """Free bytes and all bytes of the volume that the folder is on, or would be on."""
    for place in (root, *root.parents):
        with suppress(OSError):
            found = os.statvfs(place)
            return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    return None, None
