"""Generated examples: as many as keep the quick suite quick, and the same ones in every run."""

import os

import pytest
from hypothesis import HealthCheck, settings

from support.cache_simulation import CacheSimulation

settings.register_profile(
    "quick",
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=5000, derandomize=False)
settings.load_profile(os.environ.get("BERTH_HYPOTHESIS", "quick"))


@pytest.fixture
def downloading() -> CacheSimulation:
    """A cluster whose ModelCache has begun to download what a Model wants; half of it is there."""
    cluster = CacheSimulation()
    cluster.add_model()
    for _ in range(2):
        cluster.reconcile()
        cluster.bind_claim()
    cluster.run(2)
    cluster.reconcile()
    assert cluster.state() == "Downloading"
    return cluster
