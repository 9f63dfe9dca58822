"""What this machine has to have before a cluster of plain processes can be started."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from localcluster.errors import ClusterError
from localcluster.node import SYSTEM_PATH, cni_folder
from localcluster.state import clusters_folder

# The Debian package behind each program.
_CONTROL_PLANE = {"ip": "iproute2", "nsenter": "util-linux"}
_NODE = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "mount": "mount",
}


def check(control_plane: bool) -> None:
    """Install the Debian packages that are missing, or say what to do about it."""
    if platform.system() != "Linux":
        raise ClusterError(
            "a cluster without a container engine needs Linux; on other systems start Docker or Podman and install kind"
        )
    if os.geteuid():
        raise ClusterError(
            "a cluster without a container engine is made of namespaces, which takes root: run it with sudo, "
            "or start Docker or Podman and install kind"
        )
    if filesystem(clusters_folder()) == "overlay":
        raise ClusterError(
            f"{clusters_folder()} is on an overlay file system, which cannot carry another one for containers; "
            "set XDG_STATE_HOME to a folder of a volume or another disk"
        )
    install(missing_packages(control_plane))


def install(missing: Sequence[str]) -> None:
    """Install Debian packages, or say what to do about it."""
    if not missing:
        return
    command = ("apt-get", "install", "--yes", "--no-install-recommends", *missing)
    if shutil.which("apt-get") is None:
        raise ClusterError(f"these are missing: {', '.join(missing)}; on Debian: {' '.join(command)}")
    print(f"installing Debian packages: {' '.join(missing)}", file=sys.stderr, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(("apt-get", "-q", "update"), check=False, capture_output=True, env=environment)
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-600:]}")


def filesystem(folder: Path) -> str:
    """Return the kind of file system that a folder is on, or will be."""
    best, kind = -1, ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, device = line.partition(" - ")
        point = Path(mount.split()[4])
        if folder.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), device.split()[0]
    return kind


def missing_packages(control_plane: bool) -> list[str]:
    """Return the Debian packages that have to be installed first."""
    wanted = _CONTROL_PLANE if control_plane else _CONTROL_PLANE | _NODE
    missing = {package for program, package in wanted.items() if shutil.which(program, path=SYSTEM_PATH) is None}
    if not control_plane and not (cni_folder() / "ptp").exists():
        missing.add("containernetworking-plugins")
    return sorted(missing)
