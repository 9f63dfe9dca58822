"""The server beside the sidecar: how many requests it has, and how it is made to free its memory."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass

from berth.backends.load import sample_sum

_LONGEST_ANSWER = 4 * 1024 * 1024
_LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where the server tells how many requests it has."""

    path: str
    running: str
    waiting: str = ""
    worked: str = ""
    """A counter that grows with every request: it shows those that come and go between two looks."""
    loading_status: int | None = None
    """The status of the answer while the server loads its weights, when no request can be running."""


@dataclass(frozen=True, slots=True)
class Unload:
    """A request that makes the server free its GPU memory."""

    method: str
    path: str
    body: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the metrics showed."""

    requests: float | None
    """Running and waiting; None when that is not known."""
    worked: float | None = None
    why: str = ""
    """Why the server itself told nothing."""
    waiting: float = 0.0
    """Those of the requests that wait."""


class Server:
    """The inference server, at the address that its Service uses: it may listen nowhere else."""

    def __init__(self, host: str, port: int, key: str = "") -> None:
        self._host, self._port, self._key = host, port, key

    def look(self, metrics: Metrics) -> Look:
        """How many requests it has now. Each look has a connection of its own, so that it occupies none."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            status, text = self._ask("GET", metrics.path, "", headers, _LOOK_SECONDS)
        except ConnectionRefusedError:
            return Look(0, why="nobody listens on its port")  # it has not begun yet, or has ended
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Look(None, why=f"{metrics.path} does not answer: {type(error).__name__}")
        if status == metrics.loading_status:
            return Look(0, why="it loads its weights")
        if status in (401, 403):
            return Look(None, why=f"{metrics.path} wants an API key: give it to the server in serving.env")
        if status != 200:
            return Look(None, why=f"{metrics.path} answers {status}")
        numbers = {name: sample_sum(text, name) for name in (metrics.running, metrics.waiting) if name}
        for name, value in numbers.items():
            if value is None:
                return Look(None, why=f"{metrics.path} has no number for {name}")
        waiting = numbers.get(metrics.waiting) or 0.0
        worked = sample_sum(text, metrics.worked) if metrics.worked else None
        return Look((numbers[metrics.running] or 0.0) + waiting, worked, waiting=waiting)

    def unload(self, request: Unload, seconds: float) -> str:
        """Have the GPU memory freed. What came of it, in words."""
        headers = {"Content-Type": "application/json"} if request.body else {}
        try:
            status, _ = self._ask(request.method, request.path, request.body, headers, seconds)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"{request.path} does not answer: {type(error).__name__}"
        return f"{request.path} answers {status}"

    def _ask(self, method: str, path: str, body: str, headers: Mapping[str, str], seconds: float) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=seconds)
        try:
            connection.request(method, path, body.encode() or None, {"Connection": "close", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read(_LONGEST_ANSWER).decode("utf-8", "replace")
        finally:
            connection.close()
