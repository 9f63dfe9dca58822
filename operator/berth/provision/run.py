"""One run under the lock: list, look, decide, fetch, and write the manifest last."""

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import httpx2

from berth.planning.model_figures import ModelFigures, WeightsFormat
from berth.provision import paths
from berth.provision.errors import ProvisionError, Reason
from berth.provision.inspection import Inspector
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
from berth.provision.plan import Plan, make_plan
from berth.provision.progress import Progress
from berth.provision.retrying import wait_before_retry
from berth.provision.sources import Source, SourceSettings
from berth.provision.space import check_limit, check_space
from berth.provision.transfer import Transfer, TransferSettings, hash_file
from berth.provision.volume import Volume
from berth.provision.wishes import Offer, Wish, formats_of_interest, judge, link_target

_LEDGER = f"{paths.CONTROL}/finished.jsonl"
_RESOLUTION = f"{paths.CONTROL}/resolution.json"

Result = TypeVar("Result")

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
    wishes: tuple[Wish, ...] = ()
    """Who wants the artifact; when nobody of them could load it, nothing is fetched."""
    link: str | None = None
    """Name of a link, at the top of the destination, to the file that a server of single files loads."""


class Timed:
    """Adds the seconds until it is left, or ended, to a step."""

    def __init__(self, progress: Progress, step: str) -> None:
        self._progress, self._step = progress, step
        self._since: float | None = None

    def __enter__(self) -> "Timed":
        self._since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """The step is over."""
        if self._since is not None:
            self._progress.spent(self._step, time.monotonic() - self._since)
            self._since = None


def now() -> str:
    """The only use of the wall clock: a date for people. Nothing is decided by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Run:
    """The steps of one download."""

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
        self._stored: dict[str, StoredFile] = {}

    def run(self) -> Manifest:
        """Brings every file into place. Raises ProvisionError."""
        with Timed(self._progress, "list"):
            listing = self._resolve()
        with Timed(self._progress, "inspect"):
            self._inspect(listing)
        manifest = read_manifest(self._volume.read(paths.MANIFEST) or b"")
        plan = make_plan(listing, self._volume.files(), read_ledger(self._volume.read(_LEDGER) or b""), manifest)
        for path in plan.stale:
            self._volume.remove(path)
        with Timed(self._progress, "check"):
            plan = self._check_doubtful(plan)
        with Timed(self._progress, "fetch"):
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
        listing = self._persist(lambda: self._source.list(self._http, before.revision))
        self._remember(Resolution(self._request.key, listing.revision, before.attempt + 1))
        self._progress.revision = listing.revision
        return listing

    def _remember(self, resolution: Resolution) -> None:
        self._volume.write(_RESOLUTION, write_resolution(resolution))

    def _persist(self, ask: Callable[[], Result]) -> Result:
        """Asks again until there is an answer or the failure is final."""
        failures = 0
        while True:
            if self._stop.is_set():
                raise ProvisionError(Reason.INTERRUPTED, "stopped before anything was fetched")
            try:
                return ask()
            except ProvisionError as failure:
                failures += 1
                wait = wait_before_retry(failure, failures, self._settings.transfer.retry, random.random())  # noqa: S311
                if wait is None:
                    raise
                self._progress.retried(failure)
                log.warning("%s: %s; again in %.1f s", failure.reason, failure.message, wait)
                self._stop.wait(wait)

    def _inspect(self, listing: Listing) -> None:
        """Reads what the model says of itself, and ends here when nobody who wants it could load it."""
        offer = Offer(tuple(file.path for file in listing.files), listing.known_gguf)
        inspector = Inspector(listing, self._http, self._source.origin, self._persist)

        def figures_of(weights: WeightsFormat) -> ModelFigures | None:
            figures = inspector.figures(weights)
            self._progress.figures = self._progress.figures or figures
            return figures

        self._progress.file = offer.entry
        judge(offer, self._settings.wishes, figures_of)
        if self._settings.link:
            link_target(offer, self._settings.link)
        for weights in formats_of_interest(offer, self._settings.wishes):
            figures_of(weights)

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
        total, files = kept + wanted + inline, len(listing.files) + len(listing.inline)
        sized_all = all(file.size is not None for file in plan.fetch)
        self._progress.plan(total, kept, files, len(plan.keep), sized_all=sized_all)
        check_limit(total, self._settings.transfer.limit)  # before a journal of ours takes room
        present = transfer.prepare(plan.fetch)
        self._progress.plan(total, kept + present, files, len(plan.keep), sized_all=sized_all)
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
            now(),
            tuple(self._stored[path] for path in order),
            self._progress.file,
            self._progress.figures,
        )
        self._volume.write(paths.MANIFEST, write_manifest(manifest))
        self._volume.remove(_LEDGER)
        self._volume.remove(_RESOLUTION)
        self._progress.sized_all = True
        self._progress.verified = manifest.verified
        self._progress.last_error = None
        return manifest
