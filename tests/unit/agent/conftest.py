"""A driver that does what a test says."""

from pathlib import Path

import pytest

from support import nvml_standin


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nvml_standin.Node:
    """A node whose driver is the stand-in; `write` makes changes count."""
    found = nvml_standin.Node(tmp_path / "node")
    monkeypatch.setenv(nvml_standin.VARIABLE, str(found.path))
    return found
