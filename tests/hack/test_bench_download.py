"""The benchmark of downloads, with files too small to measure anything."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _bench(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(ROOT / "hack" / "bench"), "download", *arguments],
        env={**os.environ, "TMPDIR": str(folder)},
        stderr=subprocess.PIPE,
    )


@pytest.mark.slow
def test_tells_every_figure_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder, file = tmp_path / "room", tmp_path / "figures.json"
    with _bench(folder, "--size-mib", "2", "--repetitions", "1", "--json", str(file)) as process:
        assert process.wait(120) == 0, process.stderr and process.stderr.read()
    figures = json.loads(file.read_text())
    wanted = {"mib_per_s", "curl_mib_per_s", "sha256sum_mib_per_s", "ratio", "rss_mib", "refetched_bytes"}
    assert wanted <= figures.keys()
    assert all(figures[name] > 0 for name in wanted - {"refetched_bytes"})
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_leaves_nothing_behind_when_it_is_interrupted(tmp_path: Path, how: signal.Signals) -> None:
    with _bench(tmp_path, "--size-mib", "64", "--repetitions", "50") as process:
        assert process.stderr is not None
        assert b"MiB/s" in process.stderr.readline()
        process.send_signal(how)
        process.stderr.read()
        assert process.wait(60) != 0
    assert list(tmp_path.iterdir()) == []
