"""`python -m berth.provision.discovery`: one page of what lies on a volume. Writes nothing but its message."""

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from berth.provision.cleaning import cleaner, configure_logging
from berth.provision.discovery.pages import Page, failure_message, page
from berth.provision.discovery.scanning import scan
from berth.provision.discovery.tree import Tree
from berth.provision.ending import DONE, FINAL, PASSING, TERMINATED, write_message
from berth.provision.endpoint import ProgressEndpoint
from berth.provision.errors import ProvisionError, Reason
from berth.provision.progress import Progress

log = logging.getLogger("berth.provision.discovery")


def main(arguments: Sequence[str] | None = None) -> int:
    """Looks through the volume and returns the exit code."""
    options = _parser().parse_args(arguments)
    if threading.current_thread() is threading.main_thread():
        # The first process of a container is not ended by a signal that it does not handle.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    clean = cleaner([])
    configure_logging(clean, options.log_level)
    try:
        made = _discover(options, clean)
    except ProvisionError as error:
        return _failed(options, clean, error)
    except Exception as error:
        log.exception("this is a fault in Berth")
        fault = ProvisionError(Reason.INTERNAL_ERROR, f"a fault in Berth: {type(error).__name__}: {error}")
        return _failed(options, clean, fault)
    log.info("%d models are on this page, %d were passed over", len(made.found), made.skipped)
    write_message(options.termination_log, made.message())
    return DONE


def _discover(options: argparse.Namespace, clean: Callable[[str], str]) -> Page:
    with ExitStack() as stack:
        if options.port is not None:
            progress = Progress(str(options.volume), clean)
            endpoint = stack.enter_context(ProgressEndpoint(options.host, options.port, progress))
            log.info("progress is on port %d", endpoint.port)
        tree = stack.enter_context(Tree(options.volume))
        return page(tree, scan(tree), options.after)


def _failed(options: argparse.Namespace, clean: Callable[[str], str], error: ProvisionError) -> int:
    log.error("%s: %s", error.reason, error.message)
    write_message(options.termination_log, failure_message(ProvisionError(error.reason, clean(error.message))))
    return PASSING if error.passing else FINAL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="berth-discover", description="Lists the models that lie on a volume.")
    parser.add_argument("--volume", required=True, type=Path, help="Where the volume is mounted.")
    parser.add_argument("--after", metavar="CURSOR", help="What the page before said as `after`.")
    parser.add_argument("--host", default="0.0.0.0", help="Address of /healthz.")  # noqa: S104
    parser.add_argument("--port", type=int, help="Port of /healthz; none when omitted, 0 takes any.")
    parser.add_argument("--termination-log", type=Path, default=Path("/dev/termination-log"))
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    return parser


if __name__ == "__main__":
    sys.exit(main())
