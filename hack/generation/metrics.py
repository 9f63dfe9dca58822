"""Which metrics Berth exports: asked of the registries themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from berth.agent.metrics import Metrics as AgentMetrics
from berth.api.gpu_node import GPUNodeStatus
from berth.backends.registry import all_backends
from berth.controllers.metrics import Metrics as OperatorMetrics
from berth.controllers.store import Store
from berth.provision.progress import Progress

_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@dataclass(frozen=True)
class Exported:
    """One metric, as its exporter describes it."""

    name: str
    """As it is asked for, but for the suffixes of a histogram."""
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its series."""
        base = self.name.removesuffix("_total") if self.kind == "counter" else self.name
        return tuple(base + suffix for suffix in _SUFFIXES[self.kind])


def of_operator() -> list[Exported]:
    """Metrics of the operator."""
    return _exported(OperatorMetrics(Store()).registry)


def of_agent() -> list[Exported]:
    """Metrics of the GPU agents."""
    metrics = AgentMetrics("node", dict)
    metrics.node.status = GPUNodeStatus.model_validate(
        {"gpus": [], "hostMemory": {"totalMiB": 1, "usedMiB": 1}, "conditions": []}
    )
    return _exported(metrics.registry)


def of_downloads() -> list[Exported]:
    """Metrics of the Pods that download."""
    return _exported(Progress("", str).registry)


def of_servers() -> dict[str, tuple[str, ...]]:
    """Names of the series of servers that Berth or its dashboards look at, by backend."""
    return {backend.name.value: names for backend in all_backends() if (names := tuple(_looked_at(backend)))}


def _looked_at(backend: Any) -> Iterator[str]:
    if backend.name != "custom" and (load := backend.load(None)) is not None:
        yield from filter(None, (load.running, load.waiting, load.worked))
    yield from backend.shown_metrics


def _exported(registry: CollectorRegistry) -> list[Exported]:
    """What is registered, by name; those of the Python process are left out. prometheus_client tells no labels."""
    found = []
    for collector in registry._collector_to_names:
        families = [collector] if isinstance(collector, MetricWrapperBase) else list(collector.collect())
        for family in families:
            kind, meaning = getattr(family, "_type", None) or family.type, _meaning(family)
            name = getattr(family, "_name", None) or family.name
            if name.startswith("berth_"):
                shown = name + "_total" if kind == "counter" else name
                found.append(Exported(shown, kind, tuple(family._labelnames), meaning))
    return sorted(found, key=lambda one: one.name)


def _meaning(family: Any) -> str:
    return str(getattr(family, "_documentation", None) or family.documentation)
