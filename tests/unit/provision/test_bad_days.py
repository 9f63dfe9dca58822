"""Downloads from a server on its bad days."""

import hashlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from downloading import Downloads

from berth.provision.__main__ import DONE, FINAL, PASSING
from support.misbehaving_server import Fault, MisbehavingServer

CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LARGE = os.urandom(1 << 20) * 70
LARGE_SHA256 = hashlib.sha256(LARGE).hexdigest()
TOKEN = "unlikely-Secret-0123456789"


class TestRefusals:
    def test_404_is_final_and_names_the_secret(self, server: MisbehavingServer, downloads: Downloads) -> None:
        run = downloads.run(f"{server.url}/weights.gguf", "--sha256", SHA256)
        assert (run.code, run.message["reason"]) == (FINAL, "NotFound")
        assert "source.secretRef" in run.message["message"]
        assert len(server.seen) == 1

    def test_401_is_final_and_names_the_missing_token(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/private", {"a.bin": CONTENT}, token=TOKEN)
        run = downloads.run("hf://org/private")
        assert (run.code, run.message["reason"]) == (FINAL, "TokenMissing")
        assert "Hugging Face token" in run.message["message"]
        assert "source.secretRef (key `token`)" in run.message["message"]
        assert len(hub.requests(f"/org/private/resolve/{'a' * 40}/a.bin")) == 1

    def test_a_wrong_token_is_refused_and_never_shown(
        self, hub: MisbehavingServer, downloads: Downloads, token_file: Callable[[str], str]
    ) -> None:
        hub.put_repository("org/private", {"a.bin": CONTENT}, token="another")
        run = downloads.run("hf://org/private", "--token-file", token_file(TOKEN), "--log-level", "debug")
        assert (run.code, run.message["reason"]) == (FINAL, "TokenRefused")
        assert TOKEN not in run.raw.decode() + run.log
        assert hub.seen[0].headers["Authorization"] == f"Bearer {TOKEN}"

    def test_an_unknown_repository_may_be_a_private_one(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        fault = Fault(status=401, headers={"X-Error-Code": "RepoNotFound"})
        hub.put("/api/models/org/none/revision/main", b"", always=fault)
        run = downloads.run("hf://org/none")
        assert (run.code, run.message["reason"]) == (FINAL, "TokenMissing")
        assert "check the name" in run.message["message"]

    def test_a_gated_repository_says_where_to_accept_its_terms(
        self, hub: MisbehavingServer, downloads: Downloads
    ) -> None:
        fault = Fault(status=403, headers={"X-Error-Code": "GatedRepo"})
        hub.put_repository("org/gated", {"a.bin": CONTENT}, always=fault)
        run = downloads.run("hf://org/gated")
        assert (run.code, run.message["reason"]) == (FINAL, "Gated")
        assert f"{hub.url}/org/gated" in run.message["message"]
        assert "source.secretRef" in run.message["message"]

    def test_an_unknown_revision_is_named(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        fault = Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        hub.put("/api/models/org/repo/revision/v9", b"", always=fault)
        run = downloads.run("hf://org/repo@v9")
        assert (run.code, run.message["reason"]) == (FINAL, "RevisionNotFound")

    def test_an_unreadable_token_file_is_said(self, downloads: Downloads) -> None:
        run = downloads.run("hf://org/repo", "--token-file", "/nowhere/token")
        assert (run.code, run.message["reason"]) == (FINAL, "TokenMissing")

    def test_http_needs_a_digest(self, server: MisbehavingServer, downloads: Downloads) -> None:
        assert downloads.run(f"{server.url}/a").message["reason"] == "InvalidSource"
        assert server.seen == []


class TestBadAnswers:
    def test_429_is_obeyed(self, server: MisbehavingServer, downloads: Downloads) -> None:
        busy = Fault(status=429, headers={"Retry-After": "1"})
        server.put("/w.bin", CONTENT, faults=[Fault(), busy])
        begun = time.monotonic()
        run = downloads.run(f"{server.url}/w.bin", "--sha256", SHA256)
        assert run.code == DONE
        assert time.monotonic() - begun >= 1
        assert "TooManyRequests" in run.log

    def test_errors_of_the_server_are_waited_out(self, server: MisbehavingServer, downloads: Downloads) -> None:
        server.put("/w.bin", CONTENT, faults=[Fault(status=status) for status in (500, 502, 503, 504, 500)])
        assert downloads.run(f"{server.url}/w.bin", "--sha256", SHA256).code == DONE
        assert (downloads.destination / "w.bin").read_bytes() == CONTENT

    def test_errors_that_do_not_end_are_no_fault_of_the_user(
        self, server: MisbehavingServer, downloads: Downloads
    ) -> None:
        server.put("/w.bin", CONTENT, always=Fault(status=503))
        run = downloads.run(f"{server.url}/w.bin", "--sha256", SHA256, "--tries", "3")
        assert (run.code, run.message["reason"], run.message["passing"]) == (PASSING, "ServerError", True)
        assert len(server.seen) == 3

    def test_a_cut_connection_goes_on_where_it_was_cut(self, server: MisbehavingServer, downloads: Downloads) -> None:
        resource = server.put(
            "/w.bin", CONTENT, faults=[Fault(), Fault(cut_after=1_000_000), Fault(cut_after=1_000_000)]
        )
        assert downloads.run(f"{server.url}/w.bin", "--sha256", SHA256).code == DONE
        assert (downloads.destination / "w.bin").read_bytes() == CONTENT
        assert not resource.faults
        assert server.requests("/w.bin")[-1].range == f"bytes=2000000-{len(CONTENT) - 1}"

    def test_a_connection_that_is_always_cut_at_once_is_given_up(
        self, server: MisbehavingServer, downloads: Downloads
    ) -> None:
        server.put("/w.bin", CONTENT, faults=[Fault()], always=Fault(cut_after=10))
        run = downloads.run(f"{server.url}/w.bin", "--sha256", SHA256, "--tries", "4")
        assert (run.code, run.message["reason"]) == (PASSING, "ConnectionCut")

    def test_a_silent_server_is_left(self, server: MisbehavingServer, downloads: Downloads) -> None:
        server.put("/w.bin", CONTENT, faults=[Fault(), Fault(hang_after=500_000)])
        run = downloads.run(f"{server.url}/w.bin", "--sha256", SHA256, "--timeout", "0.5")
        assert run.code == DONE
        assert "Stalled" in run.log

    def test_a_wrong_length_is_noticed(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT}, always=Fault(claim_length=len(CONTENT) - 5))
        run = downloads.run("hf://org/repo")
        assert (run.code, run.message["reason"]) == (FINAL, "SizeMismatch")
        assert not (downloads.destination / "a.bin").exists()

    def test_a_wrong_digest_is_fetched_once_more(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT}, lfs=["a.bin"], faults=[Fault(corrupt=True)])
        run = downloads.run("hf://org/repo")
        assert run.code == DONE
        assert "ChecksumMismatch" in run.log
        assert (downloads.destination / "a.bin").read_bytes() == CONTENT

    @pytest.mark.parametrize("lfs", [["a.bin"], []])
    def test_a_digest_that_stays_wrong_is_final_and_leaves_nothing(
        self, hub: MisbehavingServer, downloads: Downloads, lfs: list[str]
    ) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT}, lfs=lfs, always=Fault(corrupt=True))
        run = downloads.run("hf://org/repo")
        assert (run.code, run.message["reason"]) == (FINAL, "ChecksumMismatch")
        assert len(hub.requests(f"/org/repo/resolve/{'a' * 40}/a.bin")) == 2
        assert not (downloads.destination / "manifest.json").exists()
        assert not (downloads.destination / "a.bin").exists()
        assert not [name for name in downloads.leftovers() if "a.bin" in name]

    def test_a_large_file_with_a_wrong_digest_is_fetched_once_more(
        self, server: MisbehavingServer, downloads: Downloads
    ) -> None:
        server.put("/w.bin", LARGE, faults=[Fault(), Fault(corrupt=True)])
        assert downloads.run(f"{server.url}/w.bin", "--sha256", LARGE_SHA256).code == DONE
        assert (downloads.destination / "w.bin").read_bytes() == LARGE
        assert server.sent("/w.bin") >= 2 * len(LARGE)

    @pytest.mark.parametrize("content", [CONTENT, LARGE], ids=["one part", "three parts"])
    def test_a_server_without_ranges_will_do(
        self, server: MisbehavingServer, downloads: Downloads, content: bytes
    ) -> None:
        cut = Fault(ignore_range=True, cut_after=1_000_000)
        server.put("/w.bin", content, faults=[Fault(ignore_range=True), cut], always=Fault(ignore_range=True))
        run = downloads.run(f"{server.url}/w.bin", "--sha256", hashlib.sha256(content).hexdigest())
        assert run.code == DONE
        assert (downloads.destination / "w.bin").read_bytes() == content
        assert run.message["bytesTotal"] == len(content)

    def test_a_server_without_ranges_that_always_cuts_is_given_up(
        self, server: MisbehavingServer, downloads: Downloads
    ) -> None:
        server.put("/w.bin", CONTENT, faults=[Fault()], always=Fault(ignore_range=True, cut_after=700_000))
        run = downloads.run(f"{server.url}/w.bin", "--sha256", SHA256, "--tries", "3")
        assert (run.code, run.message["reason"]) == (PASSING, "ConnectionCut")

    def test_another_part_than_asked_for_is_not_stored(self, server: MisbehavingServer, downloads: Downloads) -> None:
        server.put("/w.bin", LARGE, faults=[Fault(), Fault(shifted=1000), Fault(shifted=5)])
        assert downloads.run(f"{server.url}/w.bin", "--sha256", LARGE_SHA256).code == DONE
        assert (downloads.destination / "w.bin").read_bytes() == LARGE

    def test_a_web_page_is_not_taken_for_a_file(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": b"<html>log in</html>"}, kind="text/html")
        run = downloads.run("hf://org/repo")
        assert (run.code, run.message["reason"]) == (PASSING, "UnexpectedContent")
        assert "web page" in run.message["message"]
        assert len(hub.seen) == 1 + 3

    def test_a_web_page_is_not_taken_for_a_listing(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put("/api/models/org/repo/revision/main", b"<html>log in</html>", kind="text/html")
        run = downloads.run("hf://org/repo")
        assert (run.code, run.message["reason"]) == (PASSING, "UnexpectedContent")

    def test_a_file_of_unknown_size_is_taken_when_its_end_is_marked(
        self, server: MisbehavingServer, downloads: Downloads
    ) -> None:
        server.put("/w.bin", CONTENT, chunked=True, faults=[Fault(ignore_range=True), Fault(cut_after=1_000_000)])
        run = downloads.run(f"{server.url}/w.bin", "--sha256", SHA256)
        assert run.code == DONE
        assert run.message["bytesTotal"] == len(CONTENT)
        assert (downloads.destination / "w.bin").read_bytes() == CONTENT

    def test_a_file_of_unknown_size_is_held_to_the_limit(self, server: MisbehavingServer, downloads: Downloads) -> None:
        server.put("/w.bin", CONTENT, chunked=True, faults=[Fault(ignore_range=True)])
        run = downloads.run(f"{server.url}/w.bin", "--sha256", SHA256, "--limit", "2000000")
        assert (run.code, run.message["reason"]) == (FINAL, "LimitExceeded")

    def test_a_body_that_ends_early_without_a_length_is_caught_by_its_digest(
        self, server: MisbehavingServer, downloads: Downloads
    ) -> None:
        open_ended = Fault(ignore_range=True, without_length=True)
        cut = Fault(ignore_range=True, without_length=True, cut_after=1_000_000)
        server.put("/w.bin", CONTENT, faults=[open_ended, cut], always=open_ended)
        assert downloads.run(f"{server.url}/w.bin", "--sha256", SHA256).code == DONE
        assert (downloads.destination / "w.bin").read_bytes() == CONTENT


class TestRoom:
    def test_the_limit_is_checked_before_the_first_byte(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT, "b.bin": CONTENT})
        run = downloads.run("hf://org/repo", "--limit", str(2 * len(CONTENT) - 1))
        assert (run.code, run.message["reason"]) == (FINAL, "LimitExceeded")
        assert len(hub.seen) == 1
        total = 2 * len(CONTENT)
        assert (run.message["bytesTotal"], run.message["bytesMissing"], run.message["bytesPresent"]) == (
            total,
            total,
            0,
        )

    def test_what_is_there_already_is_not_missing(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT})
        assert downloads.run("hf://org/repo").code == DONE
        hub.put_repository("org/repo", {"a.bin": CONTENT, "b.bin": CONTENT}, commit="b" * 40, revisions=["v2"])
        run = downloads.run("hf://org/repo@v2", "--limit", str(len(CONTENT)))
        size = len(CONTENT)
        assert run.message["reason"] == "LimitExceeded"
        assert (run.message["bytesTotal"], run.message["bytesMissing"]) == (2 * size, size)
        assert (run.message["bytesPresent"], run.message["filesDone"], run.message["filesTotal"]) == (size, 1, 2)

    def test_free_space_is_checked_before_the_first_byte(self, server: MisbehavingServer, downloads: Downloads) -> None:
        huge = downloads.folder / "huge"
        with huge.open("wb") as stream:
            stream.truncate(1 << 43)
        server.put("/huge.bin", huge)
        run = downloads.run(f"{server.url}/huge.bin", "--sha256", SHA256)
        assert (run.code, run.message["reason"]) == (FINAL, "NoSpace")
        assert "8.0 TiB" in run.message["message"]
        assert run.message["bytesTotal"] == run.message["bytesMissing"] == 1 << 43
        assert 0 < run.message["volumeFree"] < 1 << 43
        assert server.sent("/huge.bin") <= 1
        assert downloads.leftovers() == [".berth/resolution.json"]

    def test_a_file_that_may_not_grow_ends_the_download(self, server: MisbehavingServer, downloads: Downloads) -> None:
        import resource

        server.put("/w.bin", CONTENT)

        def bounded() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

        process = downloads.start(f"{server.url}/w.bin", "--sha256", SHA256, preexec_fn=bounded)
        process.communicate(timeout=30)
        run = downloads.result(process.returncode)
        assert (run.code, run.message["reason"]) == (FINAL, "NoSpace")
        assert (downloads.destination / "w.bin.partial").stat().st_size == 1_000_000
        assert (run.message["bytesTotal"], run.message["bytesPresent"]) == (len(CONTENT), 1_000_000)
        assert 0 <= run.message["bytesMissing"] - (len(CONTENT) - 1_000_000) < 1 << 16
        assert downloads.run(f"{server.url}/w.bin", "--sha256", SHA256).code == DONE
        assert server.requests("/w.bin")[-1].range == f"bytes=1000000-{len(CONTENT) - 1}"

    @pytest.mark.skipif(os.geteuid() != 0, reason="a file system has to be mounted")
    def test_a_full_disk_ends_the_download_and_a_larger_one_goes_on(
        self, server: MisbehavingServer, downloads: Downloads
    ) -> None:
        import subprocess

        downloads.destination.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(downloads.destination)], capture_output=True
        )
        if mounted.returncode:
            pytest.skip("no file system can be mounted here")
        try:
            # The size is not known beforehand, so that only the disk itself can say no.
            content = CONTENT * 2
            digest = hashlib.sha256(content).hexdigest()
            server.put("/w.bin", content, chunked=True, faults=[Fault(ignore_range=True)])
            run = downloads.run(f"{server.url}/w.bin", "--sha256", digest)
            assert (run.code, run.message["reason"]) == (FINAL, "NoSpace")
            subprocess.run(["mount", "-o", "remount,size=20m", str(downloads.destination)], check=True)
            server.resources["/w.bin"].chunked = False
            assert downloads.run(f"{server.url}/w.bin", "--sha256", digest).code == DONE
        finally:
            subprocess.run(["umount", "-l", str(downloads.destination)], check=True)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_volume_that_cannot_be_written_is_said(self, server: MisbehavingServer, downloads: Downloads) -> None:
        downloads.destination.mkdir(mode=0o500)
        server.put("/w.bin", CONTENT)
        assert downloads.run(f"{server.url}/w.bin", "--sha256", SHA256).message["reason"] == "VolumeNotWritable"


class TestPathsThatLeave:
    @pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside", "manifest.json"])
    def test_nothing_is_fetched(self, hub: MisbehavingServer, downloads: Downloads, name: str) -> None:
        hub.put_repository("org/repo", {name: CONTENT, "ok.bin": CONTENT})
        run = downloads.run("hf://org/repo")
        assert (run.code, run.message["reason"]) == (FINAL, "UnsafePath")
        assert len(hub.seen) == 1
        assert not (downloads.folder / "outside").exists()

    def test_a_folder_that_is_a_link_is_not_followed(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        outside = downloads.folder / "outside"
        outside.mkdir()
        downloads.destination.mkdir()
        (downloads.destination / "sub").symlink_to(outside)
        hub.put_repository("org/repo", {"sub/a.bin": CONTENT})
        run = downloads.run("hf://org/repo")
        assert (run.code, run.message["reason"]) == (FINAL, "UnsafePath")
        assert list(outside.iterdir()) == []

    @pytest.mark.parametrize("name", ["a.bin.partial", "a.bin.partial.state", ".berth"])
    def test_a_file_that_is_a_link_is_not_followed(
        self, hub: MisbehavingServer, downloads: Downloads, name: str
    ) -> None:
        outside = downloads.folder / "outside"
        outside.write_bytes(b"precious")
        downloads.destination.mkdir()
        (downloads.destination / name).symlink_to(outside)
        hub.put_repository("org/repo", {"a.bin": CONTENT})
        run = downloads.run("hf://org/repo")
        assert (run.code, run.message["reason"]) == (FINAL, "UnsafePath")
        assert outside.read_bytes() == b"precious"

    def test_a_link_in_the_place_of_a_file_is_replaced(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        outside = downloads.folder / "outside"
        outside.write_bytes(b"precious")
        downloads.destination.mkdir()
        (downloads.destination / "a.bin").symlink_to(outside)
        hub.put_repository("org/repo", {"a.bin": CONTENT})
        assert downloads.run("hf://org/repo").code == DONE
        assert outside.read_bytes() == b"precious"
        assert (downloads.destination / "a.bin").read_bytes() == CONTENT

    def test_a_pipe_in_the_way_holds_nobody(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        downloads.destination.mkdir()
        os.mkfifo(downloads.destination / "a.bin.partial")
        hub.put_repository("org/repo", {"a.bin": CONTENT})
        assert downloads.run("hf://org/repo").message["reason"] == "UnsafePath"


def test_the_wall_clock_is_asked_only_for_the_date_in_the_manifest() -> None:
    package = Path(__file__).resolve().parents[3] / "operator" / "berth" / "provision"
    uses = [
        f"{file.name}: {line.strip()}"
        for file in package.rglob("*.py")
        for line in file.read_text().splitlines()
        if re.search(r"\btime\.time\(|\bdatetime\.(now|utcnow|today)\(|\btime_ns\(", line)
    ]
    assert uses == ['run.py: return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")']
