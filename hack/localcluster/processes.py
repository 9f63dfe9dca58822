"""Processes: who they are, and how a cluster's are started, listed and ended.

A process id alone may by now belong to somebody else, so it is kept together with the time its process
started. Only process 1 of a cluster is ever signalled from outside; all others are its children, and the
kernel ends them with it.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from localcluster.errors import ClusterError, with_log


@dataclasses.dataclass(frozen=True)
class Identity:
    """One process, for good: ids are used again, an id with a start time is not."""

    pid: int
    start_time: str

    def alive(self) -> bool:
        """Tell whether exactly this process runs."""
        return identify(self.pid) == self


@dataclasses.dataclass(frozen=True)
class Component:
    """A process of a cluster, as its process 1 knows it and as the host sees it."""

    name: str
    alive: bool
    result: str
    pid: int | None


def identify(pid: int) -> Identity | None:
    """Return the identity of a running process; None when there is none, or only its remains."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else Identity(pid, fields[19])


def memory(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


def wait_until(condition: Callable[[], bool], seconds: float, interval: float = 0.02) -> bool:
    """Look again and again until a condition holds; tell whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


class Init:
    """Process 1 of one cluster."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def identity(self) -> Identity | None:
        """Return process 1 if it runs.

        It holds a lock for life and writes down who it is first of all. A lock without such a note is a
        process 1 that only just began: its note is waited for.
        """
        written = self._written()
        if written is not None and written.alive():
            return written
        if not self._lock_is_held():
            return None
        wait_until(lambda: self._alive() is not None or not self._lock_is_held(), 5)
        return self._alive()

    def start(self, binary: Path, name: str, log: Path) -> Identity:
        """Make the namespaces and process 1 in them, unless it runs."""
        if (running := self.identity()) is None:
            (self.root / "init.json").unlink(missing_ok=True)
            (self.root / "init.sock").unlink(missing_ok=True)
            with open(self.root / "init.lock", "w") as lock, open(log, "ab") as output:
                fcntl.flock(lock, fcntl.LOCK_EX)
                started = subprocess.run(
                    (binary, "start", self.root, name, str(lock.fileno())),
                    check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    pass_fds=(lock.fileno(),), cwd="/",
                )  # fmt: skip
            running = self.identity() if started.returncode == 0 else None
        socket_file = self.root / "init.sock"
        if running is not None:
            wait_until(lambda: socket_file.exists() or not running.alive(), 10)
        if running is None or not socket_file.exists() or not running.alive():
            raise with_log("the cluster's namespaces could not be made", log)
        return running

    def run(self, name: str, args: Sequence[str | Path], log: Path, env: dict[str, str] | None = None) -> None:
        """Start a component unless it runs."""
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})}
        self._ask(
            {
                "do": "start",
                "name": name,
                "args": [str(a) for a in args],
                "env": [f"{key}={value}" for key, value in environment.items()],
                "log": str(log),
            }
        )

    def stop(self, name: str) -> None:
        """End a component: SIGTERM, and SIGKILL after a second."""
        self._ask({"do": "stop", "name": name})

    def components(self) -> dict[str, Component]:
        """Return the components that were started, by name."""
        init = self.identity()
        if init is None:
            return {}
        pids = _children(init.pid)
        return {
            c["name"]: Component(c["name"], c["alive"], c["result"], pids.get(c["pid"]) if c["alive"] else None)
            for c in self._ask({"do": "list"})
        }

    def end(self) -> None:
        """End process 1 and with it everything in its namespaces."""
        init = self.identity()
        if init is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(init.pid, signal.SIGTERM)
        if not wait_until(lambda: not init.alive(), 2):
            with contextlib.suppress(ProcessLookupError):
                os.kill(init.pid, signal.SIGKILL)
            if not wait_until(lambda: not init.alive(), 10):
                raise ClusterError(f"process {init.pid} does not end")

    def _written(self) -> Identity | None:
        try:
            return Identity(**json.loads((self.root / "init.json").read_text()))
        except FileNotFoundError:
            return None

    def _alive(self) -> Identity | None:
        written = self._written()
        return written if written is not None and written.alive() else None

    def _lock_is_held(self) -> bool:
        try:
            with open(self.root / "init.lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    def _ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            try:
                connection.connect(str(self.root / "init.sock"))
                connection.sendall(json.dumps(request).encode())
                reply = json.load(connection.makefile("rb"))
            except (OSError, ValueError) as error:
                raise ClusterError(f"process 1 of the cluster in {self.root} does not answer: {error}") from error
        if reply["error"]:
            raise ClusterError(f"the cluster in {self.root}: {reply['error']}")
        components: list[dict[str, Any]] = reply["components"] or []
        return components


def _children(parent: int) -> dict[int, int]:
    """Map the ids of a process 1's children, as seen in its namespace, to the ids that the host sees."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines() if ":" in line)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(status["PPid"]) == parent:
            found[int(status["NSpid"].split()[-1])] = int(entry.name)
    return found
