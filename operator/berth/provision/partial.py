"""One file on its way: what has arrived is in `<name>.partial`, and a journal beside it says which parts.

A part is a fixed length of the file that one connection fetches. Every write is followed by its counter in the journal,
so a killed process loses only what was read and not yet written, at most twice `MOST_UNWRITTEN` over all connections.
Counters of a machine that went down may be ahead of its disk: after a reboot, or on another node, only what was flushed
counts.
"""

import json
import os
import struct
from pathlib import Path

from berth.provision import paths
from berth.provision.volume import Volume, volume_errors

PART = 32 * 1024 * 1024
MOST_UNWRITTEN = 384 * 1024
"""Most bytes of a read, over all connections together. A kill loses up to two reads of each: one that is being stored
and one in the HTTP library.
"""
_HEADER = 512
_COUNTERS = struct.Struct("<QQ")
_WRITTEN = struct.Struct("<Q")
_UNENDING = 1 << 62


def boot_id() -> str:
    """Names this run of this kernel; empty where it has no name, and then nothing unflushed is trusted."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Partial:
    """The bytes of one file that have arrived. Each part has one writer at a time."""

    def __init__(self, volume: Volume, path: str, size: int | None, identity: str | None, part: int = PART) -> None:
        """Goes on where another process ended when `identity` says that it was the same file."""
        self.path, self.size = path, size
        self._volume, self._identity, self._part = volume, identity, part
        self._boot = boot_id()
        count = max(1, -(-size // part)) if size is not None else 1
        self.written = [0] * count
        self._data = volume.open(path + paths.PARTIAL, os.O_RDWR | os.O_CREAT)
        try:
            self._state = volume.open(path + paths.STATE, os.O_RDWR | os.O_CREAT)
        except BaseException:
            os.close(self._data)
            raise
        try:
            self._resume()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the files and leaves them for the next process."""
        os.close(self._data)
        os.close(self._state)

    def bounds(self, index: int) -> tuple[int, int]:
        """Where a part begins, and where the next one does."""
        if self.size is None:
            return 0, _UNENDING
        return index * self._part, min((index + 1) * self._part, self.size)

    def position(self, index: int) -> int:
        """Where the next byte of a part goes."""
        return self.bounds(index)[0] + self.written[index]

    def missing(self) -> list[int]:
        """The parts that are not complete, in their order."""
        return [index for index in range(len(self.written)) if self.position(index) < self.bounds(index)[1]]

    @property
    def arrived(self) -> int:
        """Bytes that are there."""
        return sum(self.written)

    def frontier(self, since: int = 0) -> int:
        """The first byte that is missing; all before it is there. `since` is an earlier answer."""
        if self.size is None:
            return self.written[0]
        index = min(since // self._part, len(self.written) - 1)
        while index < len(self.written) - 1 and self.position(index) == self.bounds(index)[1]:
            index += 1
        return self.position(index)

    def write(self, offset: int, data: bytes) -> None:
        """Stores bytes that go on where the part they fall into ended; they may reach into the next parts."""
        with volume_errors(self.path):
            view = memoryview(data)
            while view:
                index = offset // self._part if self.size is not None else 0
                begin, end = self.bounds(index)
                stored = os.pwrite(self._data, view[: end - offset], offset)
                offset += stored
                view = view[stored:]
                self.written[index] = offset - begin
                os.pwrite(self._state, _WRITTEN.pack(offset - begin), _HEADER + index * _COUNTERS.size)

    def flush(self, first: int, last: int) -> None:
        """What the parts `first` to `last` hold so far survives the loss of the machine."""
        with volume_errors(self.path):
            held = self.written[first : last + 1]
            os.fdatasync(self._data)
            counters = b"".join(_COUNTERS.pack(written, written) for written in held)
            os.pwrite(self._state, counters, _HEADER + first * _COUNTERS.size)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Reads back what has arrived."""
        with volume_errors(self.path):
            return os.preadv(self._data, [buffer], offset)

    def reset(self) -> None:
        """Forgets all that has arrived."""
        with volume_errors(self.path):
            self.written = [0] * len(self.written)
            self._write_state([0] * len(self.written))
            os.ftruncate(self._data, 0)

    def discard(self) -> None:
        """Removes all that has arrived: it is wrong."""
        self._volume.remove(self.path + paths.STATE)
        self._volume.remove(self.path + paths.PARTIAL)

    def publish(self) -> None:
        """Gives the complete file its name, at once and on disk."""
        with volume_errors(self.path):
            os.ftruncate(self._data, self.arrived)
            os.fchmod(self._data, 0o644)
            os.fsync(self._data)
        self._volume.rename(self.path + paths.PARTIAL, self.path)
        self._volume.remove(self.path + paths.STATE)

    def _resume(self) -> None:
        with volume_errors(self.path):
            state = os.pread(self._state, _HEADER + len(self.written) * _COUNTERS.size, 0)
            present = os.fstat(self._data).st_size
            same = self._identity is not None and len(state) == _HEADER + len(self.written) * _COUNTERS.size
            header = _read_header(state) if same else {}
            expected = {"identity": self._identity, "size": self.size, "part": self._part}
            if not same or any(header.get(key) != value for key, value in expected.items()):
                self.reset()
                return
            trusted = bool(self._boot) and header.get("boot") == self._boot
            synced = []
            for index, (written, flushed) in enumerate(_COUNTERS.iter_unpack(state[_HEADER:])):
                begin, end = self.bounds(index)
                there = max(0, min(present, end) - begin)
                self.written[index] = min(written if trusted else flushed, there)
                synced.append(min(flushed, self.written[index]))
            self._write_state(synced)

    def _write_state(self, synced: list[int]) -> None:
        header = {"identity": self._identity, "size": self.size, "part": self._part, "boot": self._boot}
        counters = b"".join(map(_COUNTERS.pack, self.written, synced))
        content = json.dumps(header).encode().ljust(_HEADER) + counters
        if os.pwrite(self._state, content, 0) != len(content):
            raise OSError(28, "the journal was written in part")
        os.ftruncate(self._state, len(content))


def _read_header(state: bytes) -> dict[str, object]:
    try:
        header = json.loads(state[:_HEADER])
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}
