"""Starts downloads: in this process where that will do, else in one of their own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from berth.provision.__main__ import main


def wait_for(check: Callable[[], bool], what: str, timeout: float = 30.0) -> None:
    """Returns as soon as `check` holds."""
    until = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < until, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.002)


ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Run:
    """How a download ended."""

    code: int
    message: dict[str, Any]
    raw: bytes
    log: str


@dataclass
class Downloads:
    """Starts downloads into a folder of the test's own."""

    folder: Path
    destination: Path
    capture: pytest.CaptureFixture[str]

    def arguments(self, uri: str, *more: str) -> list[str]:
        quick = ("--first-wait", "0.01", "--timeout", "10", "--termination-log", str(self.folder / "message"))
        return ["--uri", uri, "--destination", str(self.destination), *quick, *more]

    def run(self, uri: str, *more: str) -> Run:
        """A download in this process."""
        self.capture.readouterr()
        code = main(self.arguments(uri, *more))
        return self.result(code, self.capture.readouterr().err)

    def result(self, code: int, log: str = "") -> Run:
        raw = (self.folder / "message").read_bytes()
        return Run(code, json.loads(raw), raw, log)

    def start(
        self, uri: str, *more: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[bytes]:
        """A download in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "berth.provision", *self.arguments(uri, *more)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "operator"), **(env or {})},
            stderr=subprocess.PIPE,
            **options,
        )

    def leftovers(self) -> list[str]:
        """Everything below the destination that is not a finished file."""
        names = (str(path.relative_to(self.destination)) for path in self.destination.rglob("*") if path.is_file())
        return sorted(
            name for name in names if ".partial" in name or (name.startswith(".berth/") and name != ".berth/lock")
        )
