"""Fetching files: several connections share the parts of several files, and one reader per file hashes behind them.

The connections write parts where they belong; the reader follows the first missing byte, so that the digest is made in
the same pass, from what the kernel still holds in memory, whatever the order in which parts arrive.
"""

import hashlib
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpcore2
import httpx2

from berth.provision import answers, client, paths, space
from berth.provision.answers import Origin, shown_url
from berth.provision.errors import ProvisionError, Reason
from berth.provision.listing import RemoteFile
from berth.provision.manifest import StoredFile
from berth.provision.partial import MOST_UNWRITTEN, PART, Partial
from berth.provision.progress import Progress
from berth.provision.retrying import RetryPolicy, wait_before_retry
from berth.provision.volume import Volume

_TLS_READ = 64 * 1024
"""A read over TLS brings at most 16 KiB; setting aside more memory for each costs more than reading."""
_PLAIN_READ = 128 * 1024
_BLOCK = 1024 * 1024
_SLOWEST_WINDOW = 60.0
_SLOWEST_BYTES = 60 * 1024
"""A connection that brings less than this within the window has stalled, even if a byte comes now and then."""

_GAIN = 64 * 1024
"""Bytes that a try has to bring so that the failures before it are forgotten."""
_REPORT = 1024 * 1024
_REPORT_SECONDS = 0.5
"""Bytes, or seconds, after which what has arrived is counted: a slow download moves too."""
_OF_A_SIGNED_URL = frozenset(
    {
        Reason.TOKEN_MISSING,
        Reason.TOKEN_REFUSED,
        Reason.GATED,
        Reason.NOT_FOUND,
        Reason.REQUEST_REFUSED,
        Reason.UNEXPECTED_CONTENT,
        Reason.SIZE_MISMATCH,
    }
)
"""What a URL that ran out may be answered with."""

log = logging.getLogger("berth.provision")


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """How files are fetched."""

    connections: int = 4
    part: int = PART
    limit: int | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)


def read_size(connections: int, *, plain: bool) -> int:
    """Bytes to read at once: much, but so that all connections together hold little that a kill would lose."""
    return min(_PLAIN_READ if plain else _TLS_READ, MOST_UNWRITTEN // connections)


class _StoppedError(Exception):
    """Somebody else failed, or the process is to end."""


class _RangeIgnoredError(Exception):
    """The server sent the whole file although a part was asked for."""


class FileTransfer:
    """One file that is being fetched."""

    def __init__(self, file: RemoteFile, partial: Partial, begun: float) -> None:
        self.file, self.partial, self.begun = file, partial, begun
        self.waiting = deque(partial.missing())
        self.at_work: set[int] = set()
        self.ranges: bool | None = None if file.size is not None else False
        """Whether the server sends parts; None until its first answer, which one connection waits for alone."""
        self.shortcut: str | None = None
        """Where a redirect led, so that the hub is not asked for every part."""
        self.may_shortcut = True
        self.mismatches = 0
        self.generation = 0
        """Counts how often it began from nothing."""
        self.complete = not self.waiting and file.size is not None
        self.arrived = threading.Condition()

    @property
    def takable(self) -> bool:
        """Whether another connection may take a part now."""
        return bool(self.waiting) and (bool(self.ranges) or not self.at_work)

    def tell(self) -> None:
        """Wakes the reader."""
        with self.arrived:
            self.arrived.notify_all()


class Transfer:
    """Fetches files until all are there, or one of them cannot be had."""

    def __init__(
        self,
        http: httpx2.Client,
        volume: Volume,
        origin: Origin,
        progress: Progress,
        settings: TransferSettings,
        finished: Callable[[RemoteFile, StoredFile], None],
        stop: threading.Event,
    ) -> None:
        """`finished` is called for each file that is verified and in place, one at a time."""
        self._http, self._volume, self._origin = http, volume, origin
        self._progress, self._settings, self._finished = progress, settings, finished
        self._changed = threading.Condition()
        self._queue: deque[RemoteFile] = deque()
        self._active: list[FileTransfer] = []
        self._readers: list[threading.Thread] = []
        self._stop = stop
        self._failure: BaseException | None = None
        self._not_before = 0.0
        self._total_known = 0

    def prepare(self, files: Iterable[RemoteFile]) -> int:
        """The bytes that earlier runs left for these files. Nothing is asked of the network."""
        present = 0
        for file in files:
            self._queue.append(file)
            if self._volume.find(file.path + paths.PARTIAL) is None:
                continue
            partial = Partial(self._volume, file.path, file.size, file.identity, self._settings.part)
            present += partial.arrived
            partial.close()
        return present

    def run(self, total_known: int) -> None:
        """Fetches what was prepared. `total_known` are the bytes of all files of known size, for the limit."""
        self._total_known = total_known
        # Each read goes through all layers of the HTTP library: with its 64 KiB that takes a fifth of the speed.
        plain = all(file.url.startswith("http://") for file in self._queue)
        httpcore2.HTTP11Connection.READ_NUM_BYTES = read_size(self._settings.connections, plain=plain)
        workers = [
            threading.Thread(target=self._guarded, args=(self._work,), daemon=True, name=f"connection-{number}")
            for number in range(self._settings.connections)
        ]
        for worker in workers:
            worker.start()
        with self._changed:
            while not self._over():
                self._changed.wait(0.5)
            self._changed.notify_all()
        if self._failure is None and not self._stop.is_set():
            for worker in workers:  # one may be about to say that the last file could not even be opened
                worker.join()
        if self._failure is not None or self._stop.is_set():
            self._end_early(workers)

    def _end_early(self, workers: list[threading.Thread]) -> None:
        self._stop.set()
        for transfer in list(self._active):
            transfer.tell()
        until = time.monotonic() + 3
        threads = [*workers, *self._readers]
        for thread in threads:  # one may hang in a read until its timeout: it writes nothing any more
            thread.join(max(0.0, until - time.monotonic()))
        if not any(thread.is_alive() for thread in threads):  # else the descriptors stay, lest another file gets them
            for transfer in self._active:
                transfer.partial.close()
        if self._failure is not None:
            raise self._failure
        raise ProvisionError(Reason.INTERRUPTED, "stopped before all files had arrived; the next run goes on from here")

    def _over(self) -> bool:
        return self._failure is not None or self._stop.is_set() or not (self._queue or self._active)

    def _guarded(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except _StoppedError:
            pass
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
                self._stop.set()
                self._changed.notify_all()

    # Connections

    def _work(self) -> None:
        while True:
            taken = self._take()
            if taken is None:
                return
            transfer, index = taken
            self._fetch(transfer, index)
            with self._changed:
                transfer.at_work.discard(index)
                if transfer.file.size is None or not (transfer.partial.missing() or transfer.at_work):
                    transfer.complete = True
                self._changed.notify_all()
            transfer.tell()

    def _take(self) -> tuple[FileTransfer, int] | None:
        with self._changed:
            while not self._over():
                for transfer in self._active:
                    if transfer.takable:
                        index = transfer.waiting.popleft()
                        transfer.at_work.add(index)
                        return transfer, index
                if self._queue and len(self._active) < self._settings.connections:
                    self._open(self._queue.popleft())
                    continue
                self._changed.wait(0.5)
            return None

    def _open(self, file: RemoteFile) -> None:
        partial = Partial(self._volume, file.path, file.size, file.identity, self._settings.part)
        transfer = FileTransfer(file, partial, time.monotonic())
        self._active.append(transfer)
        reader = threading.Thread(
            target=self._guarded, args=(self._follow, transfer), daemon=True, name=f"reader of {file.path}"
        )
        self._readers = [other for other in self._readers if other.is_alive()] + [reader]
        reader.start()

    def _fetch(self, transfer: FileTransfer, index: int) -> None:
        """Brings one part, or all that is left when the server knows no parts, through whatever goes wrong."""
        failures, best = 0, transfer.partial.position(index)
        while True:
            self._wait_until(self._not_before)
            if transfer.ranges is False:
                index = 0
            shortcut = transfer.shortcut
            try:
                self._stream(transfer, index)
                return
            except _RangeIgnoredError:
                self._begin_again(transfer)
                transfer.ranges, best = False, 0
                continue
            except ProvisionError as error:
                failure = error
            if shortcut and failure.reason in _OF_A_SIGNED_URL:
                transfer.shortcut, transfer.may_shortcut = None, False
                continue
            reached = transfer.partial.position(index) if transfer.ranges else transfer.partial.arrived
            failures = 1 if reached - best >= _GAIN else failures + 1
            best = max(best, reached)
            self._pause(failure, failures)

    def _pause(self, failure: ProvisionError, failures: int) -> None:
        """Waits until the next try, or raises the failure when there is none."""
        wait = wait_before_retry(failure, failures, self._settings.retry, random.random())  # noqa: S311
        if wait is None:
            raise failure
        self._progress.retried(failure)
        log.warning("%s: %s; again in %.1f s", failure.reason, failure.message, wait)
        until = time.monotonic() + wait
        if failure.retry_after is not None:  # meant for all connections
            self._not_before = max(self._not_before, until)
        self._wait_until(until)

    def _wait_until(self, moment: float) -> None:
        while (left := moment - time.monotonic()) > 0:
            if self._stop.wait(left):
                break
        if self._stop.is_set():
            raise _StoppedError

    def _stream(self, transfer: FileTransfer, index: int) -> None:
        """One request, and its body to the volume."""
        file, partial = transfer.file, transfer.partial
        if transfer.ranges is False and partial.arrived:
            self._begin_again(transfer)
        position = partial.position(index)
        end = partial.bounds(index)[1]
        asked = None
        if transfer.ranges is not False and not (position == 0 and end == file.size):
            asked = (position, end - 1)
        url = transfer.shortcut or file.url
        headers = dict(file.headers)
        if transfer.shortcut and not _same_host(transfer.shortcut, file.url):
            headers.pop("Authorization", None)
        if asked:
            headers["Range"] = f"bytes={asked[0]}-{asked[1]}"
            if file.validator:
                headers["If-Range"] = file.validator
        with client.ask(self._http, url, headers, self._origin) as response:
            came = answers.body(response.status_code, response.headers, file.path, asked, file.size)
            self._check_answer(transfer, came, response)
            if response.history and transfer.may_shortcut:
                transfer.shortcut = str(response.url)
            self._store(transfer, index, came, response)

    def _check_answer(self, transfer: FileTransfer, came: answers.Body, response: httpx2.Response) -> None:
        file = transfer.file
        tag = answers.strong_validator(response.headers)
        if file.validator and tag and tag != file.validator:
            raise ProvisionError(Reason.SIZE_MISMATCH, f"{file.path} changed on the server while it was fetched")
        if came.ranged:
            with self._changed:
                transfer.ranges = True
                self._changed.notify_all()
            return
        if transfer.partial.size is not None and transfer.ranges is not False:
            if transfer.ranges:
                raise ProvisionError(Reason.UNEXPECTED_CONTENT, f"the server sent all of {file.path} instead of a part")
            if len(transfer.partial.written) > 1 or transfer.partial.arrived:
                raise _RangeIgnoredError
        if not came.framed and not file.verifiable and file.size is None:
            raise ProvisionError(
                Reason.UNKNOWN_LENGTH,
                f"nobody can tell whether {file.path} is complete: the server names no length; set source.sha256",
            )

    def _store(self, transfer: FileTransfer, index: int, came: answers.Body, response: httpx2.Response) -> None:
        partial = transfer.partial
        position = partial.position(index)
        end = came.start + came.length if came.length is not None else None
        limit = partial.size if not came.ranged else partial.bounds(index)[1]
        counted = position
        counted_at = window_from = time.monotonic()
        window_bytes = 0
        try:
            for chunk in response.iter_raw():
                if self._stop.is_set():
                    raise _StoppedError
                if limit is not None and position + len(chunk) > limit:
                    raise ProvisionError(
                        Reason.SIZE_MISMATCH, f"more bytes of {transfer.file.path} came than it should have"
                    )
                partial.write(position, chunk)
                before, position = position, position + len(chunk)
                if before // self._settings.part != position // self._settings.part:
                    done = min(before // self._settings.part, len(partial.written) - 1)
                    partial.flush(done, done)
                now = time.monotonic()
                if position - counted >= _REPORT or now - counted_at >= _REPORT_SECONDS:
                    self._count(transfer, position - counted, position)
                    counted, counted_at = position, now
                    transfer.tell()
                window_bytes += len(chunk)
                if now - window_from > _SLOWEST_WINDOW:
                    if window_bytes < _SLOWEST_BYTES:
                        raise ProvisionError(Reason.STALLED, f"{transfer.file.path} comes too slowly")
                    window_from, window_bytes = now, 0
        finally:
            self._count(transfer, position - counted, position)
        expected = limit if end is None else end
        if expected is not None and position < expected:
            raise ProvisionError(Reason.CONNECTION_CUT, f"{transfer.file.path} ended at byte {position} of {expected}")

    def _count(self, transfer: FileTransfer, count: int, position: int) -> None:
        self._progress.arrived(count)
        if transfer.file.size is None:
            self._progress.sized(count)
            space.check_limit(self._total_known + position, self._settings.limit)

    def _begin_again(self, transfer: FileTransfer) -> None:
        """Forgets what has arrived of a file that only this connection works on, and takes all of it."""
        with self._changed:
            lost = transfer.partial.arrived
            transfer.waiting.clear()
            transfer.partial.reset()
            transfer.generation += 1  # after the reset: a reader that sees it reads none of the old bytes
        self._progress.present(-lost)
        if transfer.file.size is None:
            self._progress.sized(-lost)

    # Readers

    def _follow(self, transfer: FileTransfer) -> None:
        """Hashes a file behind its connections, then puts it in place; a wrong one is fetched once more."""
        while True:
            digests = self._digest(transfer)
            mismatch = _compare(transfer.file, transfer.partial.arrived, digests)
            if mismatch is None:
                break
            transfer.mismatches += 1
            try:
                self._pause(mismatch, transfer.mismatches)
            except ProvisionError:
                transfer.partial.discard()
                raise
            self._fetch_anew(transfer)
        transfer.partial.publish()
        transfer.partial.close()
        stored = StoredFile(transfer.file.path, transfer.partial.arrived, digests[0], transfer.file.verifiable)
        with self._changed:
            self._finished(transfer.file, stored)
            self._progress.finished(time.monotonic() - transfer.begun)
            self._active.remove(transfer)
            self._changed.notify_all()

    def _fetch_anew(self, transfer: FileTransfer) -> None:
        with self._changed:
            lost = transfer.partial.arrived
            transfer.partial.reset()
            transfer.generation += 1
            transfer.complete = False
            transfer.shortcut, transfer.may_shortcut = None, False
            transfer.waiting.extend([0] if transfer.ranges is False else range(len(transfer.partial.written)))
            self._progress.present(-lost)
            self._changed.notify_all()

    def _digest(self, transfer: FileTransfer) -> tuple[str, str]:
        """SHA-256, and the id of the git blob where that is what can be compared."""
        buffer = memoryview(
            bytearray(min(_BLOCK, max(1, transfer.file.size if transfer.file.size is not None else _BLOCK)))
        )
        generation, hashed = -1, 0
        sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
        git = bool(transfer.file.git_oid)
        while True:
            if self._stop.is_set():
                raise _StoppedError
            if generation != transfer.generation:
                generation, hashed = transfer.generation, 0
                sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
                sha1.update(b"blob %d\0" % (transfer.file.size or 0))
            complete = transfer.complete
            frontier = transfer.partial.frontier(hashed)
            if hashed < frontier:
                count = transfer.partial.read_into(buffer[: frontier - hashed], hashed)
                sha256.update(buffer[:count])
                if git:
                    sha1.update(buffer[:count])
                hashed += count
            elif complete and generation == transfer.generation:
                return sha256.hexdigest(), sha1.hexdigest()
            else:
                with transfer.arrived:
                    if transfer.partial.frontier(hashed) <= hashed and not transfer.complete:
                        transfer.arrived.wait(0.2)


def _compare(file: RemoteFile, size: int, digests: tuple[str, str]) -> ProvisionError | None:
    """The failure when what arrived is not what was published."""
    if file.size is not None and size != file.size:
        return ProvisionError(Reason.SIZE_MISMATCH, f"{file.path} has {size} bytes and should have {file.size}")
    for name, expected, actual in (("sha256", file.sha256, digests[0]), ("git blob id", file.git_oid, digests[1])):
        if expected and expected != actual and (name == "sha256" or not file.sha256):
            return ProvisionError(
                Reason.CHECKSUM_MISMATCH, f"{file.path} has the {name} {actual} and should have {expected}"
            )
    return None


def hash_file(volume: Volume, file: RemoteFile, stop: threading.Event) -> StoredFile | None:
    """The file on the volume when it is the one that is wanted; None when it is not."""
    descriptor = volume.open(file.path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
        sha1.update(b"blob %d\0" % (file.size or 0))
        buffer = memoryview(bytearray(_BLOCK))
        size = 0
        while count := stream.readinto(buffer):
            if stop.is_set():
                raise ProvisionError(Reason.INTERRUPTED, f"stopped while {file.path} was read")
            sha256.update(buffer[:count])
            if file.git_oid:
                sha1.update(buffer[:count])
            size += count
    if _compare(file, size, (sha256.hexdigest(), sha1.hexdigest())):
        return None
    return StoredFile(file.path, size, sha256.hexdigest(), verified=True)


def _same_host(one: str, other: str) -> bool:
    return shown_url(one).split("/")[:3] == shown_url(other).split("/")[:3]
