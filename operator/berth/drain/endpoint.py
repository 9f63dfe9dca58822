"""Where the kubelet asks for the drain, and the operator for the load.

The answer to the kubelet is what the server's SIGTERM waits for.
"""

import json
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from berth.drain.draining import Drain

DRAIN_PATH = "/drain"  # planning/drain_pod.py has them too; it is too heavy to be imported here
LOAD_PATH = "/load"
SKIP_PATH = "/skip"
_PATHS = f"there are GET {DRAIN_PATH}, GET {LOAD_PATH} and POST {SKIP_PATH}"

log = logging.getLogger("berth.drain")


class Endpoint:
    """Serves until it is left, without waiting for who still waits. `port` 0 takes any free one; `port` tells which."""

    def __init__(self, port: int, drain: Drain) -> None:
        class Handler(_Handler):
            pass

        Handler.drain = drain
        self._server = (
            _DualServer(("::", port), Handler) if socket.has_dualstack_ipv6() else _Server(("", port), Handler)
        )
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
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that went away is nobody's trouble."""


class _DualServer(_Server):
    """IPv4 and IPv6: a Pod may have either."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        """Bind for both families."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Handler(BaseHTTPRequestHandler):
    drain: Drain
    timeout = 5

    def do_GET(self) -> None:  # the name that http.server calls
        """The kubelet's hook, and the operator's question for the load."""
        if self.path == LOAD_PATH:
            self._tell_load()
            return
        if self.path != DRAIN_PATH:
            self._answer(404, _PATHS)
            return
        log.info("the server is to end: it finishes its requests")
        ended = self.drain.run()
        log.info("the server may end: %s", ended)
        self._answer(200, ended)

    def do_POST(self) -> None:
        """The operator's order to wait no longer."""
        if self.path != SKIP_PATH:
            self._answer(404, _PATHS)
            return
        self.drain.skip()
        self._answer(200, "the drain is skipped")

    def _tell_load(self) -> None:
        """What the server itself says now; 503 when it does not say."""
        look = self.drain.look()
        if look.requests is None or look.why:
            self._answer(503, look.why or "the load is not known")
            return
        numbers = {"running": look.requests - look.waiting, "waiting": look.waiting, "worked": look.worked}
        self._answer(200, json.dumps(numbers), "application/json")

    def _answer(self, status: int, text: str, kind: str = "text/plain") -> None:
        content = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Said above, in words."""
