"""A real HTTP server on loopback that does what real ones do on bad days, and remembers what it was asked."""

import io
import json
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit


@dataclass
class Fault:
    """How one answer goes wrong."""

    status: int | None = None
    """Answer with this status instead."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    hang_after: int | None = None
    """Send nothing more after so many bytes of the body, until the server ends."""
    corrupt: bool = False
    """Send other bytes of the same length."""
    claim_length: int | None = None
    """Claim this length for the whole file."""
    ignore_range: bool = False
    without_length: bool = False
    """Name no length, and end with the connection."""
    redirect: str | None = None
    shifted: int = 0
    """Answer a range with one that begins later."""


@dataclass
class Seen:
    """A request, as it came."""

    path: str
    target: str
    headers: Mapping[str, str]
    range: str | None
    sent: int = 0
    """Bytes of the body that were handed to the kernel."""
    status: int = 0


@dataclass
class Resource:
    """Something at a path."""

    content: bytes | Path
    kind: str = "application/octet-stream"
    faults: deque[Fault] = field(default_factory=deque)
    """Taken one by one, one for each request."""
    always: Fault | None = None
    """When there are no more faults."""
    token: str | None = None
    """Required in Authorization."""
    etag: str | None = None
    rate: int | None = None
    """Bytes per second for each connection."""
    chunked: bool = False

    @property
    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


class MisbehavingServer:
    """Serves until it is left."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.resources: dict[str, Resource] = {}
        self.seen: list[Seen] = []
        self.ending = threading.Event()
        outer = self

        class Handler(_Handler):
            server_of = outer

        self._server = _Server((host, 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://{host}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "MisbehavingServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, path: str, content: bytes | Path, **options: Any) -> Resource:
        """Serves something at a path."""
        options["faults"] = deque(options.get("faults", ()))
        self.resources[path] = Resource(content, **options)
        return self.resources[path]

    def put_repository(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        commit: str = "a" * 40,
        revisions: Iterable[str] = ("main",),
        lfs: Iterable[str] = (),
        **options: Any,
    ) -> None:
        """Serves a repository as the Hugging Face hub does."""
        import hashlib

        siblings = []
        for path, content in files.items():
            sibling: dict[str, Any] = {"rfilename": path, "size": len(content)}
            blob = b"blob %d\0" % len(content) + content
            sibling["blobId"] = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
            if path in lfs:
                digest = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
            self.put(f"/{name}/resolve/{commit}/{path}", content, **options)
        model = {"id": name, "sha": commit, "siblings": siblings, "cardData": {"license": "apache-2.0"}}
        for revision in (*revisions, commit):
            self.put(f"/api/models/{name}/revision/{revision}", json.dumps(model).encode(), kind="application/json")

    def requests(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path]

    def sent(self, path: str) -> int:
        return sum(seen.sent for seen in self.requests(path))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    server_of: MisbehavingServer
    protocol_version = "HTTP/1.1"
    wbufsize = 65536

    def setup(self) -> None:
        super().setup()
        # What waits in buffers would count as sent: keep that small, so that losses can be measured.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        seen = Seen(path, self.path, dict(self.headers.items()), self.headers.get("Range"))
        self.server_of.seen.append(seen)
        resource = self.server_of.resources.get(path)
        if resource is None:
            self._plain(seen, 404, b"nothing here", {"X-Error-Code": "EntryNotFound"})
            return
        fault = resource.faults.popleft() if resource.faults else (resource.always or Fault())
        if fault.redirect:
            self._plain(seen, 302, b"", {"Location": fault.redirect})
        elif fault.status is not None:
            self._plain(seen, fault.status, fault.body, fault.headers)
        elif resource.token and self.headers.get("Authorization") != f"Bearer {resource.token}":
            self._plain(seen, 401, b"who are you?", {})
        else:
            self._send(seen, resource, fault)

    def _plain(self, seen: Seen, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send(self, seen: Seen, resource: Resource, fault: Fault) -> None:
        size = resource.size
        start, end = 0, size
        found = re.match(r"^bytes=(\d+)-(\d*)$", seen.range or "")
        if_range = self.headers.get("If-Range")
        if found and not fault.ignore_range and (if_range is None or if_range == resource.etag):
            start, end = int(found[1]) + fault.shifted, min(int(found[2] or size - 1) + 1 + fault.shifted, size)
            if start >= size:
                self._plain(seen, 416, b"", {"Content-Range": f"bytes */{size}"})
                return
            self.send_response(206)
            seen.status = 206
            claimed = fault.claim_length if fault.claim_length is not None else size
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{claimed}")
            length = end - start
        else:
            self.send_response(200)
            seen.status = 200
            length = fault.claim_length if fault.claim_length is not None else size
            end = min(size, length)
        self.send_header("Content-Type", resource.kind)
        if resource.etag:
            self.send_header("ETag", resource.etag)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        if fault.without_length:
            self.close_connection = True
            self.send_header("Connection", "close")
        elif resource.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.flush()
        if self.command == "HEAD":
            return
        self._body(seen, resource, fault, start, end)
        if fault.without_length or end - start < length:
            self.close_connection = True

    def _body(self, seen: Seen, resource: Resource, fault: Fault, start: int, end: int) -> None:
        stop = end
        for cut in (fault.cut_after, fault.hang_after):
            if cut is not None:
                stop = min(stop, start + cut)
        with _opened(resource.content) as stream:
            if (
                isinstance(resource.content, Path)
                and resource.rate is None
                and not isinstance(self.connection, ssl.SSLSocket)
            ):
                seen.sent += self.connection.sendfile(stream, start, stop - start)
            else:
                self._copy(seen, resource, fault, stream, start, stop)
        if fault.hang_after is not None:
            self.server_of.ending.wait(30)
        if stop < end:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        elif resource.chunked and not fault.without_length:
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()

    def _copy(self, seen: Seen, resource: Resource, fault: Fault, stream: BinaryIO, start: int, stop: int) -> None:
        stream.seek(start)
        begun, sent = time.monotonic(), 0
        block = 64 * 1024
        while start + sent < stop:
            data = stream.read(min(block, stop - start - sent))
            if fault.corrupt:
                data = bytes(byte ^ 0x55 for byte in data)
            if resource.chunked and not fault.without_length:
                self.wfile.write(b"%x\r\n" % len(data) + data + b"\r\n")
            else:
                self.wfile.write(data)
            self.wfile.flush()
            sent += len(data)
            seen.sent += len(data)
            if resource.rate:
                early = begun + sent / resource.rate - time.monotonic()
                if early > 0:
                    time.sleep(early)

    def log_message(self, format: str, *args: object) -> None:
        """What was asked is in `seen`."""


def _opened(content: bytes | Path) -> BinaryIO:
    return content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
