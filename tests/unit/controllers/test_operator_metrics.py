"""What the operator tells of itself, of each Model and of each ModelCache."""

from collections.abc import Callable
from typing import Any

import pytest

from berth.controllers.metrics import Metrics
from berth.controllers.store import Store
from berth.planning.download_reasons import DownloadReason
from support import builders
from support.builders import CACHE, GIB, NAMESPACE, NOW, ago

MODEL = {"namespace": NAMESPACE, "model": "m"}
STORED = {"namespace": NAMESPACE, "cache": CACHE}
Sample = Callable[..., float | None]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def sample(store: Store) -> Sample:
    """The value of one series; None when there is none."""
    registry = Metrics(store).registry
    return lambda name, **labels: registry.get_sample_value(name, labels)


def test_a_model_has_one_phase(store: Store, sample: Sample) -> None:
    store.observe(builders.model(status={"phase": "Ready", "observedGeneration": 1, "phaseSince": ago(90)}))
    assert sample("berth_model_phase", **MODEL, phase="Ready") == 1
    store.observe(builders.model(version=2, status={"phase": "Failed", "observedGeneration": 1}))
    assert sample("berth_model_phase", **MODEL, phase="Failed") == 1
    assert sample("berth_model_phase", **MODEL, phase="Ready") is None


def test_the_time_of_a_phase_is_the_one_in_the_status(store: Store, sample: Sample) -> None:
    store.observe(builders.model(status={"phase": "Loading", "observedGeneration": 1, "phaseSince": ago(90)}))
    name = "berth_model_phase_since_timestamp_seconds"
    assert sample(name, **MODEL, phase="Loading") == NOW.timestamp() - 90


def test_a_model_that_nobody_has_looked_at_is_pending_since_it_was_made(store: Store, sample: Sample) -> None:
    store.observe(builders.model())
    name = "berth_model_phase_since_timestamp_seconds"
    assert sample(name, **MODEL, phase="Pending") == NOW.timestamp() - 60


def test_a_phase_of_unknown_age_is_told_without_it(store: Store, sample: Sample) -> None:
    store.observe(builders.model(status={"phase": "Ready", "observedGeneration": 1}))
    assert sample("berth_model_phase", **MODEL, phase="Ready") == 1
    assert sample("berth_model_phase_since_timestamp_seconds", **MODEL, phase="Ready") is None


def test_models_are_counted_by_phase(store: Store, sample: Sample) -> None:
    for name, phase in (("a", "Ready"), ("b", "Ready"), ("c", "Stopped")):
        store.observe(builders.model(name, uid=name, status={"phase": phase}))
    assert (sample("berth_models", phase="Ready"), sample("berth_models", phase="Stopped")) == (2, 1)


def test_a_model_that_is_gone_leaves_no_series(store: Store, sample: Sample) -> None:
    store.observe(builders.model())
    store.forget("Model", NAMESPACE, "m", builders.MODEL_UID)
    assert sample("berth_model_phase", **MODEL, phase="Pending") is None
    assert sample("berth_models", phase="Pending") is None


@pytest.mark.parametrize(
    ("limit", "capacity", "most"),
    [
        ("100Gi", "1Ti", 100 * GIB),
        (None, "1Ti", 1024 * GIB),
        (None, None, None),
        ("plenty", "1Ti", None),
    ],
)
def test_a_cache_may_have_its_limit_or_else_its_volume(
    store: Store, sample: Sample, limit: str | None, capacity: str | None, most: float | None
) -> None:
    spec: dict[str, Any] = {"limit": limit} if limit else {}
    store.observe(builders.model_cache(spec=spec, status={"usedBytes": 7, "capacity": capacity}))
    assert sample("berth_model_cache_used_bytes", **STORED) == 7
    assert sample("berth_model_cache_limit_bytes", **STORED) == most


def test_counters_whose_labels_are_known_begin_at_zero(sample: Sample) -> None:
    assert sample("berth_reconciles_total", result="failed") == 0
    assert sample("berth_unequal_applies_total", kind="Service") == 0
    assert {sample("berth_downloads_total", result="Failed", reason=reason) for reason in DownloadReason} == {0}
