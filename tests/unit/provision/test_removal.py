"""Removing an artifact: all of it, nothing else, and as often as one likes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from downloading import ROOT, Downloads, Run, wait_for

from berth.provision.__main__ import DONE, FINAL, PASSING, main
from support.misbehaving_server import MisbehavingServer

CONTENT = os.urandom(200_000)


def remove(downloads: Downloads, *more: str) -> Run:
    arguments = ["--remove", "--destination", str(downloads.destination)]
    code = main([*arguments, "--termination-log", str(downloads.folder / "message"), *more])
    return downloads.result(code)


def siblings(downloads: Downloads) -> list[str]:
    return sorted(path.name for path in downloads.destination.parent.iterdir() if path.is_dir())


@pytest.fixture
def artifact(hub: MisbehavingServer, downloads: Downloads) -> Path:
    hub.put_repository("org/repo", {"a.bin": CONTENT, "sub/b.bin": CONTENT})
    assert downloads.run("hf://org/repo").code == DONE
    return downloads.destination


def test_nothing_is_left_and_the_message_says_what_the_volume_has(downloads: Downloads, artifact: Path) -> None:
    run = remove(downloads)
    assert (run.code, run.message["result"], run.message["bytesPresent"]) == (DONE, "Succeeded", 0)
    assert run.message["volumeFree"] <= run.message["volumeCapacity"] == shutil.disk_usage(artifact.parent).total
    assert siblings(downloads) == []


def test_what_is_not_there_is_removed_already(downloads: Downloads) -> None:
    assert remove(downloads).code == DONE
    downloads.destination = downloads.destination / "of" / "nowhere"
    assert remove(downloads).code == DONE
    assert siblings(Downloads(downloads.folder, downloads.folder / "artifact", downloads.capture)) == []


def test_links_are_not_followed(downloads: Downloads, artifact: Path) -> None:
    precious = downloads.folder / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(CONTENT)
    (artifact / "out").symlink_to(precious)
    (artifact / "sub" / "file").symlink_to(precious / "file")
    assert remove(downloads).code == DONE
    assert (precious / "file").read_bytes() == CONTENT
    assert siblings(downloads) == ["precious"]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_folder_is_left_alone(downloads: Downloads, kind: str) -> None:
    precious = downloads.folder / "precious"
    precious.mkdir()
    if kind == "link":
        downloads.destination.symlink_to(precious)
    else:
        downloads.destination.write_bytes(CONTENT)
    run = remove(downloads)
    assert (run.code, run.message["reason"]) == (FINAL, "UnsafePath")
    assert precious.is_dir()
    assert os.path.lexists(downloads.destination)


@pytest.mark.parametrize("destination", ["/", "..", ".trash-artifact"])
def test_only_a_folder_with_a_name_of_its_own_is_removed(downloads: Downloads, destination: str) -> None:
    downloads.destination = Path(destination)
    assert remove(downloads).message["reason"] == "UnsafePath"


def test_a_removal_that_was_cut_off_is_finished_by_the_next(downloads: Downloads, artifact: Path) -> None:
    artifact.rename(artifact.with_name(".trash-artifact"))
    shutil.copytree(artifact.with_name(".trash-artifact"), artifact.with_name(".trash-another"))
    assert remove(downloads).code == DONE
    assert siblings(downloads) == []


def test_a_folder_is_whole_or_gone_at_any_moment(downloads: Downloads, artifact: Path) -> None:
    """Killed right after the first file is gone, it has another name already."""
    script = f"""
import os, sys
from berth.provision.__main__ import main
unlink = os.unlink
def dying(*arguments, **options):
    unlink(*arguments, **options)
    os._exit(9)
os.unlink = dying
main(["--remove", "--destination", {str(artifact)!r}])
"""
    killed = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT / "operator")})
    assert killed.returncode == 9
    assert siblings(downloads) == [".trash-artifact"]
    assert remove(downloads).code == DONE
    assert siblings(downloads) == []


def test_a_download_is_waited_for(server: MisbehavingServer, downloads: Downloads) -> None:
    server.put("/w.bin", CONTENT * 10, rate=100_000)
    process = downloads.start(f"{server.url}/w.bin", "--sha256", "0" * 64)
    wait_for(lambda: server.sent("/w.bin") > 1, "a download")
    run = remove(downloads, "--lock-patience", "0.3")
    assert (run.code, run.message["reason"]) == (PASSING, "Locked")
    assert (downloads.destination / "w.bin.partial").exists()
    process.kill()
    process.communicate(timeout=10)
    assert remove(downloads).code == DONE


def test_what_was_removed_can_be_fetched_again(downloads: Downloads, artifact: Path) -> None:
    assert remove(downloads).code == DONE
    assert downloads.run("hf://org/repo").code == DONE
    assert (artifact / "a.bin").read_bytes() == CONTENT


def test_what_to_do_has_to_be_said(downloads: Downloads) -> None:
    for arguments in ([], ["--remove", "--uri", "hf://org/repo"]):
        with pytest.raises(SystemExit):
            main([*arguments, "--destination", str(downloads.destination)])
