"""One run of the download program, from the lock to the manifest."""

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from berth.provision import paths
from berth.provision.client import make_client
from berth.provision.errors import ProvisionError, Reason
from berth.provision.listing import Listing, RemoteFile
from berth.provision.manifest import (
    FinishedFile,
    Manifest,
    Request,
    Resolution,
    StoredFile,
    read_ledger,
    read_manifest,
    read_resolution,
    write_ledger_line,
    write_manifest,
    write_resolution,
)
from berth.provision.plan import Plan, complete, make_plan
from berth.provision.progress import Progress
from berth.provision.retrying import wait_before_retry
from berth.provision.sources import Source, SourceSettings
from berth.provision.sources.claim import check_claim
from berth.provision.sources.resolving import source_for
from berth.provision.space import check_limit, check_space
from berth.provision.transfer import Transfer, TransferSettings, hash_file
from berth.provision.volume import Volume

_LEDGER = f"{paths.CONTROL}/finished.jsonl"
_RESOLUTION = f"{paths.CONTROL}/resolution.json"

log = logging.getLogger("berth.provision")


@dataclass(frozen=True, slots=True)
class ProvisionSettings:
    """How a run behaves."""

    source: SourceSettings = field(default_factory=SourceSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    timeout: float = 60.0
    """Seconds of silence until a connection is given up."""
    lock_patience: float = 3600.0
    ca_files: tuple[Path, ...] = ()


def provision(
    request: Request,
    destination: Path,
    settings: ProvisionSettings,
    progress: Progress,
    clean: Callable[[str], str],
    stop: threading.Event,
) -> Manifest:
    """Brings what is asked for to the destination. Raises ProvisionError; what has arrived by then is kept.

    For `pvc://` the destination is where the claim is mounted; nothing is written, and the manifest is only returned.
    """
    if request.uri.startswith("pvc://"):
        return _check_mounted(request, destination, settings, progress, clean)
    source = source_for(request, settings.source)
    with Volume(destination) as volume:
        manifest = _finished_before(volume, request, progress)
        if manifest:
            return manifest
        with _Timed(progress, "lock") as timed, _lock(volume, settings, progress, stop):
            timed.end()
            manifest = _finished_before(volume, request, progress)
            if manifest:
                return manifest
            with make_client(settings.transfer.connections, settings.timeout, settings.ca_files) as http:
                run = _Run(request, volume, source, settings, progress, clean, stop, http)
                return run.run()


class _Timed:
    def __init__(self, progress: Progress, step: str) -> None:
        self._progress, self._step = progress, step
        self._since: float | None = None

    def __enter__(self) -> "_Timed":
        self._since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        if self._since is not None:
            self._progress.spent(self._step, time.monotonic() - self._since)
            self._since = None


@contextmanager
def _lock(volume: Volume, settings: ProvisionSettings, progress: Progress, stop: threading.Event) -> Iterator[None]:
    def waiting() -> None:
        log.info("another download is writing to this folder: waiting until it ends")
        progress.last_error = "Locked: another download is writing to this folder: waiting until it ends"

    with volume.locked(settings.lock_patience, waiting, stop.wait):
        progress.last_error = None
        yield


def _finished_before(volume: Volume, request: Request, progress: Progress) -> Manifest | None:
    manifest = read_manifest(volume.read(paths.MANIFEST) or b"")
    if manifest is None or not complete(manifest, request, volume.files()):
        return None
    progress.revision, progress.verified = manifest.revision, manifest.verified
    progress.plan(manifest.size, manifest.size, len(manifest.files), len(manifest.files))
    return manifest


def _check_mounted(
    request: Request, root: Path, settings: ProvisionSettings, progress: Progress, clean: Callable[[str], str]
) -> Manifest:
    if request.sha256:
        raise ProvisionError(Reason.INVALID_SOURCE, "sha256 is for a single https:// file, not for pvc://")
    found = check_claim(request, root)
    total = sum(found.values())
    check_limit(total, settings.transfer.limit)
    progress.plan(total, total, len(found), len(found))
    files = tuple(StoredFile(path, size, "", verified=False) for path, size in found.items())
    return Manifest(request.key, clean(request.uri), None, None, _now(), files)


def _now() -> str:
    """The only use of the wall clock: a date for people. Nothing is decided by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Run:
    """The steps under the lock."""

    def __init__(
        self,
        request: Request,
        volume: Volume,
        source: Source,
        settings: ProvisionSettings,
        progress: Progress,
        clean: Callable[[str], str],
        stop: threading.Event,
        http: httpx2.Client,
    ) -> None:
        self._request, self._volume, self._source, self._settings = request, volume, source, settings
        self._progress, self._clean, self._stop, self._http = progress, clean, stop, http
        self._identities: dict[str, str | None] = {}
        self._stored: dict[str, StoredFile] = {}

    def run(self) -> Manifest:
        with _Timed(self._progress, "list"):
            listing = self._resolve()
        manifest = read_manifest(self._volume.read(paths.MANIFEST) or b"")
        plan = make_plan(listing, self._volume.files(), read_ledger(self._volume.read(_LEDGER) or b""), manifest)
        for path in plan.stale:
            self._volume.remove(path)
        with _Timed(self._progress, "check"):
            plan = self._check_doubtful(plan)
        with _Timed(self._progress, "fetch"):
            self._fetch(plan, listing)
        self._write_inline(listing)
        for path in plan.obsolete:
            self._volume.remove(path)
        return self._conclude(listing)

    def _resolve(self) -> Listing:
        """The listing, at the revision that the first run found."""
        before = read_resolution(self._volume.read(_RESOLUTION) or b"")
        if before is None or before.request != self._request.key:
            before = Resolution(self._request.key, None, 0)
        self._progress.attempt = before.attempt + 1
        self._remember(replace(before, attempt=before.attempt + 1))
        listing = self._list(before.revision)
        self._remember(Resolution(self._request.key, listing.revision, before.attempt + 1))
        self._progress.revision = listing.revision
        return listing

    def _remember(self, resolution: Resolution) -> None:
        self._volume.write(_RESOLUTION, write_resolution(resolution))

    def _list(self, revision: str | None) -> Listing:
        failures = 0
        while True:
            try:
                return self._source.list(self._http, revision)
            except ProvisionError as failure:
                failures += 1
                wait = wait_before_retry(failure, failures, self._settings.transfer.retry, random.random())  # noqa: S311
                if wait is None:
                    raise
                self._progress.retried(failure)
                log.warning("%s: %s; again in %.1f s", failure.reason, failure.message, wait)
                if self._stop.wait(wait):
                    raise ProvisionError(Reason.INTERRUPTED, "stopped before anything was fetched") from None

    def _check_doubtful(self, plan: Plan) -> Plan:
        """Reads the files of which nobody knows whether they are right."""
        keep, fetch = list(plan.keep), list(plan.fetch)
        for file in plan.rehash:
            stored = hash_file(self._volume, file, self._stop)
            if stored is None:
                fetch.append(file)
            else:
                keep.append(stored)
                self._note(file, stored)
        return replace(plan, keep=tuple(keep), rehash=(), fetch=tuple(fetch))

    def _fetch(self, plan: Plan, listing: Listing) -> None:
        for stored in plan.keep:
            self._stored[stored.path] = stored
        inline = sum(len(content) for content in listing.inline.values())
        kept = sum(stored.size for stored in plan.keep)
        wanted = sum(file.size or 0 for file in plan.fetch)
        transfer = Transfer(
            self._http,
            self._volume,
            self._source.origin,
            self._progress,
            self._settings.transfer,
            self._note,
            self._stop,
        )
        check_limit(kept + wanted + inline, self._settings.transfer.limit)  # before a journal of ours takes room
        present = transfer.prepare(plan.fetch)
        total = kept + wanted + inline
        self._progress.plan(total, kept + present, len(listing.files) + len(listing.inline), len(plan.keep))
        check_space(total, wanted - present + inline, self._settings.transfer.limit, self._volume.free())
        log.info("%d of %d bytes are missing, in %d files", wanted - present, total, len(plan.fetch))
        self._volume.remove(paths.MANIFEST)  # from here on the folder is not what it says
        transfer.run(total)

    def _note(self, file: RemoteFile, stored: StoredFile) -> None:
        """A file is in place: the next run need not read it."""
        self._stored[stored.path] = stored
        found = self._volume.find(stored.path)
        if found:
            line = FinishedFile(
                stored.path, stored.size, stored.sha256, file.identity, stored.verified, found.modified_ns, found.inode
            )
            self._volume.append(_LEDGER, write_ledger_line(line))

    def _write_inline(self, listing: Listing) -> None:
        for path, content in listing.inline.items():
            self._volume.write(path, content)
            digest = hashlib.sha256(content).hexdigest()
            self._stored[path] = StoredFile(path, len(content), digest, verified=True)
            self._progress.present(len(content))
            self._progress.finished()

    def _conclude(self, listing: Listing) -> Manifest:
        order = [file.path for file in listing.files] + list(listing.inline)
        manifest = Manifest(
            self._request.key,
            self._clean(self._source.origin.name),
            listing.revision,
            listing.licence,
            _now(),
            tuple(self._stored[path] for path in order),
        )
        self._volume.write(paths.MANIFEST, write_manifest(manifest))
        self._volume.remove(_LEDGER)
        self._volume.remove(_RESOLUTION)
        self._progress.verified = manifest.verified
        self._progress.last_error = None
        return manifest
