"""`python -m berth.provision`: one download. Ends with a JSON message and an exit code that says what to do next."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from berth.provision.cleaning import CleanFormatter, cleaner
from berth.provision.endpoint import ProgressEndpoint
from berth.provision.errors import ProvisionError, Reason
from berth.provision.manifest import Manifest, Request
from berth.provision.program import ProvisionSettings, provision
from berth.provision.progress import Progress
from berth.provision.retrying import RetryPolicy
from berth.provision.sources import SourceSettings
from berth.provision.termination import Outcome, termination_message
from berth.provision.transfer import TransferSettings

DONE = 0
USAGE = 2
FINAL = 65
"""A person has to change something: running again is of no use."""
PASSING = 75
"""Another run may succeed."""
TERMINATED = 143

log = logging.getLogger("berth.provision")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one download and returns the exit code."""
    options = _parser().parse_args(arguments)
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    begun = time.monotonic()
    token, failure = None, None
    try:
        token = _token(options)
    except ProvisionError as error:
        failure = error
    clean = cleaner([token] if token else [])
    _configure_logging(clean, options.log_level)
    progress = Progress(_shown(options.uri), clean)
    manifest: Manifest | None = None
    try:
        if failure:
            raise failure
        with ExitStack() as stack:
            if options.port is not None:
                endpoint = stack.enter_context(ProgressEndpoint(options.host, options.port, progress))
                log.info("progress is on port %d", endpoint.port)
            request = Request(options.uri, tuple(options.include), options.sha256)
            manifest = provision(request, options.destination, _settings(options, token), progress, clean, stop)
    except ProvisionError as error:
        failure = error
    except Exception as error:
        log.exception("this is a fault in Berth")
        failure = ProvisionError(Reason.INTERNAL_ERROR, f"a fault in Berth: {type(error).__name__}: {error}")
    if failure:
        progress.failed(failure)
        log.error("%s: %s", failure.reason, failure.message)
    else:
        log.info("everything is there")
    outcome = _outcome(progress, manifest, failure, clean, time.monotonic() - begun)
    _write_message(options.termination_log, termination_message(outcome))
    if failure is None:
        return DONE
    if failure.reason is Reason.INTERRUPTED:
        return TERMINATED
    return PASSING if failure.passing else FINAL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="berth provision", description="Brings the files of a model onto a volume.")
    parser.add_argument("--uri", required=True, help="hf://org/repo[@revision], https://…, ollama://name:tag, pvc://…")
    parser.add_argument("--destination", required=True, type=Path, help="Folder of the artifact, or the mounted claim.")
    parser.add_argument("--sha256", type=_digest, help="Digest of a single https:// file.")
    parser.add_argument("--include", nargs="+", action="extend", default=[], metavar="GLOB", help="Files to take.")
    parser.add_argument("--limit", type=int, metavar="BYTES", help="Most bytes that all files may have.")
    parser.add_argument("--token-file", type=Path, help="File with the token; for hf://, HF_TOKEN is taken otherwise.")
    parser.add_argument("--endpoint", help="Mirror of the hub or registry; for hf://, HF_ENDPOINT otherwise.")
    parser.add_argument(
        "--ca-file",
        type=Path,
        action="append",
        default=[],
        help="Certificate authorities to trust besides the public ones.",
    )
    parser.add_argument("--connections", type=_positive, default=4, help="Connections at a time (default 4).")
    parser.add_argument("--timeout", type=float, default=60.0, help="Seconds of silence on a connection (default 60).")
    parser.add_argument("--tries", type=_positive, default=8, help="Failures in a row until giving up (default 8).")
    parser.add_argument("--first-wait", type=float, default=1.0, help="Seconds before the second try (default 1).")
    parser.add_argument("--lock-patience", type=float, default=3600.0, help="Seconds to wait for another download.")
    parser.add_argument("--host", default="0.0.0.0", help="Address of /progress and /metrics.")  # noqa: S104
    parser.add_argument("--port", type=int, help="Port of /progress and /metrics; none when omitted, 0 takes any.")
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


def _digest(text: str) -> str:
    if len(text) != 64 or any(character not in "0123456789abcdef" for character in text):
        raise argparse.ArgumentTypeError("64 digits, each 0-9 or a-f")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError("between 1 and 64")
    return number


def _token(options: argparse.Namespace) -> str | None:
    if options.token_file is not None:
        try:
            token = options.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise ProvisionError(
                Reason.TOKEN_MISSING, f"{options.token_file} holds no token: check the Secret in source.secretRef"
            ) from None
    elif options.uri.startswith("hf://"):
        token = os.environ.get("HF_TOKEN", "").strip()
    else:
        token = ""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ProvisionError(
            Reason.TOKEN_REFUSED, "what the Secret in source.secretRef holds is no token: it has spaces or line ends"
        )
    return token or None


def _shown(uri: str) -> str:
    return uri.partition("?")[0] if uri.startswith(("https://", "http://")) else uri


def _settings(options: argparse.Namespace, token: str | None) -> ProvisionSettings:
    endpoint = options.endpoint
    if not endpoint and options.uri.startswith("hf://"):
        endpoint = os.environ.get("HF_ENDPOINT") or None
    own = os.environ.get("SSL_CERT_FILE")
    return ProvisionSettings(
        source=SourceSettings(token=token, endpoint=endpoint),
        transfer=TransferSettings(
            connections=options.connections,
            limit=options.limit,
            retry=RetryPolicy(tries=options.tries, first_wait=options.first_wait),
        ),
        timeout=options.timeout,
        lock_patience=options.lock_patience,
        ca_files=(*options.ca_file, *([Path(own)] if own else [])),
    )


def _outcome(
    progress: Progress,
    manifest: Manifest | None,
    failure: ProvisionError | None,
    clean: Callable[[str], str],
    seconds: float,
) -> Outcome:
    return Outcome(
        uri=progress.uri,
        reason=failure.reason if failure else None,
        message=clean(failure.message) if failure else "",
        passing=bool(failure and failure.passing),
        revision=progress.revision,
        licence=clean(manifest.licence) if manifest and manifest.licence else None,
        bytes_total=progress.bytes_total,
        bytes_fetched=progress.bytes_fetched,
        files_total=progress.files_total,
        verified=progress.verified,
        attempt=progress.attempt,
        seconds=seconds,
    )


def _configure_logging(clean: Callable[[str], str], level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CleanFormatter(clean))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _write_message(file: Path, message: bytes) -> None:
    """Where the kubelet reads it; to standard output where there is no such file."""
    try:
        if not file.parent.is_dir() or (file.parent == Path("/dev") and not file.exists()):
            raise FileNotFoundError
        file.write_bytes(message)
    except OSError:
        sys.stdout.write(message.decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
