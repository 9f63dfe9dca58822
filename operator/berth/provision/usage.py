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
    with suppress(OSError):
        for folder, subfolders, names, descriptor in os.fwalk(root, follow_symlinks=False):
            if Path(folder) == root:
                subfolders[:] = [name for name in subfolders if name != paths.CONTROL]
                names = [name for name in names if name != paths.MANIFEST]
            total += sum(_bytes_of(name, descriptor) for name in names)
    return total


def _bytes_of(name: str, folder: int) -> int:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return 0
    if not stat.S_ISREG(found.st_mode) or name.endswith(paths.STATE):
        return 0
    return min(found.st_size, found.st_blocks * _BLOCK) if name.endswith(paths.PARTIAL) else found.st_size


def volume_size(root: Path) -> tuple[int | None, int | None]:
    """Free bytes and all bytes of the volume that the folder is on, or would be on."""
    for place in (root, *root.parents):
        with suppress(OSError):
            found = os.statvfs(place)
            return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    return None, None
