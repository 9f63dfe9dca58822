"""Container images without a registry or an engine: tar archives as `docker save` writes them.

Made once into the user's cache, and the same bytes each time: names inside an archive come from its content.
"""

import dataclasses
import hashlib
import io
import json
import os
import platform
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

from localcluster import binaries, debian, engines, imagebuild, state
from localcluster.errors import ClusterError
from localcluster.node import PAUSE_IMAGE

BUSYBOX_IMAGE = "localhost/busybox:1"
LLAMA_IMAGE = "localhost/llama-server:11669"
BERTH_IMAGE = "localhost/berth:dev"
PYTHON_IMAGE = f"localhost/python:{debian.PYTHON_KEY}"
_KEPT = 4
"""How many of Berth's own images stay in the cache: one for each checkout that somebody works in."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One file, folder or link of an image."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    link: str | None = None
    folder: bool = False


def archive(
    reference: str, entries: Iterable[Entry], *, entrypoint: list[str] | None = None, command: list[str] | None = None
) -> bytes:
    """Return an image of one layer as an archive that containerd and Docker import."""
    layer = _layer(entries)
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "Entrypoint": entrypoint,
            "Cmd": command,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "hack/cluster"}],
    }
    config_text = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(config_text).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [reference], "Layers": [f"{digest}/layer.tar"]}]
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in (
            (f"{digest}/layer.tar", layer),
            (config_name, config_text),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


def tree(root: Path) -> list[Entry]:
    """Return what is below a folder as entries of an image."""
    found = []
    for path in sorted(root.rglob("*")):
        name, details = str(path.relative_to(root)), path.lstat()
        if path.is_symlink():
            found.append(Entry(name, link=os.readlink(path)))
        elif path.is_dir():
            found.append(Entry(name, mode=stat.S_IMODE(details.st_mode), folder=True))
        elif path.is_file():
            found.append(Entry(name, path.read_bytes(), stat.S_IMODE(details.st_mode)))
    return found


def _layer(entries: Iterable[Entry]) -> bytes:
    output = io.BytesIO()
    written: set[str] = set()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            parents = [str(p) for p in reversed(Path(entry.path).parents) if str(p) != "."]
            for parent in (p for p in parents if p not in written):
                written.add(parent)
                tar.addfile(_info(Entry(parent, mode=0o755, folder=True)))
            if entry.path not in written:
                written.add(entry.path)
                tar.addfile(_info(entry), io.BytesIO(entry.content))
    return output.getvalue()


def _info(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(entry.path)
    info.mode = entry.mode
    if entry.folder:
        info.type = tarfile.DIRTYPE
    elif entry.link is not None:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
    else:
        info.size = len(entry.content)
    return info


def pause() -> Path:
    """Return the image of the container that holds a Pod's namespaces."""
    program = binaries.ensure(["pause"])["pause"]
    return _cached(
        f"{program.parent.name}.tar",
        lambda: archive(PAUSE_IMAGE, [Entry("pause", program.read_bytes(), 0o755)], entrypoint=["/pause"]),
    )


def busybox() -> Path:
    """Return an image with a shell and the usual tools, for containers that sleep, crash or look around."""

    def make() -> bytes:
        program = next(p for p in debian.busybox().rglob("bin/busybox") if p.is_file())
        applets = subprocess.run((program, "--list"), capture_output=True, text=True, check=True).stdout.split()
        entries = [Entry("bin/busybox", program.read_bytes(), 0o755), *_user_files()]
        entries += [Entry(f"bin/{a}", link="busybox") for a in sorted(set(applets) - {"busybox"})]
        return archive(BUSYBOX_IMAGE, entries, command=["sh"])

    return _cached("busybox-1.tar", make)


def llama_server() -> Path:
    """Return the image of a real llama.cpp server; its program is found where upstream's image has it too."""

    def make() -> bytes:
        entries = tree(debian.llama_server())
        entries += [Entry("app/llama-server", link="/usr/bin/llama-server"), *_user_files()]
        entries += [Entry("models", mode=0o755, folder=True)]
        return archive(LLAMA_IMAGE, entries, entrypoint=["/app/llama-server"])

    return _cached(f"llama-server-{debian.LLAMA_KEY}.tar", make)


def python() -> Path:
    """Return an image with Python and little else: the base of Berth's own where there is no registry."""

    def make() -> bytes:
        root = debian.python()
        authorities = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
        entries = [*tree(root), *_user_files()]
        entries += [Entry("etc/ssl/certs/ca-certificates.crt", b"".join(file.read_bytes() for file in authorities))]
        return archive(PYTHON_IMAGE, entries)

    return _cached(f"python-{debian.PYTHON_KEY}.tar", make)


def berth() -> Path:
    """Return Berth's own image, built from the sources of this checkout unless that was done before."""
    engine = engines.answering()
    folder = state.cache_folder() / "images"
    target = folder / f"berth-{imagebuild.key(engine or PYTHON_IMAGE)}.tar"
    if not target.exists():
        with state.locked(state.cache_folder() / "building"):
            if not target.exists():
                temporary = target.with_suffix(".new")
                temporary.unlink(missing_ok=True)  # buildah adds to an archive that is there
                if engine:
                    imagebuild.build_with_engine(engine, BERTH_IMAGE, temporary)
                else:
                    imagebuild.build_with_buildah(PYTHON_IMAGE, python(), BERTH_IMAGE, temporary)
                temporary.replace(target)
    target.touch()
    for old in sorted(folder.glob("berth-*.tar"), key=lambda file: file.stat().st_mtime)[:-_KEPT]:
        old.unlink(missing_ok=True)
    return target


def _user_files() -> list[Entry]:
    return [
        Entry("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/tmp:/bin/sh\n"),
        Entry("etc/group", b"root:x:0:\nnonroot:x:65532:\n"),
        Entry("tmp", mode=0o1777, folder=True),
    ]


def configs(file: Path) -> dict[str, str]:
    """Return the digest of the configuration, which is the identity of an image, for each name in an archive.

    Says so when the file is no archive of images.
    """
    try:
        with tarfile.open(file) as tar:
            member = tar.extractfile("manifest.json")
            assert member is not None
            # NAME.json in most archives, blobs/sha256/NAME in those that follow the OCI layout.
            named = [(Path(i["Config"]).name.removesuffix(".json"), i["RepoTags"] or []) for i in json.load(member)]
    except (OSError, tarfile.TarError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise ClusterError(f"{file} is no image archive as `docker save` writes it: {error}") from error
    return {tag: f"sha256:{digest}" for digest, tags in named for tag in tags}


def _cached(name: str, make: Callable[[], bytes]) -> Path:
    target = state.cache_folder() / "images" / name
    if target.exists():
        return target
    with state.locked(target.parent):
        if not target.exists():
            temporary = target.with_suffix(".new")
            temporary.write_bytes(make())
            temporary.replace(target)
    return target
