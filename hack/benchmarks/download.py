"""`hack/bench download`: how fast the download program is beside curl and sha256sum, and what a kill costs."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.loopback_hub import MIB, REPOSITORY, Hub, Line, running

FILES = 4
UNHURRIED = Line(rate=32 * MIB, buffer=64 * 1024)
"""For kills: slower than the program, as networks are, so that nothing waits in the kernel and counts as fetched."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command took."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


@dataclass
class Measured:
    """Every repetition of one thing."""

    runs: list[Ended] = field(default_factory=list)

    def mib_per_s(self, mebibytes: int) -> float:
        """The median."""
        return round(mebibytes / median(run.seconds for run in self.runs), 1)

    def summary(self, mebibytes: int) -> dict[str, Any]:
        """Speeds from the slowest to the fastest, and the CPU seconds of the median run, children included."""
        return {
            "mib_per_s": sorted(round(mebibytes / run.seconds, 1) for run in self.runs),
            "cpu_seconds": round(median(run.cpu_seconds for run in self.runs), 2),
        }


def run(size_mib: int, repetitions: int) -> dict[str, Any]:
    """All figures of the benchmark; see docs/benchmarks.md for their meaning."""
    mebibytes = FILES * size_mib
    with _folder(mebibytes) as folder, running(FILES, size_mib) as hub:
        load = [round(os.getloadavg()[0], 2)]
        results = _compare(hub, folder, repetitions, mebibytes)
        load.append(round(os.getloadavg()[0], 2))
        refetched = [_killed(hub, folder) for _ in range(repetitions)]
        at_full_speed = [_killed_at_full_speed(hub, folder) for _ in range(repetitions)]
    speeds = {name: measured.mib_per_s(mebibytes) for name, measured in results.items()}
    curl_form = max((name for name in speeds if "curl" in name), key=speeds.__getitem__)
    return {
        "mib_per_s": speeds["berth"],
        "curl_mib_per_s": speeds[curl_form],
        "sha256sum_mib_per_s": speeds["sha256sum"],
        "ratio": round(speeds["berth"] / min(speeds[curl_form], speeds["sha256sum"]), 3),
        "rss_mib": max(ended.peak_mib for ended in results["berth"].runs),
        "refetched_bytes": max(refetched),
        "curl_form": curl_form,
        "refetched_bytes_each": refetched,
        "refetched_bytes_at_full_speed": [again for again, _ in at_full_speed],
        "of_these_read_by_the_program": [again - waiting for again, waiting in at_full_speed],
        "runs": {name: measured.summary(mebibytes) for name, measured in results.items()},
        "files": FILES,
        "size_mib": size_mib,
        "repetitions": repetitions,
        "cores": os.cpu_count(),
        "load_before_and_after": load,
    }


def _compare(hub: Hub, folder: Path, repetitions: int, mebibytes: int) -> dict[str, Measured]:
    """Everybody in turn, and the other way round every second time, so that what else goes on hits all alike."""
    contenders: dict[str, Callable[[], Ended]] = {
        "berth": lambda: _berth(hub, folder),
        "curl, one file after the other": lambda: _curl(hub, folder),
        "curl --parallel": lambda: _curl(hub, folder, "--parallel", "--parallel-max", str(FILES)),
        "curl, a process for each file": lambda: _curls(hub, folder),
        "sha256sum": lambda: _timed(["sha256sum", *_paths(hub, folder)]),
        "sha256sum, a process for each file": lambda: _timed(*(["sha256sum", path] for path in _paths(hub, folder))),
    }
    results = {name: Measured() for name in contenders}
    _curls(hub, folder)  # not counted: memory that the machine was not given before is slower at first
    for repetition in range(repetitions):
        for name in contenders if repetition % 2 == 0 else reversed(contenders):
            if "sha256sum" not in name:  # else the files of the last one, which are still in memory, are read
                _clear(folder)
            ended = contenders[name]()
            results[name].runs.append(ended)
            click.echo(f"{name}: {mebibytes / ended.seconds:.0f} MiB/s", err=True)
    return results


@contextmanager
def _folder(mebibytes: int) -> Iterator[Path]:
    """An empty folder with room for the files and the journals beside them; gone afterwards."""
    parent = os.environ.get("TMPDIR") or Path.home() / ".cache" / "berth"
    Path(parent).mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free // MIB
    if free < mebibytes + 512:
        raise click.ClickException(
            f"{parent} has {free} MiB free and {mebibytes + 512} are needed: set TMPDIR, or take a smaller --size-mib"
        )
    with tempfile.TemporaryDirectory(prefix="bench-download-", dir=parent) as folder:
        yield Path(folder)


def _clear(folder: Path) -> None:
    """Nothing of an earlier run is left, neither as files nor on its way to the disk."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    os.sync()


def _berth(hub: Hub, folder: Path) -> Ended:
    return _timed(_download(hub, folder), watched=True)


def _download(hub: Hub, folder: Path) -> list[str]:
    return [
        sys.executable, "-m", "berth.provision", "--uri", f"hf://{REPOSITORY}", "--endpoint", hub.url,
        "--destination", str(folder), "--termination-log", os.devnull, "--log-level", "warning",
    ]  # fmt: skip


def _paths(hub: Hub, folder: Path) -> list[str]:
    return [str(folder / name) for name in hub.names]


def _curl(hub: Hub, folder: Path, *options: str) -> Ended:
    files = [part for name in hub.names for part in ("-o", str(folder / name), hub.file_url(name))]
    return _timed(["curl", "-q", "--fail", "--no-progress-meter", *options, *files])


def _curls(hub: Hub, folder: Path) -> Ended:
    return _timed(*(["curl", "-q", "-fsS", "-o", str(folder / name), hub.file_url(name)] for name in hub.names))


def _timed(*commands: list[str], watched: bool = False) -> Ended:
    """Runs commands side by side until the last has ended; all have to succeed."""
    before, begun = os.times(), time.monotonic()
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    try:
        peak = _peak(processes[0]) if watched else 0.0
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    seconds, after = time.monotonic() - begun, os.times()
    if any(codes):
        raise click.ClickException(f"{commands[0][0]} ended with {codes}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Ended(seconds, cpu, peak)


def _peak(process: subprocess.Popen[bytes]) -> float:
    """The most memory a process has had until its end, in MiB. Not ru_maxrss: that begins with its parent's."""
    peak = 0
    while process.poll() is None:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        peak = int(found[1]) if found else peak
        time.sleep(0.02)
    return round(peak / 1024, 1)


def _killed(hub: Hub, folder: Path) -> int:
    """Bytes that the hub sent twice because the program was killed at half of the files and started again."""
    _clear(folder)
    hub.use(UNHURRIED)
    with _half_way(hub, folder):
        pass
    _timed(_download(hub, folder))
    return hub.sent() - len(hub.names) * hub.size


def _killed_at_full_speed(hub: Hub, folder: Path) -> tuple[int, int]:
    """The same without a limit, and how much of it the program had not read from the kernel when it was killed."""
    _clear(folder)
    hub.use(Line())
    with _half_way(hub, folder) as process:
        process.send_signal(signal.SIGSTOP)  # so that the buffers can be looked at; a kill ends it just as well
        before = (-1, -1)
        while (now := (hub.sent(), _in_socket_buffers(hub.port))) != before:
            before = now
            time.sleep(0.1)
    _timed(_download(hub, folder))
    return hub.sent() - len(hub.names) * hub.size, before[1]


@contextmanager
def _half_way(hub: Hub, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A download that has half of the bytes, and is killed afterwards."""
    process = subprocess.Popen(_download(hub, folder))
    try:
        while hub.sent() < len(hub.names) * hub.size // 2:
            if process.poll() is not None:
                raise click.ClickException(f"the download ended early, with {process.returncode}")
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.05))  # the hub, while it answers us, sends nothing: that must not be the moment
        yield process
    finally:
        process.kill()
        process.wait()


def _in_socket_buffers(port: int) -> int:
    """Bytes from this port that were sent and have not been read, on either side of the connections."""
    waiting = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        to_send, to_read = (int(part, 16) for part in queues.split(":"))
        if state != "0A":  # the backlog of a listening socket
            waiting += to_send * local.endswith(f":{port:04X}") + to_read * remote.endswith(f":{port:04X}")
    return waiting
