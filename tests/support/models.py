"""Models for tests, and what tests want to know about them."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from berth.planning.names import MODEL_LABEL
from support.kube import Cluster, eventually
from support.operator_process import OperatorProcess

Manifest = dict[str, Any]

KINDS = ("deployment", "service", "networkpolicy")
"""What every Model consists of."""


@dataclass(frozen=True)
class Served:
    """A namespace with an operator that serves it."""

    cluster: Cluster
    namespace: str
    operator: OperatorProcess


def custom(name: str, image: str = "registry.invalid/server:1", port: int = 9000, **spec: Any) -> Manifest:
    """A Model of backend custom on CPU; `spec` replaces whole fields of its spec."""
    base: Manifest = {
        "backend": "custom",
        "gpus": {"count": 0},
        "serving": {"image": image},
        "custom": {"port": port},
    }
    return model(name, **{**base, **spec})


def model(name: str, **spec: Any) -> Manifest:
    """A Model."""
    return {"apiVersion": "berth.dev/v1alpha1", "kind": "Model", "metadata": {"name": name}, "spec": spec}


def patch(cluster: Cluster, namespace: str, name: str, body: Mapping[str, Any], kind: str = "model") -> None:
    """Merge into an object."""
    cluster.kubectl("-n", namespace, "patch", kind, name, "--type=merge", "-p", json.dumps(body))


def conditions(cluster: Cluster, namespace: str, name: str) -> dict[str, tuple[str, str, str]]:
    """Status, reason and message of each condition of a Model by its type."""
    found = cluster.get("model", name, namespace)
    assert found is not None, f"no model {name}"
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in found["status"].get("conditions", ())}


def wait_for_phase(cluster: Cluster, namespace: str, name: str, phase: str, timeout: float = 30) -> Manifest:
    """The Model, once it is in the phase for its present generation."""

    def reached() -> Manifest | None:
        found = cluster.get("model", name, namespace)
        assert found is not None, f"no model {name}"
        status = found["status"]
        current = status["observedGeneration"] == found["metadata"]["generation"]
        assert current, f"not seen yet: {status}"
        assert status["phase"] == phase, (status["phase"], status.get("conditions"))
        return found

    return eventually(reached, timeout, f"{name} {phase}")  # type: ignore[return-value]


def wait_for_stall(cluster: Cluster, namespace: str, name: str, reason: str, timeout: float = 30) -> str:
    """The message of Stalled, once it is true for this reason."""

    def stalled() -> str:
        status, why, message = conditions(cluster, namespace, name).get("Stalled", ("", "", ""))
        return message if (status, why) == ("True", reason) else ""

    return eventually(stalled, timeout, f"{name} stalled with {reason}")


def pods(cluster: Cluster, namespace: str, name: str) -> list[Manifest]:
    """The Pods of a Model, those being deleted included."""
    return cluster.list("pod", namespace, f"{MODEL_LABEL}={name}")


def children(cluster: Cluster, namespace: str, name: str) -> dict[str, Manifest]:
    """The objects of a Model that are there, by kind."""
    found = {kind: cluster.get(kind, name, namespace) for kind in (*KINDS, "pdb")}
    return {kind: manifest for kind, manifest in found.items() if manifest is not None}


def wait_for_children(cluster: Cluster, namespace: str, name: str) -> dict[str, Manifest]:
    """Deployment, Service and NetworkPolicy, once all are there."""

    def complete() -> dict[str, Manifest]:
        found = children(cluster, namespace, name)
        return found if set(KINDS) <= found.keys() else {}

    return eventually(complete, 20, f"the objects of {name}")


def pretend_ready(cluster: Cluster, namespace: str, name: str) -> None:
    """Say of all Pods of a Model that they answer, where no kubelet does."""
    for pod in pods(cluster, namespace, name):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        state = {"running": {"startedAt": now}}
        server = {"name": "server", "ready": True, "started": True, "restartCount": 0, "state": state}
        server |= {"image": "none", "imageID": "none"}
        ready = [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        status = {"phase": "Running", "conditions": ready, "containerStatuses": [server]}
        body = json.dumps({"status": status})
        cluster.kubectl(
            *("-n", namespace, "patch", "pod", pod["metadata"]["name"]),
            *("--subresource=status", "--type=merge", "-p", body),
        )


def versions(cluster: Cluster, namespace: str) -> dict[tuple[str, str], str]:
    """resourceVersion of every Model and child in the namespace."""
    return {
        (kind, item["metadata"]["name"]): item["metadata"]["resourceVersion"]
        for kind in ("model", *KINDS, "pdb")
        for item in cluster.list(kind, namespace)
    }


def stays(look: Callable[[], Any], seconds: float) -> None:
    """Look again and again for so long: the answer never changes."""
    first, deadline = look(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.2)
        assert look() == first


def settle(operator: OperatorProcess, quiet: float = 1.5, timeout: float = 30) -> float:
    """The number of writes, once none came for a while."""
    last, since = operator.writes(), time.monotonic()

    def unchanged() -> bool:
        nonlocal last, since
        now = operator.writes()
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > quiet

    eventually(unchanged, timeout, "an operator that has nothing to do")
    return last
