"""A library that stands in for the driver's libnvidia-ml.so.1, compiled from nvml_standin.c, and the file it obeys."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml_standin.c")
VARIABLE = "NVML_STANDIN"


def library() -> Path:
    """The compiled stand-in; kept in the user's cache for as long as its source stays the same."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "berth" / "nvml-standin"
    target = cache / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16] / "libnvidia-ml.so.1"
    if target.exists():
        return target
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    assert compiler is not None, "the stand-in for NVML needs a C compiler: apt-get install gcc libc6-dev"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / target.name
        flags = ("-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-Wl,-soname,{target.name}")
        done = subprocess.run([compiler, *flags, "-o", str(made), str(SOURCE)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made.replace(target)  # whole or not at all: tests may run side by side
    return target


@dataclass
class Part:
    """A MIG device."""

    uuid: str
    profile: str
    memory: tuple[int, ...] | None = (10240, 12)
    processes: dict[int, int | None] = field(default_factory=dict)

    def lines(self) -> list[str]:
        return [f"  mig {self.uuid} {self.profile}", *_device_lines(self.memory, self.processes)]


@dataclass
class Gpu:
    """A GPU: an H100 with nothing on it, unless said otherwise. None is what it does not support."""

    uuid: str = "GPU-0"
    product: str = "NVIDIA H100 80GB HBM3"
    memory: tuple[int, ...] | None = (81559, 4, 614)
    processes: dict[int, int | None] = field(default_factory=dict)
    drawing: dict[int, int | None] = field(default_factory=dict)
    figures: dict[str, int] = field(
        default_factory=lambda: {"utilisation": 0, "temperature": 31, "power": 70123, "ecc": 0, "remapped": 0}
    )
    xids: list[int] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    events: bool = True
    lost: bool = False
    nameless: bool = False

    def lines(self) -> list[str]:
        words = [word for word in ("events", "lost", "nameless") if getattr(self, word)]
        return [
            f"gpu {self.uuid} {self.product}",
            *_device_lines(self.memory, self.processes),
            *(f"  graphics {pid} {_amount(memory)}" for pid, memory in self.drawing.items()),
            *(f"  {name} {value}" for name, value in self.figures.items()),
            *(f"  xid {number}" for number in self.xids),
            *(f"  {word}" for word in words),
            *(line for part in self.parts for line in part.lines()),
        ]


@dataclass
class Node:
    """The driver of a node. `write` makes the stand-in obey, at once."""

    path: Path
    gpus: list[Gpu] = field(default_factory=list)
    start: int = 0
    boot: int = 1
    driver: str = "580.65.06"
    cuda: int = 13000

    def write(self) -> "Node":
        header = [f"driver {self.driver}", f"cuda {self.cuda}", f"start {self.start}", f"boot {self.boot}"]
        text = "\n".join([*header, *(line for gpu in self.gpus for line in gpu.lines())])
        new = self.path.with_suffix(".new")
        new.write_text(text + "\n")
        new.replace(self.path)
        return self


def _device_lines(memory: tuple[int, ...] | None, processes: dict[int, int | None]) -> list[str]:
    lines = [f"  memory {' '.join(map(str, memory))}"] if memory else []
    return [*lines, *(f"  process {pid} {_amount(used)}" for pid, used in processes.items())]


def _amount(memory: int | None) -> str:
    return "-" if memory is None else str(memory)
