"""The sidecar as a process: what the kubelet sees of it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from berth.planning.drain_pod import DRAIN_PATH, LOAD_PATH
from unit.drain.server_beside import ServerBeside

ROOT = Path(__file__).resolve().parents[3]


class Sidecar:
    """`berth drain` beside a server."""

    def __init__(self, server: ServerBeside, *flags: str, **environment: str) -> None:
        options = ("--port=0", f"--server-port={server.port}", "--metrics=/metrics", "--running=busy", *flags)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "berth", "drain", "--routing-time=0.2", *options],
            env={**os.environ, "PYTHONPATH": str(ROOT / "operator"), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        found = re.search(r"port (\d+)", self.process.stderr.readline())
        assert found
        self.port = int(found.group(1))

    def ask(self, method: str = "GET", path: str = DRAIN_PATH, host: str = "127.0.0.1") -> tuple[int, str]:
        connection = http.client.HTTPConnection(host, self.port, timeout=20)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def end(self) -> tuple[int, str]:
        """Exit code after SIGTERM, and the rest of the log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=5)
        return self.process.returncode, log


@pytest.fixture
def server() -> Iterator[ServerBeside]:
    with ServerBeside() as running:
        yield running


def test_the_hook_is_answered_when_the_server_is_idle_and_sigterm_ends_the_sidecar(server: ServerBeside) -> None:
    sidecar = Sidecar(server, "--drain-timeout=20", "--key-env=KEYS", KEYS="first,second")
    status, said = sidecar.ask()
    assert (status, said.startswith("no request is left")) == (200, True)
    assert server.asked[0][3] == "Bearer first"
    code, log = sidecar.end()
    assert code == 0
    assert "it finishes its requests" in log
    assert "first" not in log


def test_sigterm_ends_it_at_once_even_while_somebody_waits(server: ServerBeside) -> None:
    server.text = "busy 1\n"
    sidecar = Sidecar(server, "--drain-timeout=20")

    def wait() -> None:
        with pytest.raises(OSError):  # noqa: PT011  # whichever way the connection breaks
            sidecar.ask()

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not server.asked:
        time.sleep(0.01)
    began = time.monotonic()
    code, _ = sidecar.end()
    assert (code, time.monotonic() - began < 5) == (0, True)
    waiting.join()


def test_a_drain_is_skipped_by_order(server: ServerBeside) -> None:
    server.text = "busy 1\n"
    sidecar = Sidecar(server, "--drain-timeout=20")
    threading.Timer(0.5, lambda: sidecar.ask("POST", "/skip")).start()
    assert sidecar.ask()[1].startswith("the drain is skipped")
    assert sidecar.ask(path="/other")[0] == 404
    sidecar.end()


def test_it_tells_the_load_of_its_server(server: ServerBeside) -> None:
    server.text = "busy 2\nqueued 3\nbusy_total 7\n"
    sidecar = Sidecar(server, "--waiting=queued", "--worked=busy_total", "--loading-status=503")
    status, told = sidecar.ask(path=LOAD_PATH)
    assert (status, json.loads(told)) == (200, {"running": 2, "waiting": 3, "worked": 7})
    server.status = 503
    assert sidecar.ask(path=LOAD_PATH) == (503, "it loads its weights\n")
    server.status = 401
    assert sidecar.ask(path=LOAD_PATH)[0] == 503
    sidecar.end()


def test_nothing_is_no_load(server: ServerBeside) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    sidecar = Sidecar(server, f"--server-port={port}")
    assert sidecar.ask(path=LOAD_PATH) == (503, "nobody listens on its port\n")
    sidecar.end()


def test_it_listens_on_both_families(server: ServerBeside) -> None:
    sidecar = Sidecar(server)
    try:
        assert sidecar.ask(path="/other", host="::1")[0] == 404
    except OSError:
        pytest.skip("this machine has no IPv6")
    finally:
        sidecar.end()


def test_it_starts_without_what_others_need(server: ServerBeside) -> None:
    script = """
import sys
import berth.drain.__main__
print([name for name in ("pydantic", "httpx2", "kopf", "aiohttp", "asyncio") if name in sys.modules])
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT / "operator")}, capture_output=True, text=True
    )
    assert ended.stdout.strip() == "[]", ended.stderr
