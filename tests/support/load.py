"""Load on a server: long requests side by side, and how each of them ended."""

import contextlib
import http.client
import json
import select
import socket
import sys
import threading
import time
import urllib.parse
from dataclasses import dataclass
from typing import Self

_END_OF_STREAM = b"data: [DONE]"
_END_OF_ANSWER = b"}"


@dataclass(frozen=True)
class Ending:
    """How one request ended. Times are those of the machine's clock."""

    began: float
    ended: float
    failure: str = ""
    """Empty when its answer came to its end."""
    connected: bool = True
    """Whether there was a connection: without one the request was refused, with one it was cut."""
    reused: bool = False
    """Whether it was not the first one on its connection."""


class Requests:
    """Lanes of completions, one after the other on each lane, as long as the context is open.

    On new connections they are streams. On connections that are kept they are not: llama-server closes a connection
    after a stream, whatever its header says. As all clients do, a lane leaves a connection that the server has closed;
    with `per_connection`, also one that has had so many requests.
    """

    def __init__(
        self, url: str, lanes: int, tokens: int, *, keep_alive: bool = False, per_connection: int | None = None
    ) -> None:
        where = urllib.parse.urlsplit(url)
        self._host, self._port = where.hostname or "", where.port or 80
        wishes = {"prompt": "a", "max_tokens": tokens, "ignore_eos": True, "stream": not keep_alive}
        self._body, self._last = json.dumps(wishes).encode(), _END_OF_ANSWER if keep_alive else _END_OF_STREAM
        self._keep_alive, self._stop = keep_alive, threading.Event()
        self._per_connection = (per_connection or sys.maxsize) if keep_alive else 1
        self._threads = [threading.Thread(target=self._run, name=f"lane-{lane}") for lane in range(lanes)]
        self.endings: list[Ending] = []
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Begin no further request, and wait for those that run."""
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def abandon(self) -> None:
        """Begin no further request, and give up those that run: the address of a Pod that is gone answers nothing."""
        self._stop.set()
        for connection in list(self._connections.values()):
            with contextlib.suppress(OSError, AttributeError):  # the lane may close it this moment
                connection.sock.shutdown(socket.SHUT_RDWR)

    @property
    def completed(self) -> int:
        """Requests whose answer came to its end."""
        return sum(not ending.failure for ending in list(self.endings))

    @property
    def reused(self) -> int:
        """Requests on a connection that had one before."""
        return sum(one.reused for one in list(self.endings))

    @property
    def cut(self) -> list[Ending]:
        """Requests that had a connection and got no answer, or not all of it."""
        return [one for one in self.endings if one.failure and one.connected]

    @property
    def refused(self) -> list[Ending]:
        """Requests that got no connection."""
        return [one for one in self.endings if not one.connected]

    def _run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        number = 0
        while not self._stop.is_set():
            if connection is not None and (connection.sock is None or select.select([connection.sock], [], [], 0)[0]):
                connection.close()
                connection = None
            reused = connection is not None
            number = number + 1 if reused else 1
            connection = connection or http.client.HTTPConnection(self._host, self._port)
            self._connections[threading.current_thread().name] = connection
            ending = self._request(connection, reused)
            self.endings.append(ending)
            if ending.failure or number >= self._per_connection:
                connection.close()
                connection = None
            if ending.failure:
                self._stop.wait(0.2)
        if connection is not None:
            connection.close()

    def _request(self, connection: http.client.HTTPConnection, reused: bool) -> Ending:
        began, connected = time.time(), reused
        try:
            if not reused:
                connection.sock = socket.socket()  # known before it is connected: what hangs can be given up
                connection.sock.settimeout(30)
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sock.connect((self._host, self._port))
                connected = True
            connection.request("POST", "/v1/completions", self._body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            failure = "" if answer.status == 200 and self._last in text[-64:] else f"{answer.status} {text[-200:]!r}"
        except (OSError, http.client.HTTPException) as error:
            failure = repr(error)
        return Ending(began, time.time(), failure, connected, reused)
