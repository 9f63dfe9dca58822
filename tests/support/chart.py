"""The Helm chart, rendered and installed by real Helm."""

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import pinnedtools

CHART = Path(__file__).resolve().parents[2] / "charts/berth"
THIS_IMAGE = "--set=image.registry=localhost,image.repository=berth,image.tag=dev,image.pullPolicy=Never"
"""The image of this checkout, where it was loaded onto the node."""


@dataclass(frozen=True)
class Helm:
    """Helm of one major version, on one cluster or on none."""

    major: int
    kubeconfig: Path | None = None
    namespace: str = "berth-system"

    def __call__(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it; with `check`, a failure fails the test with its output."""
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig or "/dev/null"),
            "HELM_NAMESPACE": self.namespace,
        }
        command = (str(pinnedtools.helm(self.major)), *args)
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
        if check and done.returncode:
            raise AssertionError(f"helm {' '.join(args)}: {done.stderr or done.stdout}")
        return done

    def template(self, *args: str, release: str = "berth") -> str:
        """The chart as this Helm renders it."""
        return self("template", release, str(CHART), *args).stdout


@cache
def rendered(*args: str, namespace: str = "berth-system", major: int = 4) -> tuple[dict[str, Any], ...]:
    """The objects of a release named berth. Copy what you change."""
    text = Helm(major, namespace=namespace).template(*args)
    return tuple(document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document)


def component(documents: tuple[dict[str, Any], ...], name: str) -> list[dict[str, Any]]:
    """The objects that belong to one component."""
    label = "app.kubernetes.io/component"
    return [document for document in documents if document["metadata"]["labels"].get(label) == name]
