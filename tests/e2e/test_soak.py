"""The soak, for a few cycles: the same end state after each, whatever was killed."""

import pytest

from soak.cycling import Soak
from support.models import Served

pytestmark = pytest.mark.cluster

SEED = 1
"""Chosen so that each kind of kill comes once."""


@pytest.mark.timeout(900)
def test_nothing_is_lost_or_left_behind_by_lives_under_load_with_kills(served: Served, name: str) -> None:
    figures = Soak(served, name, seed=SEED, kill_share=1, say=print).run(4)
    print(figures)
    assert (figures["failed_new_connections"], figures["cut_streams"]) == (0, 0), figures["examples"]
    assert figures["left"] == []
    assert figures["requests"] > 200
