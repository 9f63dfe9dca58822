"""What a real llama-server allocates, by its own log, against what was estimated from the file alone.

It runs without a GPU and reports the same buffers as it would have there, but for the token embeddings, which are in
host memory on a GPU, and whatever CUDA takes.
"""

import dataclasses
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest

from berth.api.model import BackendName
from berth.planning.gguf_figures import figures_from_gguf
from berth.planning.gguf_metadata import GgufHeader, read_gguf
from berth.planning.memory_estimate import MIB, PartName, estimate
from berth.planning.model_figures import ModelFigures
from localcluster import debian
from support.gguf_models import Shape, write

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="llama-server runs in a root folder of its own"),
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="llama-server is unpacked from a Debian package"),
]

ROUNDING = 0.006 * MIB
"""The log has two decimals of MiB."""
CONTEXT, SLOTS = 4096, 2
LATENT = {
    "attention.q_lora_rank": 16,
    "attention.kv_lora_rank": 32,
    "rope.dimension_count": 8,
    "attention.key_length_mla": 24,
    "attention.value_length_mla": 16,
    "leading_dense_block_count": 2,
    "expert_count": 4,
    "expert_used_count": 1,
    "expert_shared_count": 1,
    "expert_feed_forward_length": 32,
    "expert_weights_scale": 1.0,
}
SHAPES = {
    "few heads": Shape(layers=3, kv_heads=1),
    "another number of heads in each layer": Shape("deci", layers=3, kv_heads=[4, 2, 1]),
    "wide heads": Shape(embedding=256, heads=8, kv_heads=8, head_size=64, feed_forward=512),
    "Q8_0": Shape(embedding=256, head_size=64, feed_forward=512, tokens=512, dtype=gguf.GGMLQuantizationType.Q8_0),
    "Q4_0": Shape(embedding=256, head_size=64, feed_forward=512, tokens=512, dtype=gguf.GGMLQuantizationType.Q4_0),
    "tied embeddings": Shape(layers=1, tied=True),
    "a window that llama does not use": Shape(layers=4, extra={"attention.sliding_window": 512}),
    "gemma 2": Shape(
        "gemma2",
        layers=4,
        tied=True,
        extra={
            "attention.sliding_window": 512,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    "gemma 3": Shape("gemma3", layers=7, tied=True, extra={"attention.sliding_window": 512}),
    "a pattern of windows": Shape(
        "gemma3",
        layers=7,
        tied=True,
        extra={"attention.sliding_window": 512, "attention.sliding_window_pattern": 3},
    ),
    "command r7b": Shape("cohere2", layers=6, tied=True, extra={"attention.sliding_window": 1024, "logit_scale": 0.25}),
    "latent attention": Shape("deepseek2", kv_heads=1, head_size=40, value_size=32, extra=LATENT),
}


@dataclasses.dataclass(frozen=True)
class Logged:
    """Bytes that llama-server says it has allocated."""

    weights: float
    cache: float
    compute: float


@pytest.fixture(scope="module")
def root() -> Path:
    """The folder in which llama-server is unpacked."""
    return debian.llama_server()


def started(root: Path, model: Path, *flags: str) -> Logged:
    """What the server logs until it serves; it is stopped then."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    command = ("/usr/bin/llama-server", "--model", f"/home/{model.name}", "--host", "127.0.0.1", "--port", port)
    command += ("--fit", "off", "--log-verbosity", "4", *flags)
    # The folder with the model is mounted for this process only.
    inside = f"mount --bind {shlex.quote(str(model.parent))} {shlex.quote(str(root / 'home'))}"
    script = f'{inside} && exec chroot {shlex.quote(str(root))} "$@"'
    process = subprocess.Popen(
        ("unshare", "--mount", "sh", "-c", script, "sh", *command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        return _read(_until_it_serves(process))
    finally:
        process.kill()
        process.communicate()


def _until_it_serves(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        yield line
        if "listening on" in line:
            return
    pytest.fail("llama-server did not start:\n" + "".join(seen[-20:]))


def _read(lines: Iterator[str]) -> Logged:
    sums = {"model": 0.0, "KV": 0.0, "compute": 0.0}
    for line in lines:
        found = re.search(r"(model|KV|compute) buffer size = +([0-9.]+) MiB", line)
        if found:
            sums[found[1]] += float(found[2]) * MIB
    return Logged(sums["model"], sums["KV"], sums["compute"])


def figures_of(path: Path) -> ModelFigures:
    header = read_gguf(path.read_bytes())
    assert isinstance(header, GgufHeader)
    return figures_from_gguf([header])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_caches_and_weights_are_as_estimated(shape: Shape, root: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", dataclasses.replace(shape, context=8192))
    logged = started(root, path, "--parallel", str(SLOTS), "--ctx-size", str(CONTEXT * SLOTS))
    figures = figures_of(path)
    found = estimate(figures, backend=BackendName.LLAMACPP, context_length=CONTEXT, concurrency=SLOTS)
    parts = {part.name: part.bytes for part in found.parts}
    caches = 2 if any(layer.window for layer in figures.attention or ()) else 1  # each is a rounded line
    assert parts[PartName.CACHE] == pytest.approx(logged.cache, abs=caches * ROUNDING)
    assert figures.weight_bytes == pytest.approx(logged.weights, abs=ROUNDING + 32 * 200)  # tensors begin at 32 bytes
    assert logged.compute <= (parts[PartName.OVERHEAD] or 0) - 1024 * MIB <= 3 * logged.compute


@pytest.mark.parametrize(
    ("flags", "context", "slots", "kind"),
    [
        ((), None, None, None),
        (("--ctx-size", "1000"), 1000, None, None),
        (("--parallel", "3", "--ctx-size", "3000"), 1000, 3, None),
        (("--parallel", "3", "--kv-unified"), None, 3, None),
        (("--parallel", "1", "--ctx-size", "2048"), 2048, 1, None),
        (("--ctx-size", "2048", "--cache-type-k", "q8_0", "--cache-type-v", "q8_0"), 2048, None, "q8_0"),
        (("--ctx-size", "2048", "--cache-type-k", "q4_0", "--cache-type-v", "q4_0"), 2048, None, "q4_0"),
    ],
)
@pytest.mark.parametrize("window", [None, 512])
def test_what_the_flags_of_berth_mean(
    flags: tuple[str, ...],
    context: int | None,
    slots: int | None,
    kind: str | None,
    window: int | None,
    root: Path,
    tmp_path: Path,
) -> None:
    extra = {"attention.sliding_window": window} if window else {}
    shape = Shape("gemma3" if window else "llama", layers=7, head_size=64, context=8192, tied=True, extra=extra)
    path = write(tmp_path / "model.gguf", shape)
    logged = started(root, path, *flags)
    found = estimate(
        figures_of(path), backend=BackendName.LLAMACPP, context_length=context, concurrency=slots, kv_dtype=kind
    )
    parts = {part.name: part.bytes for part in found.parts}
    assert parts[PartName.CACHE] == pytest.approx(logged.cache, abs=2 * ROUNDING)
