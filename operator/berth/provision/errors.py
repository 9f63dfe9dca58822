"""What ends a download, or an attempt at one: a reason for programs, a sentence for people."""

from berth.planning.download_reasons import PASSING
from berth.planning.download_reasons import DownloadReason as Reason

__all__ = ["ProvisionError", "Reason"]


class ProvisionError(Exception):
    """The download, or one attempt, failed. The message holds no token."""

    def __init__(self, reason: Reason, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def passing(self) -> bool:
        """Whether it may pass by itself."""
        return self.reason in PASSING
