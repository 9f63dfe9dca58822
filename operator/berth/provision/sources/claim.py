"""`pvc://claim/path`: weights that are on a volume already. Looks whether they are there, and writes nothing."""

import os
from pathlib import Path, PurePosixPath

from berth.provision.errors import ProvisionError, Reason
from berth.provision.listing import select
from berth.provision.manifest import Request


def check_claim(request: Request, root: Path) -> dict[str, int]:
    """The files of the source with their sizes, by path below the claim, which is mounted at `root`.

    Links are followed, for another tool may have laid out the volume with them, but not out of it.
    """
    rest = request.uri.removeprefix("pvc://").partition("#")[0]
    parts = [part for part in rest.partition("/")[2].split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ProvisionError(Reason.UNSAFE_PATH, "the path leaves its volume: remove '..' from source.uri")
    top = root.resolve()
    start = Path(top, *parts)
    if not start.resolve().is_relative_to(top):
        raise ProvisionError(Reason.UNSAFE_PATH, f"{'/'.join(parts)} is a link that leaves the volume")
    shown = "/".join(parts) or "the volume"
    if start.is_file():
        return {"/".join(parts): start.stat().st_size}
    if not start.is_dir():
        raise ProvisionError(Reason.NOT_FOUND, f"{shown} is not on the claim: check the path in source.uri")
    found: dict[str, int] = {}
    for folder, _, names in os.walk(start):
        for name in names:
            file = Path(folder, name)
            if file.is_file() and file.resolve().is_relative_to(top):
                found[str(PurePosixPath(file.relative_to(start)))] = file.stat().st_size
    if not found:
        raise ProvisionError(Reason.NOT_FOUND, f"{shown} on the claim holds no files: copy the weights there first")
    return {name: found[name] for name in select(sorted(found), request.include)}
