"""Programs that are fetched once: never half of one, and a plain sentence where one cannot be had."""

from pathlib import Path

import pytest

import pinnedtools


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return pinnedtools.folder()


def test_what_was_fetched_is_not_fetched_again(folder: Path) -> None:
    first = pinnedtools._made("tool", lambda target: (target / "program").touch())
    again = pinnedtools._made("tool", lambda target: pytest.fail("it is there"))
    assert first == again == folder / "tool"


def test_what_was_cut_off_is_begun_anew(folder: Path) -> None:
    def cut_off(target: Path) -> None:
        (target / "half").touch()
        raise pinnedtools.ToolError("the network is gone")

    with pytest.raises(pinnedtools.ToolError):
        pinnedtools._made("tool", cut_off)
    made = pinnedtools._made("tool", lambda target: (target / "program").touch())
    assert sorted(path.name for path in made.iterdir()) == [".whole", "program"]


def test_elsewhere_the_helm_on_path_serves_if_it_is_of_that_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    own = tmp_path / "helm"
    own.write_text("#!/bin/sh\necho v4.1.0+gabcdef\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pinnedtools.helm(4) == own
    with pytest.raises(pinnedtools.ToolError, match=r"Helm 3 is needed .*: put it on PATH as helm"):
        pinnedtools.helm(3)
