"""Generated examples: as many as keep the quick suite quick, and the same ones in every run."""

import os

from hypothesis import HealthCheck, settings

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
