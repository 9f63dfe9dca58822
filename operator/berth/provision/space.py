"""Whether the files fit, decided before the first byte."""

from berth.provision.errors import ProvisionError, Reason

_RESERVE = 1024 * 1024
"""Bytes kept free for journals and the manifest."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def check_space(total: int, missing: int, limit: int | None, free: int) -> None:
    """Raises ProvisionError unless `total` bytes are within the limit and `missing` ones fit into `free`."""
    check_limit(total, limit)
    if missing > 0 and missing + _RESERVE > free:
        raise ProvisionError(
            Reason.NO_SPACE,
            f"{shown(missing)} are still to be downloaded and the volume has {shown(free)} free: "
            "enlarge the volume or remove what is not needed from it",
        )


def check_limit(total: int, limit: int | None) -> None:
    """Raises ProvisionError when `total` bytes are more than the limit."""
    if limit is not None and total > limit:
        raise ProvisionError(
            Reason.LIMIT_EXCEEDED,
            f"the files have {shown(total)} and the limit is {shown(limit)}: "
            "raise the limit or take fewer files with source.files",
        )


def shown(count: int) -> str:
    """A number of bytes for people, with the exact one where rounding hides it."""
    value, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit} ({count} B)"
