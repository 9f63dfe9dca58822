"""A proxy in front of the API server that does what a healthy server never does.

It listens on 127.0.0.1 without TLS, keeps the login for itself, and writes a kubeconfig that points at it. Faults are
added and taken away while requests pass:

    async with FaultProxy(control_plane.kubeconfig, tmp_path) as proxy:
        gateway = Gateway(await connect(proxy.kubeconfig))
        with proxy.fail(429, method="PATCH", path=r"/configmaps/", times=1, retry_after=1):
            ...
        proxy.cut_watches(r"/pods")

It lives in the event loop of the test. A blocking call in the test (such as a kubectl that is pointed at the proxy)
would wait for a proxy that waits for it: run such things in a thread.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web

from berth.cluster import connection

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
_REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired"}
_REASONS |= {422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}


@dataclass(frozen=True)
class Recorded:
    """A request as it came to the proxy."""

    method: str
    path: str
    query: dict[str, str]
    user_agent: str
    authorization: str
    body: bytes = b""

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") in ("1", "true", "True")


@dataclass(eq=False)
class Fault:
    """A fault in force. Leaving it as a context, or `remove()`, ends it; `hits` counts the requests it met."""

    matches: Callable[[Recorded], bool]
    act: Callable[[web.Request, Recorded], Coroutine[Any, Any, web.StreamResponse | None]]
    remaining: int | None
    faults: list[Fault]
    hits: int = 0
    _hit: asyncio.Event = field(default_factory=asyncio.Event)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def remove(self) -> None:
        """The fault is over; what it holds goes on."""
        self._released.set()
        if self in self.faults:
            self.faults.remove(self)

    async def reached(self, within: float = 10.0) -> None:
        """Wait until a request met it."""
        async with asyncio.timeout(within):
            await self._hit.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def take(self, recorded: Recorded) -> bool:
        """Whether it meets this request; counts."""
        if self.remaining == 0 or not self.matches(recorded):
            return False
        if self.remaining is not None:
            self.remaining -= 1
        self.hits += 1
        self._hit.set()
        return True


class FaultProxy:
    """See the module. `kubeconfig` is the file to give to a client, `requests` what came, in order."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self.kubeconfig = folder / "through-fault-proxy.kubeconfig"
        self.requests: list[Recorded] = []
        self._source = kubeconfig
        self._faults: list[Fault] = []
        self._streams: dict[_Stream, Recorded] = {}

    async def __aenter__(self) -> Self:
        self._client = await connection.connect(self._source, pool_size=10)
        self._upstream = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._client.rest_client.ssl_context),
            auto_decompress=False,
            read_bufsize=2**24,
        )
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(f"http://127.0.0.1:{self.port}")))
        return self

    async def __aexit__(self, *_: object) -> None:
        for fault in list(self._faults):
            fault.remove()
        self.cut_watches()
        await self._runner.cleanup()
        await self._upstream.close()
        await self._client.close()

    # Faults. `path` is searched for (re.search) in the path, `times` is how many requests it meets (None: all).

    def fail(
        self,
        status: int,
        *,
        method: str | None = None,
        path: str = "",
        times: int | None = None,
        reason: str | None = None,
        message: str = "injected by the test",
        retry_after: float | None = None,
        after: bool = False,
    ) -> Fault:
        """Answer with `status` and a Status of Kubernetes; `after`: once the API server has done what was asked."""

        async def act(request: web.Request, recorded: Recorded) -> web.StreamResponse:
            if after:
                await self._exchange(request, recorded)
            headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
            return web.json_response(_status(status, reason, message), status=status, headers=headers)

        return self._add(method, path, times, act)

    def cut(self, *, method: str | None = None, path: str = "", times: int | None = None, after: bool = False) -> Fault:
        """Break the connection without an answer; `after`: once the API server has done what was asked."""

        async def act(request: web.Request, recorded: Recorded) -> web.StreamResponse:
            if after:
                await self._exchange(request, recorded)
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError

        return self._add(method, path, times, act)

    def delay(self, seconds: float, *, method: str | None = None, path: str = "", times: int | None = None) -> Fault:
        """Let requests wait before they pass."""

        async def act(request: web.Request, recorded: Recorded) -> None:
            await asyncio.sleep(seconds)

        return self._add(method, path, times, act)

    def hold(self, *, method: str | None = None, path: str = "", times: int | None = None) -> Fault:
        """Let requests wait, before they pass, until the fault is removed."""

        async def act(request: web.Request, recorded: Recorded) -> None:
            await fault._released.wait()

        fault = self._add(method, path, times, act)
        return fault

    # Watches that are under way.

    def watches(self, path: str = "") -> list[Recorded]:
        """The watches that are open now."""
        return [recorded for recorded in self._streams.values() if re.search(path, recorded.path)]

    def cut_watches(self, path: str = "") -> int:
        """Break the connections of open watches; returns how many."""
        return self._on_streams(path, lambda stream: stream.cut())

    def hold_watches(self, path: str = "") -> int:
        """Let open watches fall silent: their connections stay, their events pile up. Returns how many."""
        return self._on_streams(path, lambda stream: stream.flowing.clear())

    def resume_watches(self, path: str = "") -> int:
        """Let the events of held watches pass again; returns how many."""
        return self._on_streams(path, lambda stream: stream.flowing.set())

    def watch_error(
        self, code: int, path: str = "", *, reason: str | None = None, message: str = "injected by the test"
    ) -> int:
        """Put an ERROR event into open watches and end them, as the API server does; returns how many."""
        event = json.dumps({"type": "ERROR", "object": _status(code, reason, message)}).encode() + b"\n"
        return self._on_streams(path, lambda stream: stream.end(event))

    def _on_streams(self, path: str, act: Callable[[_Stream], None]) -> int:
        streams = [stream for stream, recorded in self._streams.items() if re.search(path, recorded.path)]
        for stream in streams:
            act(stream)
        return len(streams)

    def _add(
        self,
        method: str | None,
        path: str,
        times: int | None,
        act: Callable[[web.Request, Recorded], Coroutine[Any, Any, web.StreamResponse | None]],
    ) -> Fault:
        pattern = re.compile(path)

        def matches(recorded: Recorded) -> bool:
            return method in (None, recorded.method) and pattern.search(recorded.path) is not None

        fault = Fault(matches, act, times, self._faults)
        self._faults.append(fault)
        return fault

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        recorded = Recorded(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            user_agent=request.headers.get("User-Agent", ""),
            authorization=request.headers.get("Authorization", ""),
            body=await request.read(),
        )
        self.requests.append(recorded)
        for fault in list(self._faults):
            if fault.take(recorded) and (answer := await fault.act(request, recorded)) is not None:
                return answer
        if recorded.is_watch:
            return await self._watch(request, recorded)
        status, headers, body = await self._exchange(request, recorded)
        return web.Response(status=status, headers=headers, body=body)

    async def _send(self, request: web.Request, recorded: Recorded) -> aiohttp.ClientResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        if token := await connection.authorization(self._client):
            headers["Authorization"] = token
        return await self._upstream.request(
            request.method,
            f"{self._client.configuration.host}{request.rel_url}",
            headers=headers,
            data=recorded.body or None,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def _exchange(self, request: web.Request, recorded: Recorded) -> tuple[int, dict[str, str], bytes]:
        async with await self._send(request, recorded) as answer:
            return answer.status, _end_to_end(answer), await answer.read()

    async def _watch(self, request: web.Request, recorded: Recorded) -> web.StreamResponse:
        async with await self._send(request, recorded) as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, headers=_end_to_end(answer), body=await answer.read())
            response = web.StreamResponse(status=200, headers=_end_to_end(answer))
            await response.prepare(request)
            stream = _Stream(request)
            self._streams[stream] = recorded
            try:
                async for chunk in stream.passing(answer):
                    await response.write(chunk)
                await response.write_eof()
            finally:
                del self._streams[stream]
            return response


class _Stream:
    """A watch under way."""

    def __init__(self, request: web.Request) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._request = request
        self._last_words: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def cut(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()
        self.end(b"")

    def end(self, event: bytes) -> None:
        if not self._last_words.done():
            self._last_words.set_result(event)

    async def passing(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The events line by line, until the API server or the test ends them."""
        while True:
            line = asyncio.ensure_future(self._next_line(answer))
            await asyncio.wait({line, self._last_words}, return_when=asyncio.FIRST_COMPLETED)
            if self._last_words.done():
                line.cancel()
                yield self._last_words.result()
                return
            if not line.result():
                return
            yield line.result()

    async def _next_line(self, answer: aiohttp.ClientResponse) -> bytes:
        line = await answer.content.readuntil(b"\n")
        await self.flowing.wait()
        return line


def _end_to_end(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}


def _status(code: int, reason: str | None, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason if reason is not None else _REASONS.get(code, ""),
        "code": code,
    }


def _kubeconfig(server: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
        "current-context": "proxy",
    }
