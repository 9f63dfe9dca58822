"""Every reason for which a download ends early: one word for programs, explained for people."""

from collections.abc import Mapping
from enum import StrEnum

from berth.planning.reasons import Explanation


class DownloadReason(StrEnum):
    """Why a download, or one attempt at it, failed: in status, metrics and the termination message."""

    # what a person has to change
    TOKEN_MISSING = "TokenMissing"  # noqa: S105 - a reason, no token
    TOKEN_REFUSED = "TokenRefused"  # noqa: S105
    GATED = "Gated"
    NOT_FOUND = "NotFound"
    REVISION_NOT_FOUND = "RevisionNotFound"
    NO_FILE_MATCHES = "NoFileMatches"
    INCOMPATIBLE = "Incompatible"
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
    # what may pass by itself
    UNEXPECTED_CONTENT = "UnexpectedContent"
    TOO_MANY_REQUESTS = "TooManyRequests"
    SERVER_ERROR = "ServerError"
    SIGNATURE_EXPIRED = "SignatureExpired"
    CONNECTION_FAILED = "ConnectionFailed"
    CONNECTION_CUT = "ConnectionCut"
    STALLED = "Stalled"
    VOLUME_FAILED = "VolumeFailed"
    LOCKED = "Locked"
    INTERRUPTED = "Interrupted"
    INTERNAL_ERROR = "InternalError"


PASSING = frozenset(
    {
        DownloadReason.UNEXPECTED_CONTENT,
        DownloadReason.TOO_MANY_REQUESTS,
        DownloadReason.SERVER_ERROR,
        DownloadReason.SIGNATURE_EXPIRED,
        DownloadReason.CONNECTION_FAILED,
        DownloadReason.CONNECTION_CUT,
        DownloadReason.STALLED,
        DownloadReason.VOLUME_FAILED,
        DownloadReason.LOCKED,
        DownloadReason.INTERRUPTED,
        DownloadReason.INTERNAL_ERROR,
    }
)
"""Reasons that another run may not meet again."""

_RESUMES = "Nothing has to be done: the next run goes on where this one ended."

EXPLANATIONS: Mapping[DownloadReason, Explanation] = {
    DownloadReason.TOKEN_MISSING: Explanation(
        "The source is private, gated or misspelt, and no token or key was sent.",
        "Put a token that may read it into the Secret that `source.secretRef` names; the message names the key.",
    ),
    DownloadReason.TOKEN_REFUSED: Explanation(
        "The source does not accept the token or keys in the Secret of `source.secretRef`.",
        "Replace what has expired, or have the account admitted to the source.",
    ),
    DownloadReason.GATED: Explanation(
        "The repository is given only to people who accepted its terms.",
        "Accept them on the page that the message names, with the account whose token is in `source.secretRef`.",
    ),
    DownloadReason.NOT_FOUND: Explanation(
        "The source does not exist under this name, or only for those who may see it.",
        "Check `source.uri`; for something private, set `source.secretRef`.",
    ),
    DownloadReason.REVISION_NOT_FOUND: Explanation(
        "The repository has no such branch, tag or commit.", "Correct what follows `@` in `source.uri`."
    ),
    DownloadReason.NO_FILE_MATCHES: Explanation(
        "No file of the source fits `source.files`.", "Correct the globs; the message lists what there is."
    ),
    DownloadReason.INCOMPATIBLE: Explanation(
        "No Model that asks for these weights could load them, so nothing was downloaded.",
        "The message says what would work: another backend, another quantization, or one file of several.",
    ),
    DownloadReason.REQUEST_REFUSED: Explanation(
        "The server refuses the request in a way that repeating it does not change.",
        "The message has the server's answer; check `source.uri` and the mirror.",
    ),
    DownloadReason.INVALID_SOURCE: Explanation(
        "`source.uri` or a field beside it asks for what cannot be downloaded.", "Correct the field that is named."
    ),
    DownloadReason.UNSAFE_PATH: Explanation(
        "The source names a file that would leave its folder, or something on the volume is in its way.",
        "Leave the file out with `source.files`, or remove what is in the way.",
    ),
    DownloadReason.CHECKSUM_MISMATCH: Explanation(
        "A file was fetched twice and has not the digest that was published or declared both times.",
        "Correct `source.sha256`, or report it to whoever keeps the source or the proxy in between.",
    ),
    DownloadReason.SIZE_MISMATCH: Explanation(
        "A file has another length than the source lists, or changed while it was fetched.",
        "Start again; when it stays so, report it to whoever keeps the source or the proxy in between.",
    ),
    DownloadReason.UNKNOWN_LENGTH: Explanation(
        "Nobody could tell whether the file is complete: the server names no length and there is no digest.",
        "Set `source.sha256`.",
    ),
    DownloadReason.INSECURE_REDIRECT: Explanation(
        "An encrypted source leads to one that is not.", "Use a source that stays encrypted."
    ),
    DownloadReason.CERTIFICATE_REFUSED: Explanation(
        "The certificate of the server or proxy is not trusted.",
        "Name the file with your certificate authority in SSL_CERT_FILE of the download's Pod.",
    ),
    DownloadReason.LIMIT_EXCEEDED: Explanation(
        "The files are larger than the limit allows.", "Raise the limit, or take fewer files with `source.files`."
    ),
    DownloadReason.NO_SPACE: Explanation(
        "The volume has not enough free space.", "Enlarge the volume, or remove what is not needed from it."
    ),
    DownloadReason.VOLUME_NOT_WRITABLE: Explanation(
        "The volume cannot be written.", "Check its rights, `fsGroup` and whether it is mounted read-only."
    ),
    DownloadReason.UNEXPECTED_CONTENT: Explanation(
        "Something else came than was asked for, such as the login page of a proxy.",
        "Check the proxy and the mirror when it stays so.",
    ),
    DownloadReason.TOO_MANY_REQUESTS: Explanation("The server asks to come back later.", _RESUMES),
    DownloadReason.SERVER_ERROR: Explanation("The server has a fault of its own.", _RESUMES),
    DownloadReason.SIGNATURE_EXPIRED: Explanation(
        "The signed address of a file ran out before the file was complete.", _RESUMES
    ),
    DownloadReason.CONNECTION_FAILED: Explanation(
        "The server cannot be reached.",
        "Check the network, its policies and the proxy when it stays so; the next run goes on from here.",
    ),
    DownloadReason.CONNECTION_CUT: Explanation("Connections broke off again and again.", _RESUMES),
    DownloadReason.STALLED: Explanation("The server sent nothing, or next to nothing, for too long.", _RESUMES),
    DownloadReason.VOLUME_FAILED: Explanation(
        "The volume answered with an error.", "Look at the Events of its claim and at its node when it stays so."
    ),
    DownloadReason.LOCKED: Explanation(
        "Another download of the same artifact has been writing for too long.", _RESUMES
    ),
    DownloadReason.INTERRUPTED: Explanation("The download was stopped from outside.", _RESUMES),
    DownloadReason.INTERNAL_ERROR: Explanation(
        "A fault in Berth.", "Report it with the log of the download; another run may not meet it."
    ),
}
