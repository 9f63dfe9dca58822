"""What goes wrong, said in one sentence."""

from pathlib import Path


class ClusterError(Exception):
    """Something that the user can act on; it is shown as it is, without a traceback."""


def with_log(message: str, log: Path, lines: int = 12) -> ClusterError:
    """Return an error that ends with the last lines of a failing component's log."""
    try:
        tail = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        tail = []
    shown = "\n".join(f"    {line[:400]}" for line in tail)
    return ClusterError(f"{message}\nThe end of {log}:\n{shown}" if shown else f"{message} ({log} is empty)")
