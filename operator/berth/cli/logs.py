"""How processes of Berth write their log."""

import logging
import sys


def configure_logging(log_format: str, level: str) -> None:
    """Log to standard error: `log_format` is json or text, `level` one of logging's."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        from pythonjsonlogger.json import JsonFormatter

        handler.setFormatter(
            JsonFormatter(
                "%(asctime)s %(levelname)s %(name)s %(message)s",
                rename_fields={"asctime": "time", "levelname": "level"},
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        logging.getLogger("kopf").setLevel(logging.WARNING)
        for library in ("aiohttp", "httpx2", "httpcore2"):  # every question to a download would be a line
            logging.getLogger(library).setLevel(logging.WARNING)
