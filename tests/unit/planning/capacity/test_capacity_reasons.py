"""The reasons of the queue: each is explained, and each is given somewhere."""

import re
from pathlib import Path

import pytest

from berth.planning import capacity
from berth.planning.capacity.reasons import EXPLANATIONS, CapacityReason

SOURCES = sorted(Path(capacity.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("reason", sorted(CapacityReason))
def test_every_reason_is_explained_in_a_sentence(reason: CapacityReason) -> None:
    explanation = EXPLANATIONS[reason]
    assert explanation.meaning.endswith(".")
    assert explanation.remedy == "" or explanation.remedy.endswith(".")


@pytest.mark.parametrize("reason", sorted(CapacityReason))
def test_reasons_are_one_word_for_programs(reason: CapacityReason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]+", reason)


def test_every_reason_is_given_somewhere() -> None:
    text = "".join(path.read_text() for path in SOURCES if path.name != "reasons.py")
    assert [reason for reason in CapacityReason if f"CapacityReason.{reason.name}" not in text] == []
