"""A volume with models on it, laid out as the tools themselves lay them out, and the discovery program run on it."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import numpy as np

from berth.planning.discovered import Discovered
from berth.provision.discovery.__main__ import main
from berth.provision.manifest import Manifest, Request, StoredFile, write_manifest
from support import gguf_models

COMMIT, OLDER = "a" * 40, "b" * 40
CONFIG = json.dumps(
    {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_size": 8,
        "max_position_embeddings": 4096,
    }
).encode()


@cache
def gguf_content() -> bytes:
    """A small llama with 2048 tokens of context."""
    shape = gguf_models.Shape(layers=1, heads=2, kv_heads=2, embedding=32, feed_forward=32, head_size=16, tokens=260)
    with TemporaryDirectory() as folder:
        return gguf_models.write(Path(folder, "m.gguf"), shape).read_bytes()


@cache
def split_gguf() -> Mapping[str, bytes]:
    """A model in three parts, split by the library."""
    with TemporaryDirectory() as folder:
        writer = gguf.GGUFWriter(f"{folder}/m.gguf", "llama", split_max_tensors=1)
        writer.add_context_length(1024)
        for number in range(3):
            writer.add_tensor(f"blk.{number}.attn_norm.weight", np.ones(8, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


@cache
def projector() -> bytes:
    """What goes with a model that sees."""
    with TemporaryDirectory() as folder:
        writer = gguf.GGUFWriter(f"{folder}/p.gguf", "clip")
        writer.add_type("mmproj")
        writer.add_tensor("v.weight", np.ones(8, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return Path(folder, "p.gguf").read_bytes()


def safetensors(*names: str) -> bytes:
    """A file with one tensor of 64 parameters in BF16 for each name."""
    entries = {
        name: {"dtype": "BF16", "shape": [8, 8], "data_offsets": [at * 128, at * 128 + 128]}
        for at, name in enumerate(names)
    }
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + bytes(128 * len(names))


def sharded(count: int = 2) -> dict[str, bytes]:
    """A model in several files with its index."""
    shards = {f"model-{at:05d}-of-{count:05d}.safetensors": safetensors(f"layer.{at}") for at in range(1, count + 1)}
    index = {"weight_map": {f"layer.{at}": name for at, name in enumerate(shards, 1)}}
    return {"config.json": CONFIG, "model.safetensors.index.json": json.dumps(index).encode(), **shards}


@dataclass(frozen=True)
class Volume:
    """The volume and what to put on it."""

    root: Path

    def put(self, path: str, content: bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def put_all(self, folder: str, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            self.put(f"{folder}/{name}", content)

    def cache(
        self,
        repository: str,
        files: Mapping[str, bytes],
        commit: str = COMMIT,
        refs: Sequence[str] = ("main",),
        hub: str = "hub",
        *,
        shared: bool = False,
    ) -> Path:
        """A snapshot as huggingface_hub leaves it; `shared` keeps blobs beside the repositories, as 2.4 does."""
        folder = self.root / hub / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        (folder / "blobs").mkdir(exist_ok=True)
        for ref in refs:
            (folder / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
            (folder / "refs" / ref).write_text(commit)
        for name, content in files.items():
            digest = hashlib.sha256(content).hexdigest()
            blob = folder / "blobs" / digest
            if shared:
                place = self.put(f"{hub}/blobs/{digest[:2]}/{digest}", content)
                if not blob.is_symlink():
                    blob.symlink_to(os.path.relpath(place, blob.parent))
            else:
                blob.write_bytes(content)
            pointer = snapshot / name
            pointer.parent.mkdir(parents=True, exist_ok=True)
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        return snapshot

    def ollama(self, name: str, layers: Mapping[str, bytes], store: str = "ollama", tree: str = "manifests") -> Path:
        """A model in a store; `name` has all parts. In `manifests-v2` the manifest is a link to a blob."""
        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": self._blob(store, "application/vnd.docker.container.image.v1+json", b"{}"),
            "layers": [
                self._blob(store, f"application/vnd.ollama.image.{kind}", data) for kind, data in layers.items()
            ],
        }
        content = json.dumps(document).encode()
        file = f"{store}/{tree}/{name}"
        if tree == "manifests":
            return self.put(file, content)
        self._blob(store, "", content)
        blob = self.root / store / f"blobs/sha256-{hashlib.sha256(content).hexdigest()}"
        link = self.root / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
        return link

    def _blob(self, store: str, kind: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        self.put(f"{store}/blobs/sha256-{digest}", content)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    def artifact(self, name: str, uri: str, files: Mapping[str, bytes], include: tuple[str, ...] = ()) -> Manifest:
        """What Berth's own download leaves."""
        self.put(f"{name}/.berth/lock", b"")
        self.put_all(name, files)
        stored = tuple(StoredFile(path, len(content), "0" * 64, True) for path, content in files.items())
        manifest = Manifest(Request(uri, include).key, uri, COMMIT, None, "2026-11-01T00:00:00Z", stored)
        self.put(f"{name}/manifest.json", write_manifest(manifest))
        return manifest

    def page(self, *more: str) -> "PageRun":
        """One run of the program."""
        log = self.root.parent / "message"
        log.unlink(missing_ok=True)
        code = main(["--volume", str(self.root), "--termination-log", str(log), *more])
        raw = log.read_bytes()
        assert len(raw) <= 4096
        return PageRun(code, json.loads(raw), raw)

    def found(self) -> list[Discovered]:
        """Everything, from all pages."""
        return [finding for page in self.pages() for finding in page.findings]

    def pages(self) -> list["PageRun"]:
        pages = [self.page()]
        while pages[-1].message["more"]:
            pages.append(self.page("--after", pages[-1].message["after"]))
        return pages

    def skipped(self) -> int:
        """What all pages together passed over."""
        return sum(page.message["skipped"] for page in self.pages())


@dataclass(frozen=True)
class PageRun:
    """How a run ended."""

    code: int
    message: dict[str, Any]
    raw: bytes

    @property
    def findings(self) -> list[Discovered]:
        found = [Discovered.from_document(document) for document in self.message["found"]]
        assert None not in found
        return [finding for finding in found if finding is not None]
