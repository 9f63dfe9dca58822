"""What is kept across kills, restarts, reboots and other writers, and how much memory it takes."""

import hashlib
import importlib.util
import json
import os
import random
import re
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest
from downloading import Downloads, wait_for
from tiny_models import safetensors

from berth.provision.__main__ import DONE, TERMINATED
from berth.provision.partial import MOST_UNWRITTEN, Partial
from berth.provision.transfer import read_size
from berth.provision.volume import Volume
from support.misbehaving_server import Fault, MisbehavingServer

MIB = 1 << 20
CONTENT = os.urandom(MIB) * 3 + b"end"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LARGE = random.Random(1).randbytes(72 * MIB)
LARGE_SHA256 = hashlib.sha256(LARGE).hexdigest()


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate(timeout=10)


class TestKilled:
    @pytest.mark.slow
    def test_twenty_kills_lose_at_most_a_mebibyte_each(self, server: MisbehavingServer, downloads: Downloads) -> None:
        """Slow enough that buffers are empty: what the server sent and the next run asks for again was lost."""
        weights = server.put("/w.bin", LARGE, rate=20 * MIB)
        arguments = (f"{server.url}/w.bin", "--sha256", LARGE_SHA256, "--connections", "3")
        kills, chance = 0, random.Random(3)
        while kills < 20:
            at = server.sent("/w.bin") + chance.randrange(1, 3 * MIB)
            process = downloads.start(*arguments)
            wait_for(lambda at=at: server.sent("/w.bin") >= at, "enough bytes")
            _kill(process)
            kills += 1
            assert not (downloads.destination / "w.bin").exists()
        weights.rate = None
        wait_for(lambda: _settled(server), "the server to notice")
        assert downloads.run(*arguments).code == DONE
        assert (downloads.destination / "w.bin").read_bytes() == LARGE
        lost = server.sent("/w.bin") - len(LARGE)
        assert lost <= 20 * MIB, f"{lost / MIB / 20:.2f} MiB were lost by each kill"
        assert downloads.leftovers() == []
        manifest = json.loads((downloads.destination / "manifest.json").read_text())
        assert manifest["verified"] is True

    def test_what_is_in_memory_only_is_bounded(
        self, server: MisbehavingServer, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reads are larger than the 64 KiB that the HTTP library takes by itself, for speed, but not without limit."""
        source = downloads.folder / "source"
        source.write_bytes(LARGE)
        server.put("/w.bin", source)
        sizes, write = [], Partial.write

        def recorded(self: Partial, offset: int, data: bytes) -> None:
            sizes.append(len(data))
            write(self, offset, data)

        monkeypatch.setattr(Partial, "write", recorded)
        assert downloads.run(f"{server.url}/w.bin", "--sha256", LARGE_SHA256).code == DONE
        assert 64 * 1024 < max(sizes) <= MOST_UNWRITTEN / 4

    @pytest.mark.parametrize("connections", [1, 4, 16, 64])
    def test_all_connections_together_lose_little(self, connections: int) -> None:
        assert read_size(connections, plain=True) * connections <= MOST_UNWRITTEN

    def test_finished_files_are_neither_fetched_nor_read_again(
        self, hub: MisbehavingServer, downloads: Downloads
    ) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT, "b.bin": LARGE}, lfs=["a.bin", "b.bin"])
        b = f"/org/repo/resolve/{'a' * 40}/b.bin"
        hub.resources[b].rate = 20 * MIB
        process = downloads.start("hf://org/repo", "--connections", "2")
        wait_for(lambda: (downloads.destination / "a.bin").exists() and hub.sent(b) > 5 * MIB, "a.bin")
        _kill(process)
        fetched = hub.sent(f"/org/repo/resolve/{'a' * 40}/a.bin")
        hub.resources[b].rate = None
        assert downloads.run("hf://org/repo").code == DONE
        assert hub.sent(f"/org/repo/resolve/{'a' * 40}/a.bin") == fetched == len(CONTENT)

    def test_a_restart_stays_at_the_revision_that_was_found_first(
        self, hub: MisbehavingServer, downloads: Downloads
    ) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT}, commit="a" * 40, always=Fault(status=503))
        assert downloads.run("hf://org/repo", "--tries", "1").code != DONE
        hub.put_repository("org/repo", {"a.bin": b"newer"}, commit="b" * 40)
        hub.put(f"/org/repo/resolve/{'a' * 40}/a.bin", CONTENT)
        run = downloads.run("hf://org/repo")
        assert (run.code, run.message["revision"], run.message["attempt"]) == (DONE, "a" * 40, 2)
        assert (downloads.destination / "a.bin").read_bytes() == CONTENT

    def test_a_commit_that_is_gone_is_found_anew(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT}, commit="a" * 40, always=Fault(status=503))
        assert downloads.run("hf://org/repo", "--tries", "1").code != DONE
        del hub.resources[f"/api/models/org/repo/revision/{'a' * 40}"]
        hub.put_repository("org/repo", {"a.bin": b"newer"}, commit="b" * 40)
        run = downloads.run("hf://org/repo")
        assert (run.code, run.message["revision"]) == (DONE, "b" * 40)
        assert (downloads.destination / "a.bin").read_bytes() == b"newer"

    def test_sigterm_ends_at_once_and_keeps_what_has_arrived(
        self, server: MisbehavingServer, downloads: Downloads
    ) -> None:
        server.put("/w.bin", LARGE, rate=20 * MIB)
        process = downloads.start(f"{server.url}/w.bin", "--sha256", LARGE_SHA256)
        wait_for(lambda: server.sent("/w.bin") > 4 * MIB, "some bytes")
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
        assert time.monotonic() - begun < 4
        run = downloads.result(process.returncode)
        assert (run.code, run.message["reason"], run.message["passing"]) == (TERMINATED, "Interrupted", True)
        server.resources["/w.bin"].rate = None
        wait_for(lambda: _settled(server), "the server to notice")
        assert downloads.run(f"{server.url}/w.bin", "--sha256", LARGE_SHA256).code == DONE
        assert server.sent("/w.bin") < len(LARGE) + 4 * MIB


def _settled(server: MisbehavingServer) -> bool:
    before = server.sent("/w.bin")
    time.sleep(0.2)
    return server.sent("/w.bin") == before


class TestClock:
    @pytest.mark.parametrize(
        "step", [-10 * 365 * 86400, pytest.param(10 * 365 * 86400, marks=pytest.mark.slow)], ids=["back", "forth"]
    )
    def test_a_clock_that_jumps_while_files_come_changes_nothing(
        self, server: MisbehavingServer, downloads: Downloads, step: int
    ) -> None:
        """Neither waits nor time-outs nor speeds depend on it, and a wait for the server is as long as it says."""
        library = importlib.util.find_spec("libfaketime")
        if library is None or library.origin is None:
            pytest.skip("libfaketime is not made for this machine")
        offset = downloads.folder / "offset"
        offset.write_text("+0")
        preload = Path(library.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
        env = {
            "LD_PRELOAD": str(preload),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        busy = Fault(status=429, headers={"Retry-After": "1"})
        server.put("/w.bin", CONTENT, rate=3 * MIB, faults=[Fault(), Fault(cut_after=MIB), busy])
        arguments = (f"{server.url}/w.bin", "--sha256", SHA256, "--timeout", "5", "--log-level", "info")
        begun = time.monotonic()
        process = downloads.start(*arguments, env=env)
        wait_for(lambda: len(server.requests("/w.bin")) >= 3, "the answer that asks to wait")
        offset.write_text(f"{step:+d}")
        log = process.communicate(timeout=30)[1].decode()
        assert process.returncode == DONE, log
        assert (downloads.destination / "w.bin").read_bytes() == CONTENT
        run = downloads.result(process.returncode)
        assert 1 <= run.message["seconds"] <= time.monotonic() - begun
        assert run.message["retries"] == {"ConnectionCut": 1, "TooManyRequests": 1}
        year = int(json.loads((downloads.destination / "manifest.json").read_text())["createdAt"][:4])
        assert abs(year - time.gmtime().tm_year) >= 9, "the clock did not jump"


class TestFoundOnTheVolume:
    def test_what_is_there_needs_no_network(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT, "sub/b.json": b"{}"})
        assert downloads.run("hf://org/repo").code == DONE
        hub.resources.clear()
        asked = len(hub.seen)
        run = downloads.run("hf://org/repo")
        assert (run.code, run.message["bytesFetched"], run.message["verified"]) == (DONE, 0, True)
        assert len(hub.seen) == asked

    def test_a_file_that_was_cut_short_is_fetched_again(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT, "b.json": b"{}"})
        assert downloads.run("hf://org/repo").code == DONE
        with (downloads.destination / "a.bin").open("r+b") as stream:
            stream.truncate(1000)
        assert downloads.run("hf://org/repo").code == DONE
        assert (downloads.destination / "a.bin").read_bytes() == CONTENT

    def test_files_that_nobody_knows_are_read_and_kept_when_right(
        self, hub: MisbehavingServer, downloads: Downloads
    ) -> None:
        hub.put_repository("org/repo", {"right.bin": CONTENT, "wrong.bin": CONTENT}, lfs=["right.bin"])
        downloads.destination.mkdir()
        (downloads.destination / "right.bin").write_bytes(CONTENT)
        (downloads.destination / "wrong.bin").write_bytes(bytes(len(CONTENT)))
        assert downloads.run("hf://org/repo").code == DONE
        assert hub.sent(f"/org/repo/resolve/{'a' * 40}/right.bin") == 0
        assert (downloads.destination / "wrong.bin").read_bytes() == CONTENT

    def test_stale_partials_are_removed(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        hub.put_repository("org/repo", {"a.bin": CONTENT})
        (downloads.destination / "old").mkdir(parents=True)
        for name in ("gone.bin.partial", "gone.bin.partial.state", "old/gone.partial"):
            (downloads.destination / name).write_bytes(b"x" * 1000)
        assert downloads.run("hf://org/repo").code == DONE
        assert downloads.leftovers() == []

    def test_a_newer_revision_takes_the_place_of_the_older(self, hub: MisbehavingServer, downloads: Downloads) -> None:
        same, commit = b"same" * 1000, "b" * 40
        hub.put_repository("org/repo", {"a.bin": CONTENT, "gone.bin": b"1", "same": same}, lfs=["same"])
        assert downloads.run("hf://org/repo@main").code == DONE
        hub.put_repository("org/repo", {"a.bin": b"new", "same": same}, commit=commit, revisions=["v2"], lfs=["same"])
        assert downloads.run("hf://org/repo@v2").code == DONE
        assert sorted(path.name for path in downloads.destination.iterdir()) == [
            ".berth",
            "a.bin",
            "manifest.json",
            "same",
        ]
        assert hub.requests(f"/org/repo/resolve/{commit}/same") == []


class TestPartial:
    def _volume(self, tmp_path: Path) -> Volume:
        return Volume(tmp_path / "volume")

    def test_goes_on_where_each_part_ended(self, tmp_path: Path) -> None:
        with self._volume(tmp_path) as volume:
            first = Partial(volume, "f", 100, "id", part=40)
            first.write(0, b"a" * 10)
            first.write(40, b"b" * 40)
            first.close()
            again = Partial(volume, "f", 100, "id", part=40)
            assert (again.written, again.missing(), again.arrived) == ([10, 40, 0], [0, 2], 50)
            assert again.frontier() == 10
            again.write(10, b"c" * 30)
            assert again.frontier(10) == 80
            again.close()

    @pytest.mark.parametrize("other", [(100, "other"), (99, "id"), (100, None)])
    def test_does_not_go_on_with_another_file(self, tmp_path: Path, other: tuple[int, str | None]) -> None:
        with self._volume(tmp_path) as volume:
            first = Partial(volume, "f", 100, "id", part=40)
            first.write(0, b"a" * 10)
            first.close()
            again = Partial(volume, "f", *other, part=40)
            assert again.arrived == 0
            again.close()

    def test_after_a_reboot_only_what_was_flushed_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with self._volume(tmp_path) as volume:
            first = Partial(volume, "f", 100, "id", part=40)
            first.write(0, b"a" * 40)
            first.flush(0, 0)
            first.write(40, b"b" * 20)
            first.close()
            monkeypatch.setattr("berth.provision.partial.boot_id", lambda: "another boot")
            again = Partial(volume, "f", 100, "id", part=40)
            assert again.written == [40, 0, 0]
            again.close()

    @pytest.mark.parametrize("damage", [b"", b"nonsense", b"{}" + b" " * 510 + b"\xff" * 48, b"[]".ljust(560)])
    def test_a_damaged_journal_is_no_journal(self, tmp_path: Path, damage: bytes) -> None:
        with self._volume(tmp_path) as volume:
            first = Partial(volume, "f", 100, "id", part=40)
            first.write(0, b"a" * 40)
            first.close()
            (tmp_path / "volume" / "f.partial.state").write_bytes(damage)
            again = Partial(volume, "f", 100, "id", part=40)
            assert again.arrived == 0
            again.close()

    def test_data_that_is_shorter_than_the_journal_says_counts_as_far_as_it_goes(self, tmp_path: Path) -> None:
        with self._volume(tmp_path) as volume:
            first = Partial(volume, "f", 100, "id", part=40)
            first.write(0, b"a" * 80)
            first.close()
            os.truncate(tmp_path / "volume" / "f.partial", 50)
            again = Partial(volume, "f", 100, "id", part=40)
            assert again.written == [40, 10, 0]
            again.close()


class TestTwoWriters:
    def test_the_second_waits_and_finds_everything_there(self, server: MisbehavingServer, downloads: Downloads) -> None:
        server.put("/w.bin", LARGE, rate=60 * MIB)
        arguments = (f"{server.url}/w.bin", "--sha256", LARGE_SHA256)
        both = [downloads.start(*arguments) for _ in range(2)]
        logs = [process.communicate(timeout=60)[1].decode() for process in both]
        assert [process.returncode for process in both] == [DONE, DONE], logs
        assert server.sent("/w.bin") <= len(LARGE) + 2
        assert sum("waiting until it ends" in log for log in logs) == 1
        assert (downloads.destination / "w.bin").read_bytes() == LARGE

    def test_the_second_does_not_wait_for_ever(self, server: MisbehavingServer, downloads: Downloads) -> None:
        server.put("/w.bin", LARGE, rate=10 * MIB)
        arguments = (f"{server.url}/w.bin", "--sha256", LARGE_SHA256)
        first = downloads.start(*arguments)
        wait_for(lambda: server.sent("/w.bin") > MIB, "some bytes")
        run = downloads.run(*arguments, "--lock-patience", "0.3")
        _kill(first)
        assert run.message["reason"] == "Locked"
        assert run.message["passing"] is True


def _peak_of(process: subprocess.Popen[bytes]) -> int:
    """The most memory that a download takes until it ends well."""
    peak = 0
    while process.poll() is None:
        # Not ru_maxrss: that begins with what the process that forked had.
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        peak = max(peak, int(found[1]) * 1024 if found else 0)
        time.sleep(0.01)
    log = process.communicate(timeout=10)[1].decode()
    assert process.returncode == DONE, log
    assert peak > 10 * MIB
    return peak


def _peak_memory(server: MisbehavingServer, downloads: Downloads, size: int) -> tuple[int, float]:
    source = downloads.folder / "source"
    with source.open("wb") as stream:
        stream.truncate(size)
    zeros, block = hashlib.sha256(), bytes(MIB)
    for _ in range(size // MIB):
        zeros.update(block)
    server.put("/w.bin", source)
    begun = time.monotonic()
    peak = _peak_of(downloads.start(f"{server.url}/w.bin", "--sha256", zeros.hexdigest(), "--connections", "8"))
    assert (downloads.destination / "w.bin").stat().st_size == size
    (downloads.destination / "w.bin").unlink()
    return peak, time.monotonic() - begun


def test_memory_does_not_grow_with_the_file(server: MisbehavingServer, downloads: Downloads) -> None:
    peak, _ = _peak_memory(server, downloads, 300 * MIB)
    assert peak < 100 * MIB


@pytest.mark.slow
def test_five_gibibytes_within_200_mebibytes_of_memory(server: MisbehavingServer, downloads: Downloads) -> None:
    peak, seconds = _peak_memory(server, downloads, 5 << 30)
    print(f"peak {peak // MIB} MiB, {5 * 1024 / seconds:.0f} MiB/s")
    assert peak < 200 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_the_longest_headers_take_no_more_memory_than_files(
    hub: MisbehavingServer, downloads: Downloads, kind: str
) -> None:
    """Whatever they claim: a vocabulary of four million words, thousands of tensors in every one of twenty files."""
    if kind == "gguf":
        word = (8).to_bytes(8, "little") + b"word1234"
        key = b"tokenizer.ggml.tokens"
        array = struct.pack("<IIQ", 9, 8, 3_900_000) + word * 3_900_000
        header = b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(key)) + key + array
        hub.put_repository("org/repo", {"vast.gguf": header})
    else:
        vast = safetensors(elements=0, tensors=240_000)
        assert 15 * MIB < len(vast) < 16 * MIB
        hub.put_repository("org/repo", {f"{number}.safetensors": vast for number in range(20)})
    peak = _peak_of(downloads.start("hf://org/repo", "--for", '{"backend":"sglang","gpus":1}'))
    print(f"peak {peak // MIB} MiB")
    assert peak < 200 * MIB
