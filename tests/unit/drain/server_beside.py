"""A server beside the sidecar, for tests: it says what it is told to say, as fast or as slowly."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class ServerBeside:
    """Answers GET /metrics with `status` and `text`, and takes every other request down in `asked`."""

    def __init__(self) -> None:
        self.status, self.text = 200, "busy 0\n"
        self.drip = False
        """Whether an answer comes a byte at a time, and never ends."""
        self.asked: list[tuple[str, str, str, str]] = []
        """Method, path, body, key."""
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def do_POST(self) -> None:
                outer.answer(self)

            def do_PUT(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """The sidecar went away."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0)).decode()
        self.asked.append((request.command, request.path, body, request.headers.get("Authorization", "")))
        request.send_response(self.status)
        request.send_header("Content-Length", str(len(self.text) if not self.drip else 1_000_000))
        request.end_headers()
        if self.drip:
            while not self.over.wait(0.1):
                request.wfile.write(b"#")
                request.wfile.flush()
        else:
            request.wfile.write(self.text.encode())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
