"""A small HTTP server beside the download: /progress for the operator, /metrics for Prometheus, /healthz."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from berth.provision.progress import Progress


class ProgressEndpoint:
    """Serves until it is left. `port` 0 takes any free one; `port` tells which."""

    def __init__(self, host: str, port: int, progress: Progress) -> None:
        class Handler(_Handler):
            pass

        Handler.progress = progress
        self._server = _Server((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True, name="endpoint")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that went away is nobody's trouble."""


class _Handler(BaseHTTPRequestHandler):
    progress: Progress
    timeout = 5

    def do_GET(self) -> None:  # the name that http.server calls
        """Answers one request."""
        if self.path == "/progress":
            self._answer(200, "application/json", json.dumps(self.progress.document()).encode() + b"\n")
        elif self.path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.progress.registry))
        elif self.path == "/healthz":
            self._answer(200, "text/plain", b"ok\n")
        else:
            self._answer(404, "text/plain", b"there are /progress, /metrics and /healthz\n")

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Being looked at is not worth a line."""
