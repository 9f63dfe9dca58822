"""A server that misbehaves, and downloads from it."""

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from downloading import Downloads

from support.misbehaving_server import MisbehavingServer


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


@pytest.fixture
def downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Downloads]:
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in ("HF_TOKEN", "HF_ENDPOINT", "BERTH_SOURCE_TOKEN", "SSL_CERT_FILE", *proxies):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    handlers, level = logging.root.handlers[:], logging.root.level
    terminated = signal.getsignal(signal.SIGTERM)
    yield Downloads(tmp_path, tmp_path / "artifact", capsys)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    signal.signal(signal.SIGTERM, terminated)


@pytest.fixture
def hub(server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch, downloads: Downloads) -> MisbehavingServer:
    """The server, standing in for the hub: nothing in these tests leaves the machine."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return server


@pytest.fixture
def token_file(tmp_path: Path) -> Callable[[str], str]:
    def write(token: str) -> str:
        file = tmp_path / "token"
        file.write_text(token + "\n")
        return str(file)

    return write
