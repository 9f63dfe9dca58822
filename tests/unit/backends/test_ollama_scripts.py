"""The two shell scripts in an Ollama Pod, run with a stand-in for the `ollama` program."""

import os
import subprocess
from pathlib import Path

import pytest

from berth.api.model import BackendName, ModelSpec
from berth.backends.base import CommandCheck, Server, ServerRequest, Weights
from berth.backends.registry import backend_for

MANIFESTS = "manifests/registry.ollama.ai"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "volume" / "store"
    manifest = folder / MANIFESTS / "library" / "llama3.2" / "1b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    (folder / "blobs").mkdir()
    (folder / "blobs" / "sha256-1").write_text("weights")
    return folder


def server_of(store: Path) -> Server:
    spec = ModelSpec.model_validate({"backend": "ollama", "serving": {"servedNames": ["acme/chat:stable"]}})
    weights = Weights(path=str(store), reference="llama3.2:1b")
    return backend_for(BackendName.OLLAMA).server(ServerRequest("chat", spec, weights))


def run(command: tuple[str, ...], tmp_path: Path, ollama: str) -> subprocess.CompletedProcess[str]:
    program = tmp_path / "bin" / "ollama"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{ollama}\n")
    program.chmod(0o755)
    env = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OLLAMA_MODELS": str(tmp_path / "home" / "models"),
        "LOG": str(tmp_path / "log"),
    }
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=20)


def test_the_server_starts_on_a_store_of_its_own_with_the_shared_blobs(tmp_path: Path, store: Path) -> None:
    server = server_of(store)
    for _ in range(2):  # a restarted container finds what the one before it left
        done = run((*server.command, *server.args), tmp_path, 'echo "$@" > "$LOG"')
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text() == "serve\n"
    own = tmp_path / "home" / "models"
    assert (own / "blobs" / "sha256-1").read_text() == "weights"
    manifests = {str(path.relative_to(own / MANIFESTS)) for path in (own / MANIFESTS).rglob("*") if path.is_file()}
    assert manifests == {"acme/chat/stable", "library/chat/latest"}


def test_a_model_that_is_not_in_the_store_is_named(tmp_path: Path, store: Path) -> None:
    (store / MANIFESTS / "library" / "llama3.2" / "1b").unlink()
    server = server_of(store)
    done = run((*server.command, *server.args), tmp_path, "exit 0")
    assert done.returncode != 0
    assert "library/llama3.2/1b" in done.stderr


@pytest.mark.parametrize(
    ("ollama", "code", "calls"),
    [
        ('echo "$@" >> "$LOG"', 0, ["list", "run chat"]),
        ('echo "$@" >> "$LOG"; [ "$1" = list ] || [ $# = 3 ]', 0, ["list", "run chat", "run chat hi"]),
        ('echo "$@" >> "$LOG"; [ "$1" = list ]', 1, ["list", "run chat", "run chat hi"]),
        ('echo "$@" >> "$LOG"; [ $(wc -l < "$LOG") -gt 1 ]', 0, ["list", "list", "run chat"]),
    ],
    ids=["loads", "embeds", "fails", "not-listening-yet"],
)
def test_it_has_started_when_the_model_is_loaded(
    tmp_path: Path, store: Path, ollama: str, code: int, calls: list[str]
) -> None:
    check = server_of(store).started
    assert isinstance(check, CommandCheck)
    assert run(check.command, tmp_path, ollama).returncode == code
    assert (tmp_path / "log").read_text().splitlines() == calls
