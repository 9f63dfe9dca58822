"""What ends a download, or an attempt at one: a reason for programs, a sentence for people."""

from enum import StrEnum


class Reason(StrEnum):
    """Why something failed. The values are shown in status, metrics and the termination message."""

    # What a person has to change.
    TOKEN_MISSING = "TokenMissing"  # noqa: S105  # a reason, not a token
    TOKEN_REFUSED = "TokenRefused"  # noqa: S105
    GATED = "Gated"
    NOT_FOUND = "NotFound"
    REVISION_NOT_FOUND = "RevisionNotFound"
    NO_FILE_MATCHES = "NoFileMatches"
    REQUEST_REFUSED = "RequestRefused"
    INVALID_SOURCE = "InvalidSource"
    UNSAFE_PATH = "UnsafePath"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    SIZE_MISMATCH = "SizeMismatch"
    UNKNOWN_LENGTH = "UnknownLength"
    INSECURE_REDIRECT = "InsecureRedirect"
    CERTIFICATE_REFUSED = "CertificateRefused"
    LIMIT_EXCEEDED = "LimitExceeded"
    NO_SPACE = "NoSpace"
    VOLUME_NOT_WRITABLE = "VolumeNotWritable"
    # What may pass by itself.
    UNEXPECTED_CONTENT = "UnexpectedContent"
    TOO_MANY_REQUESTS = "TooManyRequests"
    SERVER_ERROR = "ServerError"
    CONNECTION_FAILED = "ConnectionFailed"
    CONNECTION_CUT = "ConnectionCut"
    STALLED = "Stalled"
    VOLUME_FAILED = "VolumeFailed"
    LOCKED = "Locked"
    INTERRUPTED = "Interrupted"
    INTERNAL_ERROR = "InternalError"


PASSING = frozenset(
    {
        Reason.UNEXPECTED_CONTENT,
        Reason.TOO_MANY_REQUESTS,
        Reason.SERVER_ERROR,
        Reason.CONNECTION_FAILED,
        Reason.CONNECTION_CUT,
        Reason.STALLED,
        Reason.VOLUME_FAILED,
        Reason.LOCKED,
        Reason.INTERRUPTED,
        Reason.INTERNAL_ERROR,
    }
)
"""Reasons that another run may not meet again."""


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
