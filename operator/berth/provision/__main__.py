"""`berth provision`: one download, or one removal. Ends with a JSON message and a code that says what to do next."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from berth.provision.arguments import parser, settings_of, shown_uri, token_of
from berth.provision.cleaning import cleaner, configure_logging
from berth.provision.ending import DONE, FINAL, PASSING, TERMINATED, write_message
from berth.provision.endpoint import ProgressEndpoint
from berth.provision.errors import ProvisionError, Reason
from berth.provision.manifest import Manifest, Request
from berth.provision.program import provision
from berth.provision.progress import Progress
from berth.provision.removal import remove
from berth.provision.termination import Outcome, termination_message
from berth.provision.usage import bytes_present, volume_size

_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Environment variables whose values are never shown."""

log = logging.getLogger("berth.provision")

Clean = Callable[[str], str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one download or removal and returns the exit code."""
    options = parser().parse_args(arguments)
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    begun = time.monotonic()
    token, failure = None, None
    try:
        token = None if options.remove else token_of(options)
    except ProvisionError as error:
        failure = error
    clean = cleaner([token or "", *(os.environ.get(name, "") for name in _KEYS)])
    configure_logging(clean, options.log_level)
    progress = Progress(shown_uri(options.uri or ""), clean)
    manifest: Manifest | None = None
    try:
        if failure:
            raise failure
        if options.remove:
            remove(options.destination, options.lock_patience, stop)
        else:
            manifest = _download(options, token, progress, clean, stop)
    except ProvisionError as error:
        failure = error
    except Exception as error:
        log.exception("this is a fault in Berth")
        failure = ProvisionError(Reason.INTERNAL_ERROR, f"a fault in Berth: {type(error).__name__}: {error}")
    if failure:
        progress.failed(failure)
        log.error("%s: %s", failure.reason, failure.message)
    else:
        log.info("nothing is left" if options.remove else "everything is there")
    outcome = _outcome(options, progress, manifest, failure, clean, time.monotonic() - begun)
    write_message(options.termination_log, termination_message(outcome))
    if failure is None:
        return DONE
    if failure.reason is Reason.INTERRUPTED:
        return TERMINATED
    return PASSING if failure.passing else FINAL


def _download(
    options: argparse.Namespace, token: str | None, progress: Progress, clean: Clean, stop: threading.Event
) -> Manifest:
    with ExitStack() as stack:
        if options.port is not None:
            endpoint = stack.enter_context(ProgressEndpoint(options.host, options.port, progress))
            log.info("progress is on port %d", endpoint.port)
        request = Request(options.uri, tuple(options.include), options.sha256)
        return provision(request, options.destination, settings_of(options, token), progress, clean, stop)


def _outcome(
    options: argparse.Namespace,
    progress: Progress,
    manifest: Manifest | None,
    failure: ProvisionError | None,
    clean: Clean,
    seconds: float,
) -> Outcome:
    mounted = options.uri is not None and options.uri.startswith("pvc://")
    free, capacity = volume_size(options.destination)
    return Outcome(
        uri=progress.uri,
        reason=failure.reason if failure else None,
        message=clean(failure.message) if failure else "",
        passing=bool(failure and failure.passing),
        revision=progress.revision,
        licence=clean(manifest.licence) if manifest and manifest.licence else None,
        file=progress.file,
        figures=progress.figures,
        bytes_total=progress.bytes_total,
        bytes_fetched=progress.bytes_fetched,
        bytes_present=progress.bytes_done if mounted else bytes_present(options.destination),
        bytes_missing=progress.bytes_missing,
        files_total=progress.files_total,
        files_done=progress.files_done,
        verified=progress.verified,
        attempt=progress.attempt,
        retries=dict(progress.retries),
        volume_free=free,
        volume_capacity=capacity,
        seconds=seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
