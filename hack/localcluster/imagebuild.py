"""Berth's own image, built by its Dockerfile: by a container engine where one answers, otherwise by buildah.

buildah needs neither an engine nor a registry: it starts from a base that is made here, and keeps what each step of the
Dockerfile gave, so that a change of the sources builds the last layer only.
"""

import ast
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from localcluster import prerequisites, state
from localcluster.errors import ClusterError

ROOT = Path(__file__).resolve().parents[2]
_DOCKERFILE = "operator/Dockerfile"
_IGNORED = ".dockerignore"
_PIP_CONF = "pip.conf"
_AUTHORITIES = "ca.pem"
# The settings of pip that say how its index is reached, and nothing about folders of this machine.
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
_AUTHORITY_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
# Each change of the sources leaves some layers behind: starting afresh is simpler than choosing among them.
_MOST_LAYERS = 200


def key(base: str, root: Path = ROOT) -> str:
    """Return a name for exactly this image: its base, every file that makes it, and how it is built."""
    digest = hashlib.sha256(f"{base}\n{platform.machine()}\n".encode() + Path(__file__).read_bytes())
    for path in inputs(root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def inputs(root: Path = ROOT) -> list[Path]:
    """Return the files that make the image: .dockerignore leaves out everything but those that it names with a `!`."""
    lines = (root / _IGNORED).read_text().splitlines()
    named = [root / line[1:] for line in lines if line.startswith("!")]
    found = {root / _DOCKERFILE, root / _IGNORED}
    for path in named:
        found |= {path} if path.is_file() else {p for p in path.rglob("*") if p.is_file()}
    return sorted(p for p in found if "__pycache__" not in p.parts)


def build_with_engine(engine: str, reference: str, target: Path) -> None:
    """Build by Docker or its like, from the base that the Dockerfile names, and save the image as an archive."""
    with tempfile.TemporaryDirectory(prefix="berth-image-") as folder:
        _run((engine, "build", *_options(reference, Path(folder)), str(ROOT)), {"DOCKER_BUILDKIT": "1"})
    _run((engine, "save", "--output", str(target), reference))


def build_with_buildah(base: str, base_archive: Path, reference: str, target: Path) -> None:
    """Build without an engine, and save the image as an archive. Only one process at a time may do this."""
    if platform.system() != "Linux":
        raise ClusterError("an image is built without a container engine on Linux only; start Docker or Podman")
    if shutil.which("buildah") is None:
        prerequisites.install(["buildah"])
    store = state.cache_folder() / "buildah"
    if len(list(store.glob("storage/*-layers/*"))) > _MOST_LAYERS:
        shutil.rmtree(store)
    store.mkdir(parents=True, exist_ok=True)
    driver = "vfs" if prerequisites.filesystem(store) == "overlay" else "overlay"
    # Mounts are made in a namespace of the command's own, so that none outlives it however it ends.
    buildah = ("unshare", "--mount", "buildah", "--root", f"{store}/storage", "--runroot", f"{store}/run",
               "--storage-driver", driver)  # fmt: skip
    present = _run((*buildah, "images", "--format", "{{.Name}}:{{.Tag}}")).split()
    if base not in present:
        _run((*buildah, "pull", "--quiet", f"docker-archive:{base_archive}"))
    with tempfile.TemporaryDirectory(prefix="berth-image-") as folder:
        _run(
            (*buildah, "build", "--isolation", "chroot", "--layers", "--pull-never", "--timestamp", "0",
             "--build-arg", f"BASE_IMAGE={base}", *_options(reference, Path(folder)), str(ROOT))
        )  # fmt: skip
    _run((*buildah, "push", "--quiet", reference, f"docker-archive:{target}:{reference}"))


def _options(reference: str, folder: Path) -> tuple[str, ...]:
    """Return what all builders are told. `folder` takes the secrets for as long as the build runs."""
    version = re.search(r'^__version__ = "(.+)"$', (ROOT / "operator/berth/__init__.py").read_text(), re.MULTILINE)
    assert version is not None
    options = ["--file", str(ROOT / _DOCKERFILE), "--tag", reference, "--build-arg", f"VERSION={version[1]}"]
    command = (sys.executable, "-m", "pip", "config", "list")
    settings, authorities = pip_settings(_run(command), os.environ)
    if authorities is not None:
        shutil.copyfile(authorities, folder / _AUTHORITIES)
        settings += f"cert = /run/secrets/{_AUTHORITIES}\n"
    (folder / _PIP_CONF).write_text(settings)  # the folder is readable by its owner only: addresses may have passwords
    for secret in sorted(folder.iterdir()):
        options += ["--secret", f"id={secret.name},src={secret}"]
    return tuple(options)


def pip_settings(listed: str, environment: Mapping[str, str]) -> tuple[str, Path | None]:
    """From `pip config list` to a pip.conf for the build, and the file of the authorities that this machine trusts."""
    sections: dict[str, dict[str, str]] = {}
    for line in listed.splitlines():
        if match := re.fullmatch(r"(global|install|:env:)\.([a-z-]+)=(.+)", line):
            sections.setdefault(match[1], {})[match[2]] = str(ast.literal_eval(match[3]))
    found = {**sections.get("global", {}), **sections.get("install", {}), **sections.get(":env:", {})}
    named = [found.get("cert"), *(environment.get(variable) for variable in _AUTHORITY_VARIABLES)]
    authorities = next((Path(name) for name in named if name and Path(name).is_file()), None)
    lines = ["{} = {}".format(name, found[name].replace("\n", "\n    ")) for name in _PIP_SETTINGS if name in found]
    return "\n".join(["[global]", *lines, ""]), authorities


def _run(command: tuple[str, ...], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClusterError(f"building Berth's image failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    return done.stdout
