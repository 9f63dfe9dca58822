"""Takes secrets out of whatever is shown: the ones we hold, letter by letter, and what looks like one."""

import logging
import sys
from collections.abc import Callable, Iterable
from types import TracebackType

from pythonjsonlogger.json import JsonFormatter

from berth.planning.redaction import redact

_HIDDEN = "[redacted]"


def cleaner(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that takes these secrets, and everything that looks like one, out of a text."""
    held = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def clean(text: str) -> str:
        for secret in held:
            text = text.replace(secret, _HIDDEN)
        return redact(text)

    return clean


class CleanFormatter(JsonFormatter):
    """Lines of JSON without secrets, tracebacks included."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        super().__init__(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level"},
        )
        self._clean = clean

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        copy = logging.makeLogRecord(record.__dict__)
        copy.msg, copy.args = self._clean(record.getMessage()), ()
        return super().format(copy)

    def formatException(  # noqa: N802  # the name that logging calls
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        """A traceback."""
        text = super().formatException(ei)
        return self._clean("\n".join(text) if isinstance(text, list) else text)


def configure_logging(clean: Callable[[str], str], level: str) -> None:
    """Log to standard error, without secrets."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CleanFormatter(clean))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
