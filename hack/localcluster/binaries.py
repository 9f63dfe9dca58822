"""The programs a cluster is made of: built from Go modules once, kept in the user's cache.

Each program has a folder named after everything that goes into it, so a change builds what it touches
and nothing else, and an interrupted build goes on where it stopped.
"""

import dataclasses
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from localcluster import state
from localcluster.errors import ClusterError

KUBERNETES_VERSION = "1.35.4"
GO = Path(__file__).parent / "go"
GO_HINT = (
    "Go 1.21 or newer is needed to build Kubernetes (it fetches the release that Kubernetes wants by itself); "
    "install it with: apt-get install golang-go (Debian 13 or newer), or unpack a release to /usr/local/go"
)

_VERSION = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = (
    f"-X {_VERSION}.gitVersion=v{KUBERNETES_VERSION} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=35 "
    f"-X k8s.io/client-go/pkg/version.gitVersion=v{KUBERNETES_VERSION}"
)


@dataclasses.dataclass(frozen=True)
class Program:
    """One program: the Go module that pins it, the package that it is, and how it is linked."""

    name: str
    module: str
    package: str
    flags: str = ""


PROGRAMS = (
    Program("cluster-init", "node", "./cluster-init"),
    Program("pause", "node", "./pause"),
    Program("etcd", "kubernetes", "./etcd"),
    *(
        Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_FLAGS)
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        )
    ),
    Program("cluster-addons", "kubernetes", "./cluster-addons"),
    Program("coredns", "coredns", "."),
    Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
)
CONTROL_PLANE = (
    "cluster-init",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
)


def key(program: Program, go_version: str, go: Path = GO) -> str:
    """Return a name for exactly this program: its module's pins, its own sources, the flags, the compiler."""
    module = go / program.module
    sources = [module / "go.mod", module / "go.sum"]
    if program.package.startswith("."):
        sources += sorted((module / program.package).glob("*.go"))
    digest = hashlib.sha256(json.dumps([dataclasses.astuple(program), go_version, platform.machine()]).encode())
    for source in sources:
        if source.exists():
            digest.update(f"\n{source.name}\n".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def ensure(names: Iterable[str] | None = None) -> dict[str, Path]:
    """Return the path of each program, building those that are not in the cache."""
    wanted = [p for p in PROGRAMS if names is None or p.name in set(names)]
    go = _find_go()
    version = _go_version(go)
    found = {p.name: state.cache_folder() / "bin" / f"{p.name}-{key(p, version)}" / p.name for p in wanted}
    if all(path.exists() for path in found.values()):
        return found
    if go is None or not _new_enough(version):
        raise ClusterError(GO_HINT)
    with state.locked(state.cache_folder() / "bin"):
        missing = [p for p in wanted if not found[p.name].exists()]
        if missing:
            _say(f"building {len(missing)} programs from Go modules, once: {', '.join(p.name for p in missing)}")
        began = time.monotonic()
        for number, program in enumerate(missing, 1):
            _build(go, program, found[program.name])
            _say(f"  {number}/{len(missing)} {program.name}, {time.monotonic() - began:.0f} s since the start")
    return found


def _find_go() -> str | None:
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def _go_version(go: str | None) -> str:
    """Return the compiler's version, or that of the last build where there is no compiler any more."""
    note = state.cache_folder() / "go-version"
    if go is None:
        return note.read_text() if note.exists() else ""
    version = subprocess.run((go, "env", "GOVERSION"), capture_output=True, text=True, check=True).stdout.strip()
    if not note.exists() or note.read_text() != version:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(version)
    return version


def _new_enough(version: str) -> bool:
    match = re.match(r"go1\.(\d+)", version)
    return match is not None and int(match[1]) >= 21


def _build(go: str, program: Program, target: Path) -> None:
    module = GO / program.module
    temporary = target.parent.with_name(f".{target.parent.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    command = (
        go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {program.flags}".strip(),
        "-o", str(temporary / program.name), program.package,
    )  # fmt: skip
    environment = {
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
        "GOWORK": "off",
        "GOTOOLCHAIN": os.environ.get("GOTOOLCHAIN", "auto"),
    }
    done = subprocess.run(
        command, cwd=module, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"building {program.name} failed in {module}:\n{done.stderr.strip()[-2000:]}")
    if program.name == "kwok":
        _copy_stages(go, module, temporary)
    shutil.rmtree(target.parent, ignore_errors=True)
    temporary.rename(target.parent)


def _copy_stages(go: str, module: Path, target: Path) -> None:
    """Lay beside kwok the files of its own module that tell it how nodes and Pods come up."""
    command = (go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok")
    done = subprocess.run(command, cwd=module, capture_output=True, text=True, check=True)
    stages = Path(done.stdout.strip()) / "kustomize" / "stage"
    names = (
        "node/fast/node-initialize.yaml",
        "pod/fast/pod-ready.yaml",
        "pod/fast/pod-complete.yaml",
        "pod/fast/pod-delete.yaml",
    )
    for name in names:
        (target / Path(name).name).write_bytes((stages / name).read_bytes())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
