"""What is there between cycles: objects, and the size of the operator; and which Pods were told to end, and when."""

import threading
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Self

from support.kube import Cluster
from support.models import pods
from support.operator_process import OperatorProcess

_PASSING = ("events", "events.events.k8s.io", "leases.coordination.k8s.io")
"""Kinds whose objects come and go by themselves."""


def objects(cluster: Cluster, namespace: str) -> set[str]:
    """The objects of every kind in a namespace, as `kind/name`."""
    listing = ("api-resources", "--namespaced", "--verbs=list", "--output=name")
    kinds = [kind for kind in cluster.kubectl(*listing).stdout.split() if kind not in _PASSING]
    return set(cluster.kubectl("-n", namespace, "get", ",".join(kinds), "--output=name").stdout.split())


@dataclass(frozen=True)
class Sample:
    """What one operator process needed at one moment."""

    pid: int
    cycle: int
    resident_bytes: float
    descriptors: float
    tasks: float


def sample(operator: OperatorProcess, cycle: int) -> Sample:
    """What the operator's own metrics say now."""
    names = ("process_resident_memory_bytes", "process_open_fds", "berth_asyncio_tasks")
    return Sample(operator.pid, cycle, *(operator.metric(name) for name in names))


@dataclass(frozen=True)
class Growth:
    """How much the last operator process has grown since it had warmed up. None: too few cycles to tell."""

    cycles: int
    rss_percent: float | None = None
    descriptors: int | None = None
    tasks: int | None = None
    rss_mib: float | None = None

    @classmethod
    def of(cls, samples: list[Sample], warm_up: int = 5, several: int = 5) -> Self:
        """From samples of all cycles: medians of several, after those of the warm-up and at the end."""
        last = [one for one in samples if one.pid == samples[-1].pid] if samples else []
        counted = last[warm_up:]
        if len(counted) < 2 * several:
            return cls(len(counted))

        def change(field: str) -> tuple[float, float]:
            values = [getattr(one, field) for one in counted]
            return median(values[:several]), median(values[-several:])

        before, after = change("resident_bytes")
        descriptors, tasks = change("descriptors"), change("tasks")
        return cls(
            len(counted),
            round((after - before) / before * 100, 2),
            round(descriptors[1] - descriptors[0]),
            round(tasks[1] - tasks[0]),
            round(after / 2**20, 1),
        )


class Deletions:
    """When the Pods of a Model were told to end, by their uid, as long as the context is open."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self.told: dict[str, float] = {}
        self._where, self._stop = (cluster, namespace, name), threading.Event()
        self._thread = threading.Thread(target=self._look, name="deletions")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _look(self) -> None:
        while not self._stop.wait(0.3):
            for pod in pods(*self._where):
                if ends := pod["metadata"].get("deletionTimestamp"):
                    grace = pod["metadata"]["deletionGracePeriodSeconds"]
                    self.told[pod["metadata"]["uid"]] = datetime.fromisoformat(ends).timestamp() - grace
