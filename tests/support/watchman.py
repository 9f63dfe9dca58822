"""Looks at the Pods and Deployments of a pool all the time: what must never be, not even for a moment."""

import threading
from collections import Counter
from typing import Any

from support.gpu_fleet import GPU, Pool

Manifest = dict[str, Any]


class Watchman:
    """A thread that looks; what it has seen fails the test at the end."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._cluster = pool.fleet.cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.wrong: list[str] = []
        self.looks = 0

    def __enter__(self) -> "Watchman":
        self._offered = {name: self._offers(name) for name in self._pool.nodes}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)
        assert not self.wrong, self.wrong[:5]
        assert self.looks

    def _offers(self, name: str) -> int:
        node = self._pool.fleet.request("GET", f"/api/v1/nodes/{name}")
        return int(node["status"]["allocatable"][GPU])

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                self._look()
            except Exception as error:  # an end of the thread would be the end of all proof
                self.wrong.append(repr(error))
                return

    def _look(self) -> None:
        pods = self._cluster.list("pod", self._pool.name)
        deployments = self._cluster.list("deployment", self._pool.name)
        held: Counter[str] = Counter()
        loading: Counter[str] = Counter()
        for pod in pods:
            node, amount = pod["spec"].get("nodeName"), _gpus(pod["spec"])
            if node and pod["status"]["phase"] not in ("Succeeded", "Failed"):
                held[node] += amount
                loading[node] += amount > 0 and not _is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
            if any(c.get("reason") == "Unschedulable" for c in pod["status"].get("conditions", ())):
                self.wrong.append(f"{pod['metadata']['name']} was let go and finds no node")
        for node, amount in held.items():
            if amount > self._offered.get(node, 0):
                self.wrong.append(f"{amount} GPUs of {node} are given away")
        for node, number in loading.items():
            if number > 1:
                self.wrong.append(f"{number} servers load on {node}")
        admitted = sum(one["spec"]["replicas"] * _gpus(one["spec"]["template"]["spec"]) for one in deployments)
        if admitted > sum(self._offered.values()):
            self.wrong.append(f"{admitted} GPUs are admitted")
        self.looks += 1


def _gpus(spec: Manifest) -> int:
    return sum(int((one.get("resources") or {}).get("limits", {}).get(GPU, 0)) for one in spec["containers"])


def _is_ready(pod: Manifest) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
