"""Where a cluster's files are, what is written down about it, and who may change it.

Everything of a cluster is in one folder, and its description is written before the first thing is made:
a command that is killed at any moment leaves enough behind for the next `up` or `down` to go on from.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from localcluster.errors import ClusterError

Kind = Literal["processes", "kind", "existing"]

# Unix socket addresses hold 107 characters; this is the longest name below a cluster's folder.
_LONGEST_SOCKET = "containerd.sock.ttrpc"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?")


@dataclasses.dataclass
class State:
    """What is written down about one cluster."""

    name: str
    kind: Kind
    slot: int = -1
    control_plane: bool = False
    audit: bool = False
    gpus: int = 4
    simulated_cidr: str = ""
    kubeconfig: str = ""


def cache_folder() -> Path:
    """Return the folder for what is built once and shared by all clusters."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berth" / "cluster"


def clusters_folder() -> Path:
    """Return the folder that holds one folder for each cluster."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "berth" / "clusters"


@dataclasses.dataclass(frozen=True)
class Paths:
    """The names of a cluster's files."""

    root: Path

    @property
    def description(self) -> Path:
        """What is written down: see State."""
        return self.root / "cluster.json"

    @property
    def logs(self) -> Path:
        """All logs, one file for each component."""
        return self.root / "log"

    @property
    def audit_log(self) -> Path:
        """Every request to the API server, where that was asked for."""
        return self.logs / "audit.log"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.root / "pki"

    @property
    def conf(self) -> Path:
        """Configuration files and kubeconfigs of the components."""
        return self.root / "conf"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """Where this cluster's containerd listens."""
        return self.root / "containerd.sock"

    @property
    def volumes(self) -> Path:
        """The folders behind the PersistentVolumes of the default StorageClass."""
        return self.root / "volumes"


def paths(name: str) -> Paths:
    """Return where the files of the cluster of this name are, or would be."""
    if not _NAME.fullmatch(name):
        raise ClusterError(f"{name!r} is no cluster name: use up to 30 lower-case letters, digits and dashes")
    root = clusters_folder().absolute() / name
    if len(os.fsencode(root / _LONGEST_SOCKET)) > 107:
        raise ClusterError(f"{root} is too long for the sockets in it; set XDG_STATE_HOME to a shorter folder")
    return Paths(root)


def load(where: Paths) -> State | None:
    """Return what is written down about a cluster; None when there is none."""
    try:
        return State(**json.loads(where.description.read_text()))
    except FileNotFoundError:
        return None


def save(where: Paths, state: State) -> None:
    """Write a cluster's description."""
    write(where.description, json.dumps(dataclasses.asdict(state), indent=1))


def write(target: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Make a file hold this; a reader sees the old content or the new one, nothing between.

    A file that holds it already is not touched: kube-proxy ends when its configuration is written again.
    """
    data = content.encode() if isinstance(content, str) else content
    if target.exists() and target.read_bytes() == data:
        return
    temporary = target.with_name(f".{target.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    temporary.replace(target)


def all_states() -> list[State]:
    """Return every cluster that is written down for this user."""
    found = (load(Paths(p)) for p in sorted(clusters_folder().glob("*")) if p.is_dir())
    return [state for state in found if state is not None]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process. Folders are locked themselves: no lock files are left behind.

    Whoever waited while the folder was deleted and made again has locked the deleted one; it tries again.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle, folder):
                yield
                return
        finally:
            os.close(handle)


def _is_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(folder))
    except FileNotFoundError:
        return False
