"""Times as the API server writes them."""

from datetime import UTC, datetime


def parse_time(text: str | None) -> datetime | None:
    """The time that the API server wrote, or None for None."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def format_time(moment: datetime) -> str:
    """A time as the API server writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
