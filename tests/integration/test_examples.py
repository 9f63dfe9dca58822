"""What people copy works on a real API server: the files in examples/, and the commands of the documentation."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from generation.reasons import LOOKING
from support.kube import Cluster
from unit.docs.pages import ROOT, blocks

pytestmark = pytest.mark.control_plane

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
NAMES = {"NAME": "qwen", "CACHE": "default", "SECRET": "default", "NODE": "none"}
READING = re.compile(r"kubectl (-n \S+ )?(get|describe|auth can-i|logs) ")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_taken_by_the_api_server(control_plane: Cluster, path: Path) -> None:
    done = control_plane.kubectl("apply", "--dry-run=server", "--server-side", "-f", str(path))
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert done.stdout.count("serverside-applied (server dry run)") == len(documents)
    assert "Warning" not in done.stderr


@pytest.fixture(scope="module")
def shell(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a shell whose kubectl speaks to the cluster, in a namespace with what the commands name."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "kubectl").symlink_to(control_plane.kubectl_path)
    config = folder / "kubeconfig"
    config.write_text(control_plane.kubeconfig.read_text())
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "KUBECONFIG": str(config)}
    namespace = f"t-{os.getpid()}-commands"
    control_plane.kubectl("create", "namespace", namespace)
    control_plane.kubectl("--kubeconfig", str(config), "config", "set-context", "--current", f"--namespace={namespace}")
    control_plane.kubectl("-n", namespace, "apply", "-f", str(ROOT / "examples/vllm.yaml"))
    control_plane.kubectl("-n", namespace, "create", "secret", "generic", "default", "--from-literal=token=x")
    yield environment
    control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


def _commands() -> list[str]:
    told = [command for kind in yaml.safe_load(LOOKING.read_text()).values() for command in kind.values()]
    lines = [line for text in told for line in text.splitlines()]
    pages = ("docs/troubleshooting.md", "docs/upgrades.md", "docs/concepts.md")
    for block in blocks():
        if block.page in pages and block.language == "console":
            lines += [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]
    named = [re.sub(r"\b(NAME|CACHE|SECRET|NODE)\b(?!:)", lambda found: NAMES[found[0]], line) for line in lines]
    return sorted({line for line in named if READING.match(line)})


@pytest.mark.parametrize("command", _commands())
def test_a_command_that_shows_something_is_one_that_kubectl_understands(shell: dict[str, str], command: str) -> None:
    done = subprocess.run(["bash", "-c", command], env=shell, capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    missing = re.search(r"NotFound|not found|timed out waiting", done.stderr)
    assert complaints == []
    says_no = "grep" in command or "can-i" in command
    assert done.returncode == 0 or missing or says_no, done.stderr
