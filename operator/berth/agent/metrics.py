"""What the agent tells Prometheus: the last look at the node. docs/gpu-nodes.md lists the names.

The samples are made when they are asked for, so a GPU, a Pod or a process that is gone leaves no series behind.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from berth.agent.status import HOLDERS_KNOWN, MIB, READY
from berth.api.gpu_node import GPU, GPUNodeStatus, MemoryOfGPU
from berth.api.model_status import ConditionStatus

_GPU_LABELS = ("node", "uuid", "product")


@dataclass(frozen=True, slots=True)
class _Figure:
    """A gauge of every GPU; `of` is None where the GPU has no such figure."""

    name: str
    help: str
    of: Callable[[GPU], float | None]


def _memory(amount: Callable[[MemoryOfGPU], int | None]) -> Callable[[GPU], float | None]:
    def of(gpu: GPU) -> float | None:
        found = None if gpu.memory is None else amount(gpu.memory)
        return None if found is None else found * MIB

    return of


_FIGURES = (
    _Figure("berth_gpu_memory_total_bytes", "Memory of a GPU", _memory(lambda memory: memory.total_mi_b)),
    _Figure("berth_gpu_memory_used_bytes", "Memory that is used", _memory(lambda memory: memory.used_mi_b)),
    _Figure(
        "berth_gpu_memory_reserved_bytes",
        "Memory that the driver keeps for itself, where it is not counted as used",
        _memory(lambda memory: memory.reserved_mi_b),
    ),
    _Figure(
        "berth_gpu_foreign_memory_bytes",
        "Memory of processes that belong to no Pod of the cluster",
        lambda gpu: gpu.foreign_mi_b * MIB,
    ),
    _Figure(
        "berth_gpu_utilisation_ratio",
        "Share of the time in which the GPU computed",
        lambda gpu: None if gpu.utilisation_percent is None else gpu.utilisation_percent / 100,
    ),
    _Figure("berth_gpu_temperature_celsius", "Temperature of the chip", lambda gpu: gpu.temperature_celsius),
    _Figure("berth_gpu_power_watts", "Power that the GPU draws", lambda gpu: gpu.power_watts),
    _Figure("berth_gpu_healthy", "1 while the GPU can be given work", lambda gpu: float(gpu.health.healthy)),
    _Figure(
        "berth_gpu_ecc_errors",
        "Memory errors since the driver started that could not be corrected",
        lambda gpu: gpu.health.ecc_errors,
    ),
)


class NodeCollector(Collector):
    """Samples of the last look. `xids` counts XID errors by uuid and number."""

    def __init__(self, node: str, xids: Callable[[], Mapping[tuple[str, int], int]]) -> None:
        self._node, self._xids = node, xids
        self.status: GPUNodeStatus | None = None
        self.looked_at = 0.0

    def collect(self) -> Iterator[Metric]:
        """All samples."""
        status = self.status
        if status is None:
            return
        gpus = status.gpus or []
        yield from self._gpu_figures(gpus)
        yield self._holders(gpus)
        yield self._pods(gpus)
        yield self._xid_errors({gpu.uuid: gpu.product for gpu in gpus})
        yield from self._node_figures(status)

    def describe(self) -> Iterator[Metric]:
        """Nothing: what there is depends on the GPUs."""
        yield from ()

    def _gpu_figures(self, gpus: list[GPU]) -> Iterator[Metric]:
        for figure in _FIGURES:
            family = GaugeMetricFamily(figure.name, figure.help, labels=_GPU_LABELS)
            for gpu in gpus:
                if (value := figure.of(gpu)) is not None:
                    family.add_metric(self._labels(gpu), value)
            yield family

    def _holders(self, gpus: list[GPU]) -> Metric:
        family = GaugeMetricFamily(
            "berth_gpu_holder",
            "1 for each container that kubelet gave the GPU to",
            labels=(*_GPU_LABELS, "namespace", "pod", "container"),
        )
        for gpu in gpus:
            for holder in gpu.holders or ():
                family.add_metric((*self._labels(gpu), holder.namespace, holder.pod, holder.container), 1)
        return family

    def _pods(self, gpus: list[GPU]) -> Metric:
        family = GaugeMetricFamily(
            "berth_gpu_pod_memory_bytes",
            "Memory that the processes of a Pod use on the GPU; without a name only the Pod's uid is certain",
            labels=(*_GPU_LABELS, "namespace", "pod", "pod_uid"),
        )
        for gpu in gpus:
            sums: Counter[tuple[str, str, str]] = Counter()
            for process in gpu.processes or ():
                if process.pod_uid is not None:
                    sums[process.namespace or "", process.pod or "", process.pod_uid] += process.memory_mi_b or 0
            for pod, used in sums.items():
                family.add_metric((*self._labels(gpu), *pod), used * MIB)
        return family

    def _xid_errors(self, products: Mapping[str, str]) -> Metric:
        family = CounterMetricFamily(
            "berth_gpu_xid_errors", "XID errors since the agent started", labels=(*_GPU_LABELS, "xid")
        )
        for (uuid, xid), count in sorted(self._xids().items()):
            family.add_metric((self._node, uuid, products.get(uuid, ""), str(xid)), count)
        return family

    def _node_figures(self, status: GPUNodeStatus) -> Iterator[Metric]:
        states = {condition.type: condition.status for condition in status.conditions or ()}
        up = {kind: float(states.get(kind) == ConditionStatus.TRUE) for kind in (READY, HOLDERS_KNOWN)}
        yield self._of_node("berth_gpu_driver_up", "1 while the driver answers and has a GPU", up[READY])
        yield self._of_node("berth_gpu_holders_known", "1 while kubelet says who holds which GPU", up[HOLDERS_KNOWN])
        yield self._of_node("berth_agent_last_look_timestamp_seconds", "When the agent last looked", self.looked_at)
        if (memory := status.host_memory) is not None:
            yield self._of_node("berth_host_memory_total_bytes", "Memory of the node", memory.total_mi_b * MIB)
            yield self._of_node("berth_host_memory_used_bytes", "Memory used on the node", memory.used_mi_b * MIB)

    def _of_node(self, name: str, help_text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, help_text, labels=("node",))
        family.add_metric((self._node,), value)
        return family

    def _labels(self, gpu: GPU) -> tuple[str, str, str]:
        return self._node, gpu.uuid, gpu.product


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self, node: str, xids: Callable[[], Mapping[tuple[str, int], int]]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.node = NodeCollector(node, xids)
        self.registry.register(self.node)
        self.writes = PrometheusCounter(
            "berth_agent_status_writes", "Writes of the GPUNode's status", registry=self.registry
        )
        self.failures = PrometheusCounter(
            "berth_agent_status_failures",
            "Reads and writes of the GPUNode's status that failed",
            registry=self.registry,
        )
