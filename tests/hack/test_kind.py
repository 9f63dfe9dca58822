"""hack/kind on machines without a container engine, and what the workflow on GitHub makes of it."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/ci.yaml"


def kind(*args: str, programs: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """hack/kind with an engine that does not answer, and kind itself."""
    for name, code in (("docker", 1), ("podman", 1), ("nerdctl", 1), ("kind", 0)):
        (programs / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (programs / name).chmod(0o755)
    environment |= {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(programs)}
    return subprocess.run([str(ROOT / "hack/kind"), *args], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", ["up", "all", "test"])
def test_it_refuses_in_a_sentence_where_no_engine_answers(command: str, tmp_path: Path) -> None:
    done = kind(command, programs=tmp_path)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "hack/kind: no container engine answers: start Docker, Podman or nerdctl; "
        "where there is none, hack/test makes clusters of plain processes"
    )


def test_a_version_that_it_does_not_know_is_refused_with_those_that_it_does(tmp_path: Path) -> None:
    done = kind("up", programs=tmp_path, KUBERNETES="1.20")
    assert (done.returncode, done.stderr) == (1, "hack/kind: KUBERNETES=1.20 is none of 1.31 1.32 1.33 1.34 1.35\n")


def test_without_a_command_it_says_what_it_can_do(tmp_path: Path) -> None:
    done = kind(programs=tmp_path)
    assert done.returncode == 2
    assert {"up", "install", "smoke", "test", "down", "versions"} <= set(re.findall(r"hack/kind (\w+)", done.stderr))


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(WORKFLOW.read_text(), yaml.BaseLoader)  # `on` is no truth value there
    return found


def test_the_workflow_runs_every_version_that_kind_brings(workflow: dict[str, Any], tmp_path: Path) -> None:
    known = kind("versions", programs=tmp_path).stdout.split()
    assert workflow["jobs"]["kind"]["strategy"]["matrix"]["kubernetes"] == known
    assert "sigs.k8s.io/kind@v0.31.0" in WORKFLOW.read_text()
    assert "kind v0.31.0" in (ROOT / "hack/kind").read_text()


def test_the_workflow_may_read_the_sources_and_nothing_else(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow["on"]) == {"push", "pull_request"}
    assert "secrets." not in WORKFLOW.read_text()
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert int(job["timeout-minutes"]) <= 60
        for step in job["steps"]:
            if "checkout" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] == "false"


def test_actions_are_pinned_by_their_major_version(workflow: dict[str, Any]) -> None:
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"actions/[a-z-]+@v\d+", action)] == []


def test_every_command_of_the_workflow_is_there(workflow: dict[str, Any]) -> None:
    commands = re.findall(r"hack/\w+", WORKFLOW.read_text())
    assert {"hack/lint", "hack/test", "hack/kind"} <= set(commands)
    assert [command for command in commands if not (ROOT / command).exists()] == []
