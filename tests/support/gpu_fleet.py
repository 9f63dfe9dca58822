"""Simulated nodes with GPUs on a real control plane, and their agents, whose part the test plays.

kwok answers for the kubelets: Pods are ready once they are bound, and gone once they are deleted. Pods of Models that
are made with `by_hand` do neither until the test says so.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from berth.planning.names import CLOSED_LABEL, MODEL_LABEL
from localcluster.kubeapi import Api
from localcluster.simulated import PLAYED_BY_HAND, node_is_ready
from localcluster.simulated import node as node_manifest
from support.kube import Cluster, eventually
from support.models import KINDS, model, stays, versions
from support.operator_process import OperatorProcess

Manifest = dict[str, Any]
GPU = "nvidia.com/gpu"
POOL = "pool"
PRODUCT = "NVIDIA-H100-80GB-HBM3"
TOTAL = 80000
AGENTS = {"app.kubernetes.io/name": "berth", "app.kubernetes.io/component": "agent"}
_CUSTOM = "application/merge-patch+json"


@dataclass
class Fleet:
    """The cluster, and the operator that serves all of it."""

    cluster: Cluster
    start: Callable[..., OperatorProcess]
    """Starts one more operator."""
    operator: OperatorProcess
    api: Api = field(init=False)

    def __post_init__(self) -> None:
        self.api = Api(self.cluster.kubeconfig)

    def request(self, method: str, path: str, body: Manifest | None = None) -> Manifest:
        """The answer; a refusal fails the test."""
        kind = _CUSTOM if method == "PATCH" else "application/json"
        status, answer = self.api.request(method, path, body, kind)
        assert 200 <= status < 300, f"{method} {path}: {status} {answer[:500]!r}"
        found: Manifest = json.loads(answer)
        return found

    def pool(self, *, nodes: int = 1, gpus: int = 1, **more: Any) -> "Pool":
        """Nodes that nobody else uses, and a namespace."""
        name = f"q-{uuid.uuid4().hex[:6]}"
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        pool = Pool(self, name)
        for _ in range(nodes):
            pool.add_node(gpus, **more)
        eventually(lambda: self.cluster.get("serviceaccount", "default", name), 30, "the default ServiceAccount")
        return pool


@dataclass
class Pool:
    """Some nodes and a namespace whose Models go to them alone."""

    fleet: Fleet
    name: str
    nodes: list[str] = field(default_factory=list)
    _made: int = 0

    # ---- nodes -----------------------------------------------------------------------------------------------

    def add_node(
        self, gpus: int = 1, *, memory: int = TOTAL, resource: str = GPU, labels: dict[str, str] | None = None
    ) -> str:
        """A node with so many GPUs, or so many of another resource."""
        self._made += 1
        name = f"{self.name}-{self._made}"
        manifest = node_manifest(name, gpus, PRODUCT, memory)
        manifest["metadata"]["labels"] |= {POOL: self.name, **(labels or {})}
        amounts = dict(manifest["status"]["capacity"])
        amounts[resource] = amounts.pop(GPU)
        manifest["status"] |= {"capacity": amounts, "allocatable": amounts}
        self.fleet.api.apply(f"/api/v1/nodes/{name}", manifest)
        self.fleet.api.apply(f"/api/v1/nodes/{name}/status", manifest)
        self.nodes.append(name)

        def usable() -> bool:
            found = self.fleet.request("GET", f"/api/v1/nodes/{name}")
            return node_is_ready(found) and not found["spec"].get("taints")

        eventually(usable, 30, f"the node {name}")
        return name

    def drop_node(self, name: str) -> None:
        """The node is deleted."""
        self.fleet.request("DELETE", f"/api/v1/nodes/{name}")
        self.nodes.remove(name)

    def cordon(self, name: str, cordoned: bool = True) -> None:
        """Nothing new may go to the node, or may again."""
        self.fleet.request("PATCH", f"/api/v1/nodes/{name}", {"spec": {"unschedulable": cordoned}})

    # ---- agents ----------------------------------------------------------------------------------------------

    def report(self, name: str, *gpus: Manifest, summary: str = "") -> None:
        """What the agent of the node says of its GPUs: see `gpu`. The first report starts the agent's Pod."""
        if self.fleet.cluster.get("pod", f"agent-{name}", self.name) is None:
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"agent-{name}", "labels": AGENTS},
                "spec": {"nodeName": name, "containers": [{"name": "agent", "image": "agent"}]},
            }
            self.fleet.request("POST", f"/api/v1/namespaces/{self.name}/pods", pod)
        path = f"/apis/berth.dev/v1alpha1/gpunodes/{name}"
        eventually(lambda: self.fleet.api.request("GET", path)[0] == 200, 30, f"the GPUNode {name}")
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        used = sum(one["memory"]["usedMiB"] for one in gpus) / 1024
        total = sum(one["memory"]["totalMiB"] for one in gpus) / 1024
        status = {
            "observedGeneration": 1,
            "lastWrittenAt": now,
            "gpus": [{"uuid": f"{name}-{number}", **one} for number, one in enumerate(gpus)],
            "summary": {"gpus": str(len(gpus)), "memory": f"{used:.1f}/{total:.1f} GiB", "health": "Healthy"},
        }
        self.fleet.request("PATCH", f"{path}/status", {"status": status})

    # ---- Models ----------------------------------------------------------------------------------------------

    def model(
        self, name: str, gpus: int = 1, *, priority: int = 100, by_hand: bool = False, node: str = "", **spec: Any
    ) -> Manifest:
        """A Model whose servers need so many GPUs, of this node if one is named.

        Further arguments replace fields of its spec, or of its `gpus`.
        """
        wanted = {"count": gpus, "memory": "20000Mi"}
        wanted |= {key: spec.pop(key) for key in ("memory", "resource", "sharing", "nodes") if key in spec}
        selector = {POOL: self.name, **({"kubernetes.io/hostname": node} if node else {})}
        template: Manifest = {"spec": {"nodeSelector": selector}}
        if by_hand:
            template["metadata"] = {"annotations": {PLAYED_BY_HAND: "custom"}}
        base: Manifest = {
            "backend": "custom",
            "gpus": {key: value for key, value in wanted.items() if value is not None},
            "serving": {"image": "registry.invalid/server:1"},
            "custom": {"port": 9000},
            "priority": priority,
            "podTemplate": template,
        }
        return model(name, **{**base, **spec})

    def apply(self, *manifests: Manifest) -> None:
        """Make Models, in this order."""
        for manifest in manifests:
            self.fleet.request("POST", f"/apis/berth.dev/v1alpha1/namespaces/{self.name}/models", manifest)

    def patch(self, name: str, spec: Manifest) -> None:
        """Change some fields of the spec of a Model."""
        self.fleet.request("PATCH", f"/apis/berth.dev/v1alpha1/namespaces/{self.name}/models/{name}", {"spec": spec})

    def scale(self, name: str, replicas: int) -> None:
        """What `kubectl scale` does."""
        self.fleet.cluster.kubectl("-n", self.name, "scale", "models.berth.dev", name, f"--replicas={replicas}")

    def delete(self, *names: str) -> None:
        """Delete Models."""
        for name in names:
            self.fleet.request("DELETE", f"/apis/berth.dev/v1alpha1/namespaces/{self.name}/models/{name}")

    def statuses(self) -> dict[str, Manifest]:
        """The status of every Model by its name."""
        found = self.fleet.cluster.list("models", self.name)
        return {one["metadata"]["name"]: one["status"] for one in found}

    def status(self, name: str) -> Manifest:
        """The status of a Model."""
        found = self.fleet.cluster.get("model", name, self.name)
        assert found is not None, f"no model {name}"
        status: Manifest = found["status"]
        assert status["observedGeneration"] == found["metadata"]["generation"], f"not seen yet: {status}"
        return status

    def wait(self, name: str, phase: str, reason: str = "", timeout: float = 40) -> Manifest:
        """The status of a Model once it is in this phase, and waits in the queue for this reason if one is given."""

        def reached() -> Manifest:
            status = self.status(name)
            assert status["phase"] == phase, status
            assert not reason or (status.get("queue") or {}).get("reason") == reason, status
            return status

        return eventually(reached, timeout, f"{name} {phase} {reason}")

    def phases(self) -> dict[str, set[str]]:
        """Names of Models by phase."""
        phases: dict[str, set[str]] = {}
        for name, status in self.statuses().items():
            phases.setdefault(status.get("phase", ""), set()).add(name)
        return phases

    def stays_queued(self, name: str, seconds: float) -> None:
        """It is no nearer to a Pod for so long."""
        stays(lambda: (self.status(name)["phase"], len(self.pods(name))), seconds)

    def objects(self, name: str) -> list[str]:
        """Kinds of the objects of a Model that are there, itself included."""
        kinds = ("model", *KINDS)
        return [kind for kind in kinds if self.fleet.cluster.get(kind, name, self.name) is not None]

    def closed(self, name: str) -> bool:
        """Whether the Service of a Model sends nothing anywhere."""
        service = self.fleet.cluster.get("service", name, self.name)
        assert service is not None
        return CLOSED_LABEL in service["spec"]["selector"]

    def events(self, name: str) -> set[str]:
        """Reasons of the Events about a Model."""
        found = self.fleet.request("GET", f"/apis/events.k8s.io/v1/namespaces/{self.name}/events")["items"]
        return {one["reason"] for one in found if one["regarding"].get("name") == name}

    def versions(self) -> dict[tuple[str, str], str]:
        """resourceVersion of every Model, child and Pod."""
        pods = self.fleet.cluster.list("pod", self.name)
        found = {("pod", one["metadata"]["name"]): one["metadata"]["resourceVersion"] for one in pods}
        return {**versions(self.fleet.cluster, self.name), **found}

    def made_at(self) -> dict[str, str]:
        """When each Model was made."""
        found = self.fleet.cluster.list("models", self.name)
        return {one["metadata"]["name"]: one["metadata"]["creationTimestamp"] for one in found}

    # ---- Pods ------------------------------------------------------------------------------------------------

    def pods(self, name: str) -> list[Manifest]:
        """The Pods of a Model, oldest first, those being deleted included."""
        found = self.fleet.cluster.list("pod", self.name, f"{MODEL_LABEL}={name}")
        return sorted(found, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def pod(self, name: str) -> Manifest:
        """The one Pod of a Model, once it has exactly one and that is bound."""

        def bound() -> Manifest:
            (pod,) = self.pods(name)
            assert pod["spec"].get("nodeName"), pod["status"]
            return pod

        return eventually(lambda: _try(bound), 30, f"a Pod of {name} with a node")

    def foreign_pod(self, name: str, gpus: int = 1, node: str = "", **spec: Any) -> None:
        """A Pod of somebody else's."""
        limits = {"resources": {"limits": {GPU: str(gpus)}}}
        body = {
            "metadata": {"name": name},
            "spec": {
                "containers": [{"name": "a", "image": "a", **limits}],
                "nodeSelector": {POOL: self.name},
                **({"nodeName": node} if node else {}),
                **spec,
            },
        }
        self.fleet.request("POST", f"/api/v1/namespaces/{self.name}/pods", body)

    @contextmanager
    def priority_class(self, value: int) -> Iterator[str]:
        """The name of a PriorityClass that exists for as long."""
        path = "/apis/scheduling.k8s.io/v1/priorityclasses"
        self.fleet.request("POST", path, {"metadata": {"name": self.name}, "value": value})
        try:
            yield self.name
        finally:
            self.fleet.request("DELETE", f"{path}/{self.name}")

    def drop_pod(self, name: str) -> None:
        """A Pod is gone at once: its kubelet says so."""
        body = {"gracePeriodSeconds": 0}
        self.fleet.request("DELETE", f"/api/v1/namespaces/{self.name}/pods/{name}", body)

    def serve(self, pod: Manifest) -> None:
        """The server of a Pod that is played by hand is ready."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        server = {"name": "server", "ready": True, "started": True, "restartCount": 0, "image": "a", "imageID": "a"}
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        status = {
            "phase": "Running",
            "conditions": conditions,
            "containerStatuses": [{**server, "state": {"running": {"startedAt": now}}}],
        }
        path = f"/api/v1/namespaces/{self.name}/pods/{pod['metadata']['name']}/status"
        self.fleet.request("PATCH", path, {"status": status})

    # ---- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Everything is removed; the next test finds the nodes of others only."""
        self.fleet.cluster.kubectl("-n", self.name, "delete", "models.berth.dev", "--all", "--wait=false")

        def gone() -> bool:
            pods = self.fleet.cluster.list("pod", self.name)
            for pod in pods:
                if "deletionTimestamp" in pod["metadata"] or MODEL_LABEL not in pod["metadata"].get("labels", {}):
                    self.fleet.api.request(
                        "DELETE",
                        f"/api/v1/namespaces/{self.name}/pods/{pod['metadata']['name']}",
                        {"gracePeriodSeconds": 0},
                    )
            return not pods

        eventually(gone, 60, f"no Pods in {self.name}")
        for name in list(self.nodes):
            self.drop_node(name)
        self.fleet.cluster.kubectl("delete", "namespace", self.name, "--wait=false")


def gpu(used: int = 0, *, foreign: int = 0, total: int = TOTAL, pods: Iterable[tuple[Manifest, int]] = ()) -> Manifest:
    """A GPU as an agent reports it: `pods` use so many MiB of it and hold it; `used` is of Pods that are gone."""
    holders, processes = [], []
    for number, (pod, mib) in enumerate(pods):
        where = {"namespace": pod["metadata"]["namespace"], "pod": pod["metadata"]["name"]}
        holders.append({**where, "container": "server"})
        processes.append(
            {"pid": number + 1, "command": "server", "memoryMiB": mib, "podUid": pod["metadata"]["uid"], **where}
        )
    if used:
        processes.append({"pid": 100, "command": "server", "memoryMiB": used, "podUid": f"gone-{used}"})
    if foreign:
        processes.append({"pid": 200, "command": "ollama", "memoryMiB": foreign, "foreign": True})
    return {
        "product": PRODUCT,
        "memory": {"totalMiB": total, "usedMiB": sum(one["memoryMiB"] for one in processes), "reservedMiB": 0},
        "health": {"healthy": True},
        "foreignMiB": foreign,
        "holders": holders,
        "processes": processes,
    }


def _try(look: Callable[[], Manifest]) -> Manifest:
    """Too many or too few are not yet the right number."""
    try:
        return look()
    except ValueError as error:
        raise AssertionError(str(error)) from None
