"""What holds for the source tree as a whole."""

import ast
import operator
import re
from pathlib import Path

import pytest

from berth.planning import pod_ends, reasons
from berth.planning.reasons import EXPLANATIONS, Reason

ROOT = Path(__file__).parents[2]
PLANNING = ROOT / "operator/berth/planning"
KUBERNETES = {"Unschedulable", *pod_ends._BY_KUBELET, *pod_ends._BY_OTHERS}
"""Words that Kubernetes itself uses; they are read, not given."""


def test_the_source_root_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator/__init__.py").exists()
    assert operator.add(1, 1) == 2


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "operator/berth").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("reason", sorted(Reason))
def test_every_reason_is_explained_in_a_sentence(reason: Reason) -> None:
    explanation = EXPLANATIONS[reason]
    assert explanation.meaning.endswith(".")
    assert explanation.remedy == "" or explanation.remedy.endswith(".")


@pytest.mark.parametrize("reason", sorted(reasons.BREAKER))
def test_what_stops_a_model_for_good_has_a_remedy(reason: Reason) -> None:
    assert EXPLANATIONS[reason].remedy


@pytest.mark.parametrize("reason", sorted(Reason))
def test_reasons_are_one_word_for_programs(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]+", reason)
    assert reason.name == re.sub(r"(?<!^)(?=[A-Z])", "_", reason.value).upper()


@pytest.mark.parametrize("path", sorted(PLANNING.glob("*.py")), ids=lambda path: path.name)
def test_no_reason_is_written_beside_the_list_of_them(path: Path) -> None:
    if path.name == "reasons.py":
        return
    known = {str(reason) for reason in Reason} - KUBERNETES
    constants = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert [(node.lineno, node.value) for node in constants if node.value in known] == []


def test_every_reason_is_used() -> None:
    sources = [*PLANNING.glob("*.py"), *(ROOT / "operator/berth/controllers").glob("*.py")]
    text = "".join(path.read_text() for path in sources if path.name != "reasons.py")
    assert [reason for reason in Reason if f"Reason.{reason.name}" not in text] == []
