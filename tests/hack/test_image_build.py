"""Berth's own image: what goes into it, and what makes it another one."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import lock_subset
from localcluster import imagebuild
from localcluster.imagebuild import ROOT

LOCK = (ROOT / "requirements.lock").read_text()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))


def installed_closure(requirements: list[str]) -> set[str]:
    """What the packages say that they need, with the extras that are asked for, as pip has installed them here."""
    found: set[str] = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        text, extra = waiting.pop()
        requirement, _, marker = text.partition(";")
        asked_for = re.search(r"extra == ['\"](.+?)['\"]", marker)
        if (asked_for[1] if asked_for else "") not in ("", extra) or "sys_platform" in marker:
            continue
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]+)\])?", requirement.strip())
        assert match is not None
        try:
            needs = metadata.requires(match[1]) or []
        except metadata.PackageNotFoundError:
            continue  # of another Python
        if normal(match[1]) in found and not match[2]:
            continue
        found.add(normal(match[1]))
        waiting += [(need, match[2] or "") for need in needs]
    return found


class TestSubsetOfTheLock:
    def test_it_has_what_the_project_needs_and_nothing_that_only_development_does(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        subset = names(lock_subset.subset(LOCK, "berth"))
        assert installed_closure(project["dependencies"]) <= subset
        assert not subset & {"pytest", "mypy", "ruff", "numpy", "cryptography", "hatchling"}

    def test_pins_stay_as_they_are_with_their_hashes(self) -> None:
        subset = lock_subset.subset(LOCK, "hatchling")
        assert "hatchling" in names(subset)
        assert all(block in LOCK for block in re.split(r"^(?=\S)", subset, flags=re.MULTILINE))
        assert subset.count("--hash=sha256:") >= 2 * len(names(subset))

    def test_a_name_with_a_pin_for_each_of_several_pythons_keeps_all_of_them(self) -> None:
        lock = (
            "a==1 ; python_version < '3.12'\n    # via b\na==2\n    # via b\nb==1\n    # via berth (pyproject.toml)\n"
        )
        assert lock_subset.subset(lock, "berth") == lock

    def test_what_is_not_in_the_lock_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="nothing for ghost"):
            lock_subset.subset(LOCK, "ghost")


class TestKey:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        files = {
            ".dockerignore": "*\n!requirements.lock\n!operator/berth\n",
            "operator/Dockerfile": "FROM scratch",
            "operator/berth/cli.py": "1",
            "operator/berth/__pycache__/cli.pyc": "1",
            "requirements.lock": "a==1",
            "tests/test_cli.py": "1",
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    @pytest.mark.parametrize(
        "file", [".dockerignore", "operator/Dockerfile", "operator/berth/cli.py", "requirements.lock"]
    )
    def test_what_the_image_is_made_of_makes_it_another_one(self, root: Path, file: str) -> None:
        before = imagebuild.key("base", root)
        assert imagebuild.key("base", root) == before
        with (root / file).open("a") as changed:
            changed.write(" # changed")
        assert imagebuild.key("base", root) != before

    @pytest.mark.parametrize("file", ["tests/test_cli.py", "operator/berth/__pycache__/cli.pyc"])
    def test_what_it_is_not_made_of_does_not(self, root: Path, file: str) -> None:
        before = imagebuild.key("base", root)
        (root / file).write_text("changed")
        assert imagebuild.key("base", root) == before

    def test_another_base_makes_another_image(self, root: Path) -> None:
        assert imagebuild.key("base", root) != imagebuild.key("other", root)

    def test_every_file_that_the_dockerfile_copies_is_counted(self) -> None:
        counted = set(imagebuild.inputs())
        for line in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "operator/Dockerfile").read_text(), re.MULTILINE):
            for source in line.split()[:-1]:
                assert any(path.is_relative_to(ROOT / source) for path in counted), source


class TestPipSettings:
    LISTED = (
        ":env:.cert='{pem}'\n"
        ":env:.find-links='/opt/wheels'\n"
        ":env:.index-url='https://index.invalid/simple'\n"
        "global.extra-index-url='https://one.invalid\\nhttps://two.invalid'\n"
        "global.index-url='https://other.invalid'\n"
        "global.target='/somewhere'\n"
    )

    def test_only_the_way_to_the_index_is_passed_on_and_the_environment_goes_first(self, tmp_path: Path) -> None:
        pem = tmp_path / "ca.pem"
        pem.touch()
        settings, authorities = imagebuild.pip_settings(self.LISTED.replace("{pem}", str(pem)), {})
        assert settings == (
            "[global]\n"
            "index-url = https://index.invalid/simple\n"
            "extra-index-url = https://one.invalid\n    https://two.invalid\n"
        )
        assert authorities == pem

    def test_authorities_of_the_whole_machine_are_taken_where_pip_names_none(self, tmp_path: Path) -> None:
        pem = tmp_path / "all.pem"
        pem.touch()
        assert imagebuild.pip_settings("", {"SSL_CERT_FILE": str(pem)}) == ("[global]\n", pem)
        assert imagebuild.pip_settings("", {"SSL_CERT_FILE": "/nowhere"}) == ("[global]\n", None)
