"""What the node's own files tell: processes, Pods by their folders of logs, memory, the current boot.

All of it may vanish while it is read; what is gone is left out.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from berth.agent.attribution import PodName, pods_of_log_folders
from berth.agent.readings import Memory

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_MEMINFO = re.compile(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", re.MULTILINE)


class NodeFiles:
    """The node's /proc and /var/log/pods, wherever they are mounted."""

    def __init__(self, proc: Path, pod_logs: Path) -> None:
        self._proc, self._pod_logs = proc, pod_logs

    def cgroups(self, pids: Iterable[int]) -> dict[int, str]:
        """The control groups of processes, as /proc/<pid>/cgroup has them."""
        found = {pid: self._read(f"{pid}/cgroup") for pid in pids}
        return {pid: text for pid, text in found.items() if text}

    def commands(self, pids: Iterable[int]) -> dict[int, str]:
        """Names of commands. Never their arguments: those may hold secrets."""
        found = {pid: self._read(f"{pid}/comm") for pid in pids}
        return {pid: _CONTROL.sub(" ", text).strip() for pid, text in found.items() if text}

    def pods(self) -> dict[str, PodName]:
        """Pods by uid."""
        try:
            return pods_of_log_folders(entry.name for entry in self._pod_logs.iterdir())
        except OSError:
            return {}

    def memory(self) -> Memory | None:
        """Memory of the node."""
        amounts = {name: int(kib) * 1024 for name, kib in _MEMINFO.findall(self._read("meminfo") or "")}
        if len(amounts) < 2:
            return None
        return Memory(total=amounts["MemTotal"], used=amounts["MemTotal"] - amounts["MemAvailable"])

    def boot_id(self) -> str | None:
        """Names the current boot."""
        text = self._read("sys/kernel/random/boot_id")
        return text.strip() if text else None

    def _read(self, path: str) -> str | None:
        try:
            return (self._proc / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
