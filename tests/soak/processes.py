"""The processes of a local cluster: which there are, and the deliberate end of one of them.

Only what runs in the cluster's own process namespace is looked at, and nothing else is ever signalled.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localcluster import api
from localcluster.local import LocalCluster
from localcluster.processes import Identity, identify

SERVER = "llama-server"
SHIM = "containerd-shim"


@dataclass(frozen=True)
class Running:
    """A process of the cluster."""

    identity: Identity
    parent: int
    name: str
    cgroup: str


class ClusterProcesses:
    """The processes of one cluster, found anew with each look."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._cluster = LocalCluster(*api.find(name))

    def all(self) -> list[Running]:
        """Every process below the cluster's process 1."""
        init = self._cluster.init.identity()
        assert init is not None, f"cluster {self._name} is not up"
        seen = {running.identity.pid: running for running in _look()}
        ours: dict[int, bool] = {init.pid: True}

        def belongs(pid: int) -> bool:
            if pid not in ours:
                ours[pid] = pid in seen and belongs(seen[pid].parent)
            return ours[pid]

        return [running for pid, running in seen.items() if pid != init.pid and belongs(pid)]

    def census(self) -> Counter[str]:
        """How many there are of each name."""
        return Counter(running.name for running in self.all())

    def kill_server(self, pod_uid: str) -> None:
        """kill -9 of the llama-server of a Pod."""
        self._kill(self._server(pod_uid))

    def kill_shim(self, pod_uid: str) -> None:
        """kill -9 of the shim that holds the containers of a Pod."""
        server = self._server(pod_uid)
        (shim,) = [one for one in self.all() if one.identity.pid == server.parent]
        assert shim.name.startswith(SHIM), shim
        self._kill(shim)

    def kill_containerd(self) -> None:
        """kill -9 of the container runtime; `repair` starts it again."""
        pid = self._cluster.init.components()["containerd"].pid
        (runtime,) = [one for one in self.all() if one.identity.pid == pid]
        self._kill(runtime)

    def repair(self) -> None:
        """Start what was killed."""
        api.ensure(self._name)

    def _server(self, pod_uid: str) -> Running:
        (server,) = [one for one in self.all() if one.name == SERVER and f"pod{pod_uid}" in one.cgroup]
        return server

    @staticmethod
    def _kill(running: Running) -> None:
        assert identify(running.identity.pid) == running.identity, f"{running} ended by itself"
        os.kill(running.identity.pid, signal.SIGKILL)


def _look() -> Iterator[Running]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        pid = int(folder.name)
        identity = identify(pid)
        try:
            text, cgroup = (folder / "stat").read_text(), (folder / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if identity is not None:
            name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
            yield Running(identity, int(rest[1]), name, cgroup)
