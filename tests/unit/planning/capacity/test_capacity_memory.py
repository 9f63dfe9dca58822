"""What is remembered of a Model survives being stored, and little of it has to be."""

from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from berth.planning.capacity.memory import from_document, to_document
from berth.planning.capacity.world import Attempts, Remembered
from support.builders import NOW
from support.gpu_clusters import Cluster, decided, gpu, model, node, pod

times = st.none() | st.integers(0, 10**7).map(lambda seconds: NOW + timedelta(seconds=seconds))
attempts = st.none() | st.builds(Attempts, st.integers(1, 99), times.filter(bool))
words = st.sampled_from(("", "a", "b"))
memories = st.builds(
    Remembered,
    **{field.name: times for field in fields(Remembered)}
    | {"reason": words, "keeps": words, "preempted_by": words, "nodes": st.lists(words).map(tuple)}
    | {"preempting": attempts, "taken_back": attempts},
)


@given(memories)
def test_it_comes_back_as_it_was_stored(memory: Remembered) -> None:
    assert from_document(to_document(memory)) == memory


def test_of_a_model_that_runs_only_its_age_is_stored() -> None:
    running = Cluster([node(gpus=[gpu()])], [model(replicas=1)], [pod("m", "node-a", "m")])
    assert to_document(decided(running).remembered) == {"queuedAt": "2026-01-01T12:00:00Z"}


@pytest.mark.parametrize("document", [{"since": "yesterday"}, {"since": "2026-01-01"}, {"preempting": 3}, {"nodes": 7}])
def test_what_cannot_be_read_was_never_remembered(document: dict[str, Any]) -> None:
    assert from_document(document) == Remembered()
