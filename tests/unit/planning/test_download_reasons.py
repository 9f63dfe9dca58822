"""Reasons of downloads: each is explained, used and one word."""

import re
from pathlib import Path

import pytest

from berth.planning.download_reasons import EXPLANATIONS, PASSING, DownloadReason

PROVISION = Path(__file__).parents[3] / "operator/berth/provision"


@pytest.mark.parametrize("reason", sorted(DownloadReason))
def test_every_reason_is_explained_in_a_sentence(reason: DownloadReason) -> None:
    explanation = EXPLANATIONS[reason]
    assert explanation.meaning.endswith(".")
    assert explanation.remedy.endswith(".")


@pytest.mark.parametrize("reason", sorted(DownloadReason))
def test_reasons_are_one_word_for_programs(reason: DownloadReason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]+", reason)
    assert reason.name == re.sub(r"(?<!^)(?=[A-Z])", "_", reason.value).upper()


def test_every_reason_is_given_somewhere() -> None:
    text = "".join(path.read_text() for path in PROVISION.rglob("*.py"))
    assert [reason for reason in DownloadReason if f"Reason.{reason.name}" not in text] == []


def test_what_passes_by_itself_is_not_what_a_person_changes() -> None:
    assert DownloadReason.SERVER_ERROR in PASSING
    assert not PASSING & {DownloadReason.INCOMPATIBLE, DownloadReason.TOKEN_MISSING, DownloadReason.NO_SPACE}
