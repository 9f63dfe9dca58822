"""How the download goes: counters that threads add to, shown as JSON and to Prometheus. Monotonic time only."""

import threading
import time
from collections import deque
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from berth.planning.model_figures import ModelFigures
from berth.provision.errors import ProvisionError

_WINDOW = 15.0
"""Seconds that "speed of late" looks back."""
_SAMPLE = 0.5


class Progress:
    """What status.provisioning shows, under the same names."""

    def __init__(self, uri: str, clean: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        """`clean` takes tokens out of what is shown."""
        self._lock = threading.Lock()
        self._clean, self._clock = clean, clock
        self.uri = clean(uri)
        self.revision: str | None = None
        self.bytes_total: int | None = None
        self.bytes_done = 0
        self.bytes_fetched = 0
        """Bytes that came over the network in this run, those thrown away included."""
        self.files_total: int | None = None
        self.files_done = 0
        self.file: str | None = None
        """The file that a server of single files loads."""
        self.figures: ModelFigures | None = None
        self.sized_all = False
        """Whether `bytes_total` has every file."""
        self.retries: dict[str, int] = {}
        self.verified = False
        self.attempt = 1
        self.last_error: str | None = None
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])
        self.registry = CollectorRegistry()
        self._bytes = Counter("berth_provision_bytes", "Bytes fetched over the network", registry=self.registry)
        self._retries = Counter(
            "berth_provision_retries", "Requests made again, by what went wrong", ["reason"], registry=self.registry
        )
        self._failures = Counter(
            "berth_provision_failures", "Downloads that ended without success", ["reason"], registry=self.registry
        )
        self._seconds = Counter(
            "berth_provision_seconds",
            "Seconds spent, by step: lock, list, inspect, check, fetch",
            ["step"],
            registry=self.registry,
        )
        self._file_seconds = Histogram(
            "berth_provision_file_seconds",
            "Seconds from the first request for a file until it was verified and in place",
            buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600),
            registry=self.registry,
        )
        total = Gauge("berth_provision_bytes_wanted", "Bytes of all files", registry=self.registry)
        total.set_function(lambda: float(self.bytes_total or 0))
        done = Gauge("berth_provision_bytes_present", "Bytes that are on the volume", registry=self.registry)
        done.set_function(lambda: float(self.bytes_done))

    def plan(
        self, bytes_total: int | None, bytes_done: int, files_total: int, files_done: int, *, sized_all: bool = True
    ) -> None:
        """What there is to do, and what is there already."""
        with self._lock:
            self.sized_all = sized_all
            self.bytes_total, self.bytes_done = bytes_total, bytes_done
            self.files_total, self.files_done = files_total, files_done

    def arrived(self, count: int) -> None:
        """Bytes came over the network and are stored."""
        self._bytes.inc(count)
        with self._lock:
            self.bytes_done += count
            self.bytes_fetched += count
            now = self._clock()
            if now - self._samples[-1][0] >= _SAMPLE:
                self._samples.append((now, self.bytes_fetched))
                while now - self._samples[0][0] > _WINDOW and len(self._samples) > 2:
                    self._samples.popleft()

    def present(self, count: int) -> None:
        """Bytes turned out to be on the volume, or, with a negative number, not to count any more."""
        with self._lock:
            self.bytes_done += count

    def sized(self, count: int) -> None:
        """The size of a file became known while it came."""
        with self._lock:
            self.bytes_total = (self.bytes_total or 0) + count

    def finished(self, seconds: float | None = None) -> None:
        """A file is in place."""
        if seconds is not None:
            self._file_seconds.observe(seconds)
        with self._lock:
            self.files_done += 1

    def retried(self, failure: ProvisionError) -> None:
        """Something went wrong and is tried again."""
        self._retries.labels(failure.reason).inc()
        with self._lock:
            self.retries[failure.reason] = self.retries.get(failure.reason, 0) + 1
        self.last_error = self._clean(f"{failure.reason}: {failure.message}")

    def failed(self, failure: ProvisionError) -> None:
        """The download ends here."""
        self._failures.labels(failure.reason).inc()
        self.last_error = self._clean(f"{failure.reason}: {failure.message}")

    def spent(self, step: str, seconds: float) -> None:
        """A step took that long."""
        self._seconds.labels(step).inc(seconds)

    @property
    def bytes_missing(self) -> int | None:
        """Bytes that are still to be fetched, where that is known."""
        if self.bytes_total is None or not self.sized_all:
            return None
        return max(0, self.bytes_total - self.bytes_done)

    def document(self) -> dict[str, object]:
        """Everything under the names of status.provisioning."""
        with self._lock:
            speed = self._speed()
            left = None if self.bytes_total is None else max(0, self.bytes_total - self.bytes_done)
            return {
                "uri": self.uri,
                "revision": self.revision,
                "bytesTotal": self.bytes_total,
                "bytesDone": self.bytes_done,
                "percent": _percent(self.bytes_done, self.bytes_total),
                "bytesPerSecond": speed,
                "etaSeconds": -(-left // speed) if left is not None and speed else (0 if left == 0 else None),
                "filesTotal": self.files_total,
                "filesDone": self.files_done,
                "verified": self.verified,
                "attempt": self.attempt,
                "lastError": self.last_error,
            }

    def _speed(self) -> int:
        now = self._clock()
        since, before = next(((at, count) for at, count in self._samples if now - at <= _WINDOW), self._samples[-1])
        elapsed = now - since
        return int((self.bytes_fetched - before) / elapsed) if elapsed > 0.05 else 0


def _percent(done: int, total: int | None) -> int | None:
    if total is None:
        return None
    return 100 if total == 0 else max(0, min(100, done * 100 // total))
