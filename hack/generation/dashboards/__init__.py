"""The dashboards of the chart, for Grafana: one module each, and `build` for what they have in common."""

from generation.dashboards.build import Dashboard, dashboard_json
from generation.dashboards.cold_start import COLD_START
from generation.dashboards.fleet import FLEET
from generation.dashboards.gpus import GPUS
from generation.dashboards.model import MODEL
from generation.dashboards.operator import OPERATOR

DASHBOARDS: tuple[Dashboard, ...] = (FLEET, MODEL, GPUS, COLD_START, OPERATOR)

__all__ = ["DASHBOARDS", "dashboard_files"]


def dashboard_files() -> dict[str, str]:
    """Path below the checkout and text of every dashboard."""
    return {f"charts/berth/files/dashboards/{one.name}.json": dashboard_json(one) for one in DASHBOARDS}
