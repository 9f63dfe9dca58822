"""What the operator tells Prometheus about itself."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from berth.controllers.capacity_metrics import CapacityMetrics
from berth.controllers.store import CHILD_KINDS, Store
from berth.controllers.subject_metrics import SubjectCollector
from berth.planning.download_reasons import DownloadReason
from berth.planning.plan import DownloadEnd, StartTimes

RESULTS = ("done", "stale", "refused", "fenced", "failed")
"""How a reconciliation ends."""
_START_SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """All metrics, in a registry of their own so that tests can have several operators in one process."""

    def __init__(self, store: Store) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(SubjectCollector(store))
        self.requests = Counter(
            "berth_kubernetes_requests",
            "Requests to the Kubernetes API",
            ["verb", "resource", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "berth_kubernetes_request_seconds",
            "Seconds that requests to the Kubernetes API took",
            ["verb"],
            buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=self.registry,
        )
        self.reconciles = Counter(
            "berth_reconciles",
            f"Reconciliations by result: {', '.join(RESULTS)}",
            ["result"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "berth_reconcile_seconds",
            "Seconds that a reconciliation took, writes included",
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 1, 5),
            registry=self.registry,
        )
        self.queue_length = Gauge("berth_queue_length", "Keys that wait to be reconciled", registry=self.registry)
        self.transitions = Counter(
            "berth_model_transitions", "Phase transitions", ["from_phase", "to_phase"], registry=self.registry
        )
        self.start_seconds = Histogram(
            "berth_model_start_seconds",
            "Seconds from the wish that a Model without a server runs until it answers",
            buckets=_START_SECONDS,
            registry=self.registry,
        )
        self.start_part_seconds = Histogram(
            "berth_model_start_part_seconds",
            "Seconds of each part of such a start: provisioning, queued, creating (the Pod), loading",
            ["part"],
            buckets=_START_SECONDS,
            registry=self.registry,
        )
        self.unequal_applies = Counter(
            "berth_unequal_applies",
            "Objects that the API server stored otherwise than they were applied",
            ["kind"],
            registry=self.registry,
        )
        self.watch_restarts = Counter(
            "berth_watch_restarts", "Restarts of the watches after an error", registry=self.registry
        )
        self.swept = Counter(
            "berth_swept_objects",
            "Objects that a sweep found changed or gone unseen by the watches",
            ["kind"],
            registry=self.registry,
        )
        self.downloads = Counter(
            "berth_downloads",
            "Downloads that ended: result is Succeeded or Failed, reason says why one failed",
            ["result", "reason"],
            registry=self.registry,
        )
        self.download_bytes = Counter(
            "berth_download_bytes", "Bytes that ended downloads fetched over the network", registry=self.registry
        )
        self.download_seconds = Histogram(
            "berth_download_seconds",
            "Seconds that downloads took",
            buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600),
            registry=self.registry,
        )
        self.download_retries = Counter(
            "berth_download_retries",
            "Requests that ended downloads made again, by what went wrong",
            ["reason"],
            registry=self.registry,
        )
        self.capacity = CapacityMetrics(self.registry)
        self.load = {
            number: Gauge(
                f"berth_model_requests_{number}",
                f"Requests of a Model that are {number}, in all its servers; absent while not all of them tell",
                ["namespace", "model"],
                registry=self.registry,
            )
            for number in ("running", "waiting")
        }
        self._loads: set[tuple[str, str]] = set()
        self.orphans = Gauge(
            "berth_orphans",
            "Objects of ours and GPU processes that belong to nobody",
            ["kind"],
            registry=self.registry,
        )
        self.tasks = Gauge("berth_asyncio_tasks", "Tasks of the event loop", registry=self.registry)
        self.leading = Gauge("berth_leading", "1 while this process leads", registry=self.registry)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Show counters whose labels are known: of one that first appears with 1, `increase` sees nothing."""
        for result in RESULTS:
            self.reconciles.labels(result=result)
        for kind in CHILD_KINDS:
            self.unequal_applies.labels(kind=kind)
        self.downloads.labels(result="Succeeded", reason="")
        for reason in DownloadReason:
            self.downloads.labels(result="Failed", reason=reason)

    def count_download(self, end: DownloadEnd) -> None:
        """Count a download whose end is recorded for the first time."""
        self.downloads.labels(result="Failed" if end.reason else "Succeeded", reason=end.reason).inc()
        self.download_bytes.inc(end.bytes_fetched)
        self.download_seconds.observe(end.seconds)
        for reason, count in end.retries.items():
            self.download_retries.labels(reason=reason).inc(count)

    def observe_start(self, start: StartTimes) -> None:
        """Count a start whose end is recorded for the first time."""
        self.start_seconds.observe(start.whole)
        for part, seconds in start.parts.items():
            self.start_part_seconds.labels(part=part).observe(seconds)

    def show_load(self, namespace: str, model: str, numbers: tuple[float, float] | None) -> None:
        """Show how many requests a Model has, running and waiting; None when that is not known."""
        if numbers is None:
            self._drop_load((namespace, model))
            return
        self._loads.add((namespace, model))
        for gauge, number in zip(self.load.values(), numbers, strict=True):
            gauge.labels(namespace=namespace, model=model).set(number)

    def keep_loads(self, models: Iterable[tuple[str, str]]) -> None:
        """Show no load of any Model but these, by namespace and name."""
        for gone in self._loads - set(models):
            self._drop_load(gone)

    def _drop_load(self, model: tuple[str, str]) -> None:
        if model in self._loads:
            self._loads.remove(model)
            for gauge in self.load.values():
                gauge.remove(*model)

    def count_orphans(self, counts: Mapping[str, int]) -> None:
        """Show how many orphans of each kind there are."""
        for kind, count in counts.items():
            self.orphans.labels(kind=kind).set(count)

    def observe_request(self, verb: str, resource: str, status: int, seconds: float) -> None:
        """Count one request to the Kubernetes API; `status` is the HTTP status, 0 when none came."""
        self.requests.labels(verb=verb, resource=resource, status=str(status)).inc()
        self.request_seconds.labels(verb=verb).observe(seconds)
