"""A hub on loopback for `hack/bench download`, in a process of its own: random files, sent by the kernel.

It speaks as much of the Hugging Face protocol as a download needs. The files are windows of one block of memory, each
beginning a mebibyte after the other, so that their digests differ and no disk is read. `Line` says how it sends.
"""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MIB = 1 << 20
COMMIT = "a" * 40
REPOSITORY = "benchmark/weights"


@dataclass(frozen=True, slots=True)
class Line:
    """How the hub sends: as fast as it can, or at a rate for each connection and from a send buffer of some size."""

    rate: int | None = None
    buffer: int | None = None


class Hub:
    """The hub as its user sees it."""

    def __init__(self, port: int, size: int, files: int) -> None:
        self.port, self.url, self.size = port, f"http://127.0.0.1:{port}", size
        self.names = [f"model-{number}.safetensors" for number in range(files)]

    def file_url(self, name: str) -> str:
        """Where a file is served."""
        return f"{self.url}/{REPOSITORY}/resolve/{COMMIT}/{name}"

    def use(self, line: Line) -> None:
        """Sends like this from now on, and counts from zero."""
        request = urllib.request.Request(f"{self.url}/line", json.dumps(asdict(line)).encode())
        with urllib.request.urlopen(request) as answer:
            answer.read()

    def sent(self) -> int:
        """Bytes of files that were handed to the kernel since `use`."""
        with urllib.request.urlopen(f"{self.url}/sent") as answer:
            return int(answer.read())


@contextmanager
def running(files: int, size_mib: int) -> Iterator[Hub]:
    """A hub with so many files of so many mebibytes, until it is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.loopback_hub", str(files), str(size_mib)],
        stdin=subprocess.PIPE,  # it ends when this is closed, so also when this process is killed
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline()
        if not port:
            raise RuntimeError(f"the hub ended with exit code {process.wait()}: is there memory for {size_mib} MiB?")
        yield Hub(int(port), size_mib * MIB, files)
    finally:
        process.terminate()
        process.wait(20)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, files: int, size_mib: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.size, self.line = size_mib * MIB, Line()
        self.memory = os.memfd_create("weights")
        hashes = [hashlib.sha256() for _ in range(files)]
        for index in range(size_mib + files - 1):
            block = os.urandom(MIB)
            os.pwrite(self.memory, block, index * MIB)
            for digest in hashes[max(0, index - size_mib + 1) : index + 1]:
                digest.update(block)
        self.digests = [digest.hexdigest() for digest in hashes]
        self._sent, self._lock = 0, threading.Lock()

    @property
    def sent(self) -> int:
        return self._sent

    def use(self, line: Line) -> None:
        with self._lock:
            self.line, self._sent = line, 0

    def count(self, sent: int) -> None:
        with self._lock:
            self._sent += sent

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed are part of the benchmark."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answers one request."""
        found = re.search(r"/resolve/\w+/model-(\d+)\.safetensors$", self.path)
        if found and int(found[1]) < len(self.server.digests):
            self._file(int(found[1]))
        elif self.path.startswith(f"/api/models/{REPOSITORY}/"):
            self._plain(json.dumps(self._listing()).encode())
        elif self.path == "/sent":
            self._plain(b"%d" % self.server.sent)
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        """Takes another line."""
        self.server.use(Line(**json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
        self._plain(b"{}")

    def _listing(self) -> dict[str, Any]:
        size, digests = self.server.size, self.server.digests
        siblings = [
            {
                "rfilename": f"model-{number}.safetensors",
                "size": size,
                "lfs": {"sha256": digest, "size": size, "pointerSize": 134},
            }
            for number, digest in enumerate(digests)
        ]
        return {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}

    def _plain(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, number: int) -> None:
        size = self.server.size
        start, end = 0, size
        asked = re.match(r"^bytes=(\d+)-(\d*)$", self.headers.get("Range", ""))
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or size - 1) + 1, size)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.flush()
        self._send(number * MIB + start, end - start)

    def _send(self, offset: int, left: int) -> None:
        line, outlet = self.server.line, self.connection.fileno()
        if line.buffer is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, line.buffer)
        block = MIB if line.rate is None else 16 * 1024
        due = time.monotonic()
        while left:
            sent = os.sendfile(outlet, self.server.memory, offset, min(block, left))
            offset, left = offset + sent, left - sent
            self.server.count(sent)
            if line.rate is not None:
                due += sent / line.rate
                time.sleep(max(0.0, due - time.monotonic()))

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads along."""


def main() -> None:
    """Says on which port it is when it is ready, and serves until standard input ends."""
    server = _Server(int(sys.argv[1]), int(sys.argv[2]))
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
