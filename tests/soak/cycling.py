"""One Model through many lives: started, under load, disturbed, stopped; and the account of it in the end."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from berth.planning import names
from soak.disturbing import EXCUSED, GENTLE, KILLS, PATIENCE, Target, kill_operator
from soak.judging import Happenings, Tally
from soak.observing import Deletions, Growth, Sample, objects, sample
from soak.processes import ClusterProcesses
from support.kube import eventually
from support.load import Requests
from support.models import Manifest, Served, patch, wait_for_phase
from support.servers import address, llama, reachable

NEW, KEPT = 35, 15
"""Lanes of streams on new connections, and of requests on connections that are kept for some requests."""
PER_CONNECTION = 4
TOKENS = 8
DRAIN_SECONDS = 15
MODEL: Manifest = {
    "replicas": 2,
    "limits": {"cpu": "500m", "memory": "512Mi"},
    "serving": {"contextLength": 256, "maxConcurrency": NEW + KEPT},
    "health": {"period": "2s", "timeout": "5s", "failureThreshold": 5},
    "shutdown": {"drainTimeout": f"{DRAIN_SECONDS}s", "gracePeriod": "3s"},
}
"""Two servers whose streams take about a second under this load."""


class Soak:
    """The cycles of one Model. `say` is told a line for each."""

    def __init__(self, served: Served, name: str, *, seed: int, kill_share: float, say: Callable[[str], None]) -> None:
        self._served, self._name, self._say = served, name, say
        self._target = Target(served, name, ClusterProcesses(served.cluster.name))
        self._random, self._kill_share = random.Random(seed), kill_share
        self._new, self._kept = Tally(), Tally()
        self._samples: list[Sample] = []
        self._happened: Counter[str] = Counter()
        self._reused = 0
        self._seconds: list[float] = []
        self.enough = False
        """Set from outside: the cycle that runs is the last one."""

    def run(self, cycles: int) -> dict[str, Any]:
        """All cycles, and what came of them. An end state that is another than before fails an assertion."""
        cluster, namespace = self._served.cluster, self._served.namespace
        objects_before, processes_before = objects(cluster, namespace), self._target.processes.census()
        began = time.monotonic()
        cluster.apply(llama(self._name, **MODEL, state="Stopped"), namespace=namespace)
        wait_for_phase(cluster, namespace, self._name, "Stopped", PATIENCE)
        stopped: set[str] | None = None
        for number in range(1, cycles + 1):
            self._cycle(number, cycles)
            self._samples.append(sample(self._served.operator, number))
            found = {one for one in objects(cluster, namespace) if "replicaset" not in one}
            stopped = stopped or found
            assert found == stopped, f"objects of a stopped Model: {found ^ stopped}"
            if self.enough:
                break
        cluster.kubectl("-n", namespace, "delete", "model", self._name)
        left_objects = self._left(lambda: objects(cluster, namespace) - objects_before)
        left_processes = self._left(lambda: set((self._target.processes.census() - processes_before).elements()))
        return self._account(number, time.monotonic() - began, left_objects, left_processes)

    @staticmethod
    def _left(look: Callable[[], set[str]], patience: float = 60) -> list[str]:
        """What is there still after a while."""
        deadline = time.monotonic() + patience
        while (left := look()) and time.monotonic() < deadline:
            time.sleep(1)
        return sorted(left)

    def _cycle(self, number: int, cycles: int) -> None:
        """Start, load, disturb, stop."""
        gentle = GENTLE[(number - 1) % len(GENTLE)]
        kill = self._choose_kill(number, cycles)
        target, cluster, namespace = self._target, self._served.cluster, self._served.namespace
        target.cycle, target.kills = number, []
        began = time.monotonic()
        patch(cluster, namespace, self._name, {"spec": {"state": "Running"}})
        target.wait_until_ready()
        started = time.monotonic() - began
        url = address(cluster, namespace, self._name)
        reachable(url)
        new = Requests(url, NEW, TOKENS)
        kept = Requests(url, KEPT, TOKENS, keep_alive=True, per_connection=PER_CONNECTION)
        with Deletions(cluster, namespace, self._name) as deletions, new, kept:
            eventually(lambda: new.completed > NEW / 2 and kept.completed > KEPT / 2, PATIENCE, "first answers")
            self._disturb(gentle, kill)
            closed = self._stop()
            new.abandon()
            kept.abandon()
        happenings = Happenings(DRAIN_SECONDS, closed, tuple(deletions.told.values()), tuple(target.kills))
        self._new.count(new.endings, happenings)
        self._kept.count(kept.endings, happenings)
        self._reused += kept.reused
        self._happened.update([gentle.__name__, *([kill.__name__] if kill else [])])
        self._seconds.append(time.monotonic() - began)
        what = gentle.__name__ + (f" + {kill.__name__}" if kill else "")
        self._say(
            f"{number:4}  {what:<34} ready after {started:4.1f} s, {self._seconds[-1]:5.1f} s in all; "
            f"new {_shown(self._new)}; kept {_shown(self._kept)}"
        )

    def _choose_kill(self, number: int, cycles: int) -> Callable[[Target], None] | None:
        """A kill at random. Those of the operator fall into the first half: the last one's memory is looked at."""
        if self._random.random() >= self._kill_share:
            return None
        return self._random.choice([kill for kill in KILLS if kill is not kill_operator or number <= cycles / 2])

    def _disturb(self, gentle: Callable[[Target], None], kill: Callable[[Target], None] | None) -> None:
        """What takes requests with it comes before the rest; other kills fall into the middle of it."""
        if kill is None or kill in EXCUSED:
            if kill is not None:
                kill(self._target)
            gentle(self._target)
            return
        failures: list[BaseException] = []

        def strike() -> None:
            time.sleep(self._random.uniform(0, 3))
            try:
                kill(self._target)
            except BaseException as error:
                failures.append(error)

        striking = threading.Thread(target=strike, name="kill")
        striking.start()
        try:
            gentle(self._target)
        finally:
            striking.join()
        if failures:
            raise failures[0]

    def _stop(self) -> float:
        """spec.state Stopped, until nothing runs any more; when the Service was closed."""
        cluster, namespace = self._served.cluster, self._served.namespace
        patch(cluster, namespace, self._name, {"spec": {"state": "Stopped"}})

        def closed_since() -> float:
            service = cluster.get("service", self._name, namespace)
            assert service is not None
            written = service["metadata"].get("annotations", {}).get(names.CLOSED_SINCE_ANNOTATION)
            return datetime.fromisoformat(written).timestamp() if written else 0.0

        closed = eventually(closed_since, PATIENCE, "a closed Service")
        eventually(lambda: not self._target.pods(), PATIENCE, "no Pod")
        wait_for_phase(cluster, namespace, self._name, "Stopped", PATIENCE)
        return closed

    def _account(self, cycles: int, seconds: float, objects_left: list[str], left: list[str]) -> dict[str, Any]:
        growth = Growth.of(self._samples)
        both = (self._new, self._kept)
        return {
            "cycles": cycles,
            "requests": sum(tally.requests for tally in both),
            "failed_new_connections": sum(tally.counts[_FAILED] for tally in both),
            "cut_streams": sum(tally.counts[_CUT] for tally in both),
            "leaked_objects": len(objects_left),
            "leaked_processes": len(left),
            "rss_growth_percent": growth.rss_percent,
            "fd_growth": growth.descriptors,
            "task_growth": growth.tasks,
            "operator_rss_mib": growth.rss_mib,
            "cycles_of_the_last_operator_after_warm_up": growth.cycles,
            "new_connections": self._new.told(),
            "kept_connections": {**self._kept.told(), "on_a_connection_used_before": self._reused},
            "happened": dict(sorted(self._happened.items())),
            "starts_counted_by_the_last_operator": self._served.operator.metric("berth_model_start_seconds_count"),
            "seconds": round(seconds),
            "left": [*objects_left, *left],
            "examples": self._new.examples + self._kept.examples,
        }


def _shown(tally: Tally) -> str:
    return "/".join(str(count) for count in tally.counts.values())


_FAILED, _CUT = list(Tally().counts)[-2:]
