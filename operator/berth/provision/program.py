"""One download, from the lock to the manifest."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from berth.provision import choosing, paths
from berth.provision.client import make_client
from berth.provision.errors import ProvisionError, Reason
from berth.provision.manifest import Manifest, Request, StoredFile, read_manifest
from berth.provision.plan import complete
from berth.provision.progress import Progress
from berth.provision.run import ProvisionSettings, Run, Timed, now
from berth.provision.sources.claim import check_claim
from berth.provision.sources.resolving import source_for
from berth.provision.space import check_limit
from berth.provision.volume import Volume
from berth.provision.wishes import Offer, judge, link_target

log = logging.getLogger("berth.provision")


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
        manifest = _finished_before(volume, request, settings, progress)
        if manifest:
            return manifest
        with Timed(progress, "lock") as timed, _lock(volume, settings, progress, stop):
            timed.end()
            manifest = _finished_before(volume, request, settings, progress)
            if manifest:
                return manifest
            with make_client(settings.transfer.connections, settings.timeout, settings.ca_files) as http:
                manifest = Run(request, volume, source, settings, progress, clean, stop, http).run()
            _link(volume, manifest, settings)
            return manifest


@contextmanager
def _lock(volume: Volume, settings: ProvisionSettings, progress: Progress, stop: threading.Event) -> Iterator[None]:
    def waiting() -> None:
        log.info("another download is writing to this folder: waiting until it ends")
        progress.last_error = "Locked: another download is writing to this folder: waiting until it ends"

    with volume.locked(settings.lock_patience, waiting, stop.wait):
        progress.last_error = None
        yield


def _finished_before(
    volume: Volume, request: Request, settings: ProvisionSettings, progress: Progress
) -> Manifest | None:
    """The manifest when everything is there. Somebody new may want it, who cannot load it."""
    manifest = read_manifest(volume.read(paths.MANIFEST) or b"")
    if manifest is None or not complete(manifest, request, volume.files()):
        return None
    progress.revision, progress.verified = manifest.revision, manifest.verified
    offer, figures = _offer(manifest), manifest.figures
    progress.file, progress.figures = manifest.file or offer.entry, figures
    progress.plan(manifest.size, manifest.size, len(manifest.files), len(manifest.files))
    judge(offer, settings.wishes, lambda weights: figures if figures and figures.format is weights else None)
    _link(volume, manifest, settings)
    return manifest


def _offer(manifest: Manifest) -> Offer:
    untold = manifest.file and not choosing.is_gguf(manifest.file)
    return Offer(tuple(file.path for file in manifest.files), (manifest.file,) if untold and manifest.file else ())


def _link(volume: Volume, manifest: Manifest, settings: ProvisionSettings) -> None:
    if settings.link:
        target = link_target(_offer(manifest), settings.link)
        if target != settings.link:
            volume.link(settings.link, target)


def _check_mounted(
    request: Request, root: Path, settings: ProvisionSettings, progress: Progress, clean: Callable[[str], str]
) -> Manifest:
    if request.sha256:
        raise ProvisionError(Reason.INVALID_SOURCE, "sha256 is for a single https:// file, not for pvc://")
    found = check_claim(request, root)
    total = sum(found.values())
    progress.plan(total, total, len(found), len(found))
    check_limit(total, settings.transfer.limit)
    files = tuple(StoredFile(path, size, "", verified=False) for path, size in found.items())
    return Manifest(request.key, clean(request.uri), None, None, now(), files)
