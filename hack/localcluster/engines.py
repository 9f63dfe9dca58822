"""Container engines of this machine: whether one answers."""

import shutil
import subprocess

_NAMES = ("docker", "podman", "nerdctl")


def answering() -> str | None:
    """Return the command of the first container engine that answers."""
    for name in _NAMES:
        if shutil.which(name) is None:
            continue
        try:
            if subprocess.run((name, "info"), capture_output=True, check=False, timeout=20).returncode == 0:
                return name
        except subprocess.TimeoutExpired:
            continue
    return None
