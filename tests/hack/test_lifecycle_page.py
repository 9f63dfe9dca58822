"""The page about the life of a Model says what the decisions do."""

import pytest

from berth.api.model_status import Phase
from generation.lifecycle import lifecycle_page
from generation.transitions import Transition, transitions

pytestmark = pytest.mark.slow


def test_every_phase_has_a_row() -> None:
    page = lifecycle_page()
    assert all(page.count(f"\n| `{phase}` | ") >= 1 for phase in Phase)


def test_the_ordinary_life_is_found() -> None:
    ordinary = {
        Transition("Pending", "Loading", "ContainerCreating"),
        Transition("Loading", "Ready", "Serving"),
        Transition("Ready", "Updating", "RollingOut"),
        Transition("Ready", "Degraded", "CrashLoop"),
        Transition("Ready", "Draining", "StoppedByUser"),
        Transition("Draining", "Stopped", "StoppedByUser"),
        Transition("Stopped", "Provisioning", "WaitingForDownload"),
    }
    assert ordinary <= transitions()


def test_a_stopped_model_never_serves_without_a_start() -> None:
    assert {found.after for found in transitions() if found.before == "Stopped"} <= {
        "Pending",
        "Provisioning",
        "Queued",
        "Loading",
        "Failed",
    }
