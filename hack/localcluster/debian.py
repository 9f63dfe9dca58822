"""Programs from Debian packages, unpacked into folders: nothing is installed, the system's own apt is not touched.

The mirror is the one that this machine is set up with. What is newer than the machine comes from a suite that is
named in a private copy of apt's state, and signatures are checked as always.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from localcluster import state
from localcluster.errors import ClusterError

LLAMA_PACKAGES = (
    "base-files", "libc-bin", "libc6", "libgcc-s1", "gcc-16-base", "libgomp1", "libstdc++6", "libssl3t64",
    "openssl-provider-legacy", "libzstd1", "zlib1g", "libllama0", "libggml0", "llama.cpp-tools",
    "llama.cpp-tools-extra",
)  # fmt: skip
# The base of Berth's own image: Python, the libraries that its modules load, a shell for the Dockerfile.
PYTHON_PACKAGES = (
    "base-files", "dash", "libc6", "libgcc-s1", "zlib1g", "libbz2-1.0", "libexpat1", "libffi8", "liblzma5",
    "libssl3t64", "libuuid1", "libzstd1", "python3-minimal", "python3.13-minimal", "libpython3.13-minimal",
    "libpython3.13-stdlib", "python3.13-venv", "python3-pip-whl", "ca-certificates",
)  # fmt: skip
# Parts of those packages that nothing here needs.
_UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/lintian", "usr/share/locale", "usr/share/bash-completion",
           "usr/share/bug", "usr/share/info", "usr/share/common-licenses")  # fmt: skip
LLAMA_KEY = hashlib.sha256(repr((LLAMA_PACKAGES, _UNUSED, 1)).encode()).hexdigest()[:12]
PYTHON_KEY = hashlib.sha256(repr((PYTHON_PACKAGES, _UNUSED, 1)).encode()).hexdigest()[:12]
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def busybox() -> Path:
    """Return a folder with the statically linked busybox."""
    return _unpacked("busybox", ("busybox-static",), "sid")


def llama_server() -> Path:
    """Return a root folder in which the llama.cpp server runs."""
    return _unpacked(f"llama-{LLAMA_KEY}", LLAMA_PACKAGES, "sid", _UNUSED)


def python() -> Path:
    """Return a root folder with Python and pip."""
    return _unpacked(f"python-{PYTHON_KEY}", PYTHON_PACKAGES, "trixie", _UNUSED)


def promtool() -> Path:
    """Return a folder with Prometheus's tool that checks rules, in its own package since Debian's Prometheus 3."""
    return _unpacked("promtool-1", ("promtool",), "sid")


def _unpacked(name: str, packages: Iterable[str], suite: str, unused: Iterable[str] = ()) -> Path:
    target = state.cache_folder() / "roots" / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as work:
        root = Path(work) / "root"
        _download(Path(work), suite, packages)
        for package in sorted(Path(work).glob("*.deb")):
            _run(("dpkg-deb", "-x", package.name, str(root)), Path(work))
        for folder in unused:
            shutil.rmtree(root / folder, ignore_errors=True)
        root.chmod(0o755)
        root.rename(target)
    return target


def _download(work: Path, suite: str, packages: Iterable[str]) -> None:
    apt = work / "apt"
    for folder in ("lists/partial", "cache/archives/partial", "preferences", "parts"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {suite} main\n")
    (apt / "apt.conf").write_text(
        f'Dir::State "{apt}"; Dir::State::lists "{apt}/lists"; Dir::State::status "{apt}/status"; '
        f'Dir::Cache "{apt}/cache"; Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "-"; '
        f'Dir::Etc::preferencesparts "{apt}/preferences"; Dir::Etc::parts "{apt}/parts"; '
        f'APT::Sandbox::User "{_user()}";\n'
    )
    # A mirror that is updated once in a while has a sid that is formally out of date.
    options = ("-q", "-o", "Acquire::Check-Valid-Until=false")
    environment = {"APT_CONFIG": str(apt / "apt.conf")}
    _run(("apt-get", *options, "update"), work, environment)
    _run(("apt-get", *options, "download", *packages), work, environment)


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _mirror() -> str:
    """Return the mirror that this machine's own suites come from."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ClusterError("apt-get and dpkg-deb are needed to make images without a registry: use Debian or Ubuntu")
    if not _KEYRING.exists():
        raise ClusterError(
            "the signing keys of Debian are missing; install them with: apt-get install debian-archive-keyring"
        )
    listed = _run(
        ("apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(SUITE)", "Created-By: Packages"), Path("/")
    )
    for line in listed.splitlines():
        address, *origin = line.split()
        if "Debian" in origin and "security" not in address:
            return address
    raise ClusterError("no Debian mirror is set up on this machine: run apt-get update first")


def _run(command: tuple[str, ...], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"`{' '.join(command[:6])} …` failed: {done.stderr.strip()[-600:]}")
    return done.stdout
