"""What the operator tells Prometheus about each Model and ModelCache: what their status says.

The samples are made from the store when they are asked for, so whatever is gone leaves no series behind.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from berth.api.base import quantity_value
from berth.controllers.store import Store
from berth.planning.timeline import phase_start
from berth.planning.world import Subject

_MODEL = ("namespace", "model")
_CACHE = ("namespace", "cache")


class SubjectCollector(Collector):
    """Samples of what the store knows now."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """All samples."""
        models, caches = self._store.subjects("Model"), self._store.subjects("ModelCache")
        yield _by_phase("berth_models", "Models by phase", models)
        yield from _of_models(models)
        yield _by_phase("berth_model_caches", "ModelCaches by phase", caches)
        yield from _of_caches(caches)

    def describe(self) -> Iterator[Metric]:
        """Nothing: what there is depends on the cluster."""
        yield from ()


def _phase(subject: Subject) -> str:
    return str(subject.status.get("phase", "Pending"))


def _by_phase(name: str, meaning: str, subjects: tuple[Subject, ...]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=("phase",))
    for phase, count in sorted(Counter(map(_phase, subjects)).items()):
        family.add_metric((phase,), count)
    return family


def _of_models(models: tuple[Subject, ...]) -> Iterator[Metric]:
    phases = GaugeMetricFamily("berth_model_phase", "1 for the phase that a Model is in", labels=(*_MODEL, "phase"))
    since = GaugeMetricFamily(
        "berth_model_phase_since_timestamp_seconds", "Since when a Model is in its phase", labels=(*_MODEL, "phase")
    )
    for model in models:
        labels = (model.namespace, model.name, _phase(model))
        phases.add_metric(labels, 1)
        if (start := phase_start(model)) is not None:
            since.add_metric(labels, start.timestamp())
    yield phases
    yield since


def _of_caches(caches: tuple[Subject, ...]) -> Iterator[Metric]:
    used = GaugeMetricFamily(
        "berth_model_cache_used_bytes", "Bytes that the artifacts of a ModelCache take", labels=_CACHE
    )
    limit = GaugeMetricFamily(
        "berth_model_cache_limit_bytes",
        "Bytes that they may take: the ModelCache's limit, or else the size of its volume",
        labels=_CACHE,
    )
    for cache in caches:
        labels = (cache.namespace, cache.name)
        used.add_metric(labels, int(cache.status.get("usedBytes") or 0))
        if (most := _most(cache.spec, cache.status)) is not None:
            limit.add_metric(labels, most)
    yield used
    yield limit


def _most(spec: Mapping[str, Any], status: Mapping[str, Any]) -> float | None:
    """The bytes that a ModelCache has room for; None while that is not known."""
    quantity = spec.get("limit") or status.get("capacity")
    try:
        return float(quantity_value(str(quantity))) if quantity else None
    except ValueError:
        return None  # its status says so
