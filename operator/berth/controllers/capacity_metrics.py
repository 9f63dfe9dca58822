"""What the operator tells Prometheus about the queue for GPUs."""

from collections import Counter as Tally
from collections.abc import Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from berth.planning.capacity.decision import Decision
from berth.planning.capacity.plan import CapacityPlan
from berth.planning.capacity.reasons import CapacityReason


class CapacityMetrics:
    """The queue, and what becomes of those in it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge(
            "berth_capacity_waiting_models", "Models that wait for GPUs, by reason", ["reason"], registry=registry
        )
        self.wait_seconds = Histogram(
            "berth_capacity_wait_seconds",
            "Seconds that Models waited for GPUs until that, by the reason that ended",
            ["reason"],
            buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
            registry=registry,
        )
        self.admissions = Counter("berth_capacity_admissions", "Replicas admitted to GPUs", registry=registry)
        self.preemptions = Counter(
            "berth_capacity_preemptions", "Replicas that made way for a Model of higher priority", registry=registry
        )
        self.plan_seconds = Histogram(
            "berth_capacity_plan_seconds",
            "Seconds that one plan over all nodes and Models took",
            buckets=(0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5),
            registry=registry,
        )
        self.unreported = Gauge(
            "berth_capacity_unreported_nodes", "Nodes with GPUs whose agent does not report", registry=registry
        )
        self._waits: dict[str, tuple[CapacityReason, datetime]] = {}

    def planned(self, plan: CapacityPlan, seconds: float, now: datetime) -> None:
        """Count one plan, which took so long."""
        self.plan_seconds.observe(seconds)
        self.unreported.set(len(plan.unreported))
        self.preemptions.inc(sum(len(preemption.pods) for preemption in plan.preemptions))
        waits = {name: (one.waiting.reason, one.waiting.since) for name, one in plan.models.items() if one.waiting}
        counts = Tally(reason for reason, _ in waits.values())
        for reason in CapacityReason:
            self.waiting.labels(reason=reason).set(counts[reason])
        for name, (reason, since) in self._waits.items():
            if name in plan.models and waits.get(name, (None, None))[0] is not reason:
                self.wait_seconds.labels(reason=reason).observe(max(0.0, (now - since).total_seconds()))
        self._waits = waits

    def decided(self, decisions: Iterable[Decision]) -> None:
        """Count what is decided anew."""
        for decision in decisions:
            self.admissions.inc(max(0, decision.capacity.admitted - decision.demand.replicas))
