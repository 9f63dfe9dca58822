"""What an answer of a server means: which failure it is, and whether it is the part of the file that was asked for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from berth.provision.errors import ProvisionError, Reason
from berth.provision.retrying import retry_after

_RANGE = re.compile(r"^bytes (\d+)-(\d+)/(\d+|\*)$")
_SECRET = "the Secret in source.secretRef (key `token`)"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Origin:
    """Who is asked, for messages."""

    name: str
    """The source as the user wrote it."""
    has_token: bool = False
    page: str | None = None
    """Where a person accepts terms, for hubs that have them."""
    needs: str = "a token that may read it"
    """What to put into the Secret."""
    secret: str = _SECRET
    """The Secret and its keys, for messages."""
    signed: bool = False
    """Whether addresses were signed when they were listed, and run out."""


@dataclass(frozen=True, slots=True)
class Body:
    """What follows the headers of an accepted answer."""

    start: int
    length: int | None
    """Bytes that follow; None when the server does not say."""
    total: int | None
    """Size of the whole file; None when the server does not say."""
    ranged: bool
    framed: bool
    """Whether an end that comes too early can be told."""


def shown_url(url: str) -> str:
    """The URL without user and query, both of which may hold secrets."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def refusal(
    status: int, headers: Mapping[str, str], origin: Origin, url: str, detail: str = ""
) -> ProvisionError | None:
    """The failure that the status means; None when it is an answer to go on with.

    `detail` is the start of the body, which is read where addresses are signed.
    """
    where = shown_url(url)
    if status in (200, 206):
        return None
    if origin.signed and status in (400, 401, 403) and "expired" in detail.lower():
        return ProvisionError(Reason.SIGNATURE_EXPIRED, f"the signed address {where} ran out: the next run signs anew")
    if status in (408, 425, 429) or status >= 500:
        reason = Reason.TOO_MANY_REQUESTS if status == 429 else Reason.SERVER_ERROR
        return ProvisionError(reason, f"{where} answered {status}", retry_after=retry_after(headers))
    code = headers.get("x-error-code", "")
    if status in (401, 403):
        return _denied(status, code, origin, where)
    if status in (404, 410):
        if code == "RevisionNotFound":
            return ProvisionError(Reason.REVISION_NOT_FOUND, f"{origin.name} has no such revision")
        hint = "" if origin.has_token else f", or it is private and {origin.secret} is missing"
        return ProvisionError(Reason.NOT_FOUND, f"{origin.name} does not exist: {where} answered {status}{hint}")
    return ProvisionError(Reason.REQUEST_REFUSED, f"{where} answered {status}")


def _denied(status: int, code: str, origin: Origin, where: str) -> ProvisionError:
    if code == "GatedRepo":
        terms = f"accept its terms on {origin.page}" if origin.page else "accept its terms"
        token = "with the account of the token in" if origin.has_token else "and put a token of that account into"
        return ProvisionError(Reason.GATED, f"{origin.name} is gated: {terms} {token} {origin.secret}")
    if code == "RepoNotFound" and not origin.has_token:
        return ProvisionError(
            Reason.TOKEN_MISSING,
            f"{origin.name} does not exist or is private: check the name, or put {origin.needs} into {origin.secret}",
        )
    if origin.has_token:
        held = "what is in" if origin.signed else "the token in"
        return ProvisionError(
            Reason.TOKEN_REFUSED,
            f"{where} answered {status}: {held} {origin.secret} is wrong, expired or may not read {origin.name}",
        )
    return ProvisionError(
        Reason.TOKEN_MISSING, f"{where} answered {status} without a token: put {origin.needs} into {origin.secret}"
    )


def body(status: int, headers: Mapping[str, str], path: str, asked: tuple[int, int] | None, size: int | None) -> Body:
    """What the body of an accepted answer holds. Raises ProvisionError when it cannot be the file.

    `asked` is the first and last byte that were asked for, None for the whole file.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") and not path.lower().endswith((".html", ".htm", ".xhtml")):
        raise ProvisionError(
            Reason.UNEXPECTED_CONTENT,
            f"instead of {path} came a web page: a proxy asks for a login, or the endpoint is wrong or under repair",
        )
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ProvisionError(Reason.UNEXPECTED_CONTENT, f"{path} came encoded although that was not asked for")
    length = _number(headers.get("content-length"))
    framed = length is not None or "chunked" in headers.get("transfer-encoding", "").lower()
    if status == 206:
        return _part(headers, path, asked, size, length, framed)
    if size is not None and length is not None and length != size:
        raise ProvisionError(Reason.SIZE_MISMATCH, f"{path} has {length} bytes and should have {size}")
    return Body(0, length, length if length is not None else size, ranged=False, framed=framed)


def _part(
    headers: Mapping[str, str],
    path: str,
    asked: tuple[int, int] | None,
    size: int | None,
    length: int | None,
    framed: bool,
) -> Body:
    found = _RANGE.match(headers.get("content-range", "").strip())
    if not found or asked is None:
        raise ProvisionError(Reason.UNEXPECTED_CONTENT, f"the part of {path} that came does not say which it is")
    first, last = int(found[1]), int(found[2])
    total = int(found[3]) if found[3] != "*" else None
    if size is not None and total is not None and total != size:
        raise ProvisionError(Reason.SIZE_MISMATCH, f"{path} has {total} bytes and should have {size}")
    if first != asked[0] or last > asked[1] or last < first or (length is not None and length != last - first + 1):
        raise ProvisionError(
            Reason.UNEXPECTED_CONTENT,
            f"of {path} the bytes {asked[0]}-{asked[1]} were asked for and {first}-{last} came",
        )
    return Body(first, last - first + 1, total, ranged=True, framed=framed)


def strong_validator(headers: Mapping[str, str]) -> str | None:
    """The ETag when it stands for the very bytes."""
    etag = headers.get("etag", "").strip()
    return etag if etag.startswith('"') and len(etag) > 2 else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None
