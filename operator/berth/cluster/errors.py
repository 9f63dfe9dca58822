"""What the Kubernetes API may answer besides success, as exceptions that say what a caller can do about it.

The status code alone does not tell: a 409 may be a conflict of field managers or an outdated
resourceVersion, and an object that does not fit its schema comes as 400, 422 or, under server-side apply,
as 500 without a reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from berth.cluster.waiting import parse_retry_after

_LONGEST_VALUE = 120
_LONGEST_MESSAGE = 2_000
_QUOTED = re.compile(rf'"(?:[^"\\]|\\.){{{_LONGEST_VALUE},}}"')
_MANAGER = re.compile(r'conflict with "((?:[^"\\]|\\.)*)"')
_BAD_APPLY = "failed to create typed patch object"


class ApiError(Exception):
    """An answer of the API server that is not success, or no answer at all (`status` 0).

    `reason` is the machine-readable word of the Status (may be empty), `causes` its list of details,
    `details` the whole of them, `retry_after` the seconds the server asks to wait. Long quoted values are
    cut from the message: the server repeats whole objects in it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.message = shorten(message)
        self.status = status
        self.reason = reason
        self.details: dict[str, Any] = dict(details or {})
        self.causes: tuple[dict[str, Any], ...] = tuple(
            {**cause, "message": shorten(str(cause.get("message", "")))}
            for cause in self.details.get("causes") or ()
            if isinstance(cause, Mapping)
        )
        self.retry_after = retry_after
        label = f"{status} {reason}".strip() if status else "no answer"
        super().__init__(f"{label}: {self.message}")


class NotFoundError(ApiError):
    """404: the object, its namespace or its whole kind does not exist."""

    @property
    def kind_is_missing(self) -> bool:
        """Whether the API server does not serve this kind at all: its definition is not installed."""
        return not self.details.get("name")

    @property
    def namespace_is_missing(self) -> bool:
        """Whether it is the namespace that does not exist."""
        return self.details.get("kind") == "namespaces"


class AlreadyExistsError(ApiError):
    """409 of a create: an object of this name exists."""


class FieldManagerConflictError(ApiError):
    """409 of an apply without force: others own some of the fields."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields in conflict, such as `.spec.replicas`."""
        return tuple(dict.fromkeys(str(cause.get("field", "")) for cause in self.causes))

    @property
    def managers(self) -> tuple[str, ...]:
        """The managers that own them, such as `kubectl`."""
        found = (_MANAGER.search(cause["message"]) for cause in self.causes)
        return tuple(dict.fromkeys(match.group(1) for match in found if match))


class ResourceVersionConflictError(ApiError):
    """The object is not the one that was decided on: it changed, is another one, or is gone. Decide anew."""


class InvalidObjectError(ApiError):
    """The API server will never take this object: its schema or its validation refuse it."""


class ForbiddenError(ApiError):
    """403: by authorization, an admission policy, a quota, or because the namespace is being deleted."""

    @property
    def is_quota(self) -> bool:
        """Whether a ResourceQuota is used up."""
        return "exceeded quota" in self.message

    @property
    def namespace_is_terminating(self) -> bool:
        """Whether the namespace is being deleted and takes nothing new."""
        return any(cause.get("reason") == "NamespaceTerminating" for cause in self.causes)


class UnauthorizedError(ApiError):
    """401: the credentials are not accepted, not even after they were read again."""


class ExpiredError(ApiError):
    """410: the resourceVersion or the continue token is too old."""


class UnavailableError(ApiError):
    """429, 5xx or a broken connection, after all retries. A write may have happened."""


class FencedError(Exception):
    """This process may not write now (it is not leading): the request was not sent."""


def shorten(message: str) -> str:
    """The message without the long values that it quotes, at most 2,000 characters."""
    message = _QUOTED.sub('"…"', message).strip()
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 1]}…"


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The exception for an answer that is no success; its body is a Status of Kubernetes, or anything."""
    message, reason, details = _parse(body)
    kind = _kind_of(status, reason, message, details)
    return kind(
        message or f"HTTP {status}",
        status=status,
        reason=reason,
        details=details,
        retry_after=parse_retry_after(headers.get("Retry-After"), details),
    )


def _parse(body: bytes) -> tuple[str, str, dict[str, Any]]:
    """Message, reason and details of a Status; a body that is no Status is the message."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict) or parsed.get("kind") != "Status":
        return body.decode("utf-8", "replace"), "", {}
    details = parsed.get("details")
    return (
        str(parsed.get("message") or ""),
        str(parsed.get("reason") or ""),
        details if isinstance(details, dict) else {},
    )


def _kind_of(status: int, reason: str, message: str, details: Mapping[str, Any]) -> type[ApiError]:
    causes = [cause for cause in details.get("causes") or () if isinstance(cause, Mapping)]
    if status == 409:
        if any(cause.get("reason") == "FieldManagerConflict" for cause in causes):
            return FieldManagerConflictError
        return AlreadyExistsError if reason == "AlreadyExists" else ResourceVersionConflictError
    if status == 422 and any(cause.get("field") == "metadata.uid" for cause in causes):
        return ResourceVersionConflictError  # an apply that names a uid which is not, or no longer, there
    if status == 500 and message.startswith(_BAD_APPLY):
        return InvalidObjectError  # so says server-side apply to an undeclared field or a wrong type
    if status >= 500:
        return UnavailableError
    return _BY_STATUS.get(status, ApiError)


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidObjectError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    410: ExpiredError,
    413: InvalidObjectError,
    422: InvalidObjectError,
    429: UnavailableError,
}
