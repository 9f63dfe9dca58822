"""The `berth` command: what each part is started with, and that it starts without the others."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("kopf", "kubernetes", "aiohttp")


def berth(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "berth", *arguments],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_download_takes_all_arguments_as_they_are_and_gives_its_exit_code(tmp_path: Path) -> None:
    message = tmp_path / "message"
    ended = berth(
        "provision", "--uri", "ftp://host/x", f"--destination={tmp_path}/a", "--termination-log", str(message)
    )
    assert ended.returncode == 65, ended.stderr
    assert json.loads(message.read_text())["reason"] == "InvalidSource"


def test_help_is_the_downloads_own() -> None:
    ended = berth("provision", "--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith("usage: berth provision")
    assert "--token-file" in ended.stdout


def test_wrong_usage_is_told_apart() -> None:
    assert berth("provision", "--nonsense").returncode == 2


def test_a_download_starts_without_what_the_operator_needs() -> None:
    script = f"""
import sys
from berth.cli.main import main
try:
    main(["provision", "--help"])
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr
