"""One request to the API server: login, time limits, retries, and an exception for every answer but success.

What is sent again: everything after a 429 (the server did not begin), and after a connection that never
came about. After a broken connection, a timeout or a 5xx nobody knows whether the request took effect, so
then only what may happen twice is sent again. A deadline bounds it all.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio.client.api_client import ApiClient

from berth.cluster import connection
from berth.cluster.errors import ApiError, FencedError, UnauthorizedError, UnavailableError, error_from
from berth.cluster.waiting import Backoff

OnRequest = Callable[[str, str, int, float], None]
"""Told after each attempt: verb, plural, status (0: no answer), seconds."""

_CERTAIN = (aiohttp.ClientConnectorError,)
_AMBIGUOUS = (aiohttp.ClientError, TimeoutError, OSError)
_HOPELESS = (aiohttp.ClientConnectorCertificateError, aiohttp.InvalidURL)


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds.

    `write_timeout` bounds one attempt to write, here and (as `timeout=`) in the API server. It has to be
    shorter than what a Lease gives between the moment a leader stops and the moment another may begin.
    `deadline` bounds a call with all its attempts and waits; with 0 there is one attempt.
    """

    read_timeout: float = 10.0
    write_timeout: float = 4.0
    deadline: float = 30.0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class Request:
    """What to send. `verb` is Kubernetes' word for it (apply, create, list…), for metrics and messages."""

    verb: str
    plural: str
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    repeatable: bool = True
    """Whether it may take effect twice."""


class Transport:
    """Sends requests over the connections of an ApiClient, at most `concurrency` at a time."""

    def __init__(self, client: ApiClient, limits: Limits, concurrency: int, on_request: OnRequest | None) -> None:
        self.client = client
        self.limits = limits
        self.fence: Callable[[], bool] | None = None
        self._slots: contextlib.AbstractAsyncContextManager[Any] = asyncio.Semaphore(concurrency)
        self._on_request = on_request

    def apart(self, **limits: float) -> Transport:
        """Another one over the same connections that waits for no slot and for no fence, with changed limits."""
        other = Transport(self.client, replace(self.limits, **limits), 1, self._on_request)  # type: ignore[arg-type]
        other._slots = contextlib.nullcontext()
        return other

    async def send(self, request: Request) -> dict[str, Any]:
        """The decoded answer. Raises ApiError (UnavailableError when the retries are spent) and FencedError."""
        give_up_at = time.monotonic() + self.limits.deadline
        attempt = 0
        logged_in_again = False
        while True:
            try:
                async with self._slots:
                    return await self._attempt(request)
            except UnauthorizedError:
                if logged_in_again or not connection.refuse_credentials(self.client):
                    raise
                logged_in_again = True
                continue
            except _RepeatableError as failure:
                delay = self.limits.backoff.delay(attempt, failure.error.retry_after)
                if time.monotonic() + delay >= give_up_at:
                    raise failure.error from failure.__cause__
            await asyncio.sleep(delay)
            attempt += 1

    async def _attempt(self, request: Request) -> dict[str, Any]:
        started = time.monotonic()
        status = 0
        try:
            status, headers, body = await self._exchange(request)
        except _HOPELESS as error:
            raise UnavailableError(_describe(request, error)) from error
        except _AMBIGUOUS as error:
            failure = UnavailableError(_describe(request, error))
            if request.repeatable or isinstance(error, _CERTAIN):
                raise _RepeatableError(failure) from error
            raise failure from error
        finally:
            if self._on_request is not None:
                self._on_request(request.verb, request.plural, status, time.monotonic() - started)
        if status < 300:
            return _decode(request, status, body)
        refusal = error_from(status, headers, body)
        if isinstance(refusal, UnavailableError) and (request.repeatable or status == 429):
            raise _RepeatableError(refusal)
        raise refusal

    async def _exchange(self, request: Request) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the answer to one attempt."""
        writes = request.method != "GET"
        seconds = self.limits.write_timeout if writes else self.limits.read_timeout
        query = {**request.query, "timeout": f"{seconds:g}s"} if writes else request.query
        headers = {
            "Accept": request.accept,
            "Content-Type": request.content_type,
            "User-Agent": self.client.user_agent,
        }
        if token := await connection.authorization(self.client):
            headers["authorization"] = token
        url = f"{self.client.configuration.host}{request.path}"
        # The last look before the bytes leave: a login may have taken so long that another leads by now.
        if writes and self.fence is not None and not self.fence():
            raise FencedError(f"{request.verb} {request.plural} was not sent: this process does not lead")
        response = await self.client.rest_client.request(
            request.method,
            f"{url}?{urlencode(query)}" if query else url,
            headers=headers,
            body=request.body,
            _request_timeout=aiohttp.ClientTimeout(total=seconds),
        )
        return response.status, response.headers, await response.read()


class _RepeatableError(Exception):
    """Carries the error of an attempt after which the request may be sent again."""

    def __init__(self, error: ApiError) -> None:
        self.error = error


def _describe(request: Request, error: BaseException) -> str:
    detail = str(error) or "no answer in time"
    return f"{request.verb} {request.path}: {type(error).__name__}: {detail}"


def _decode(request: Request, status: int, body: bytes) -> dict[str, Any]:
    try:
        decoded = orjson.loads(body)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):  # a proxy in between, or a truncated body
        message = f"{request.verb} {request.path}: the answer is no object of Kubernetes"
        raise UnavailableError(message, status=status)
    return decoded
