"""Models and ModelCaches in every phase that Berth can bring them into, on a control plane without nodes.

The manifests are applied as a GitOps tool would; what kubelets would report is written into the Pods.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from support.caches import cache
from support.kube import Cluster, eventually
from support.models import Manifest, custom, model, pods, pretend_ready, wait_for_phase

TEMPLATE = {
    "metadata": {"labels": {"team": "a"}},
    "spec": {
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "containers": [{"name": "server", "env": [{"name": "EMPTY", "value": ""}]}],
    },
}
Apply = Callable[[Manifest], None]


@dataclass
class Stage:
    """A namespace with an operator, and how manifests get there."""

    cluster: Cluster
    namespace: str
    apply: Apply
    reached: dict[str, Manifest] = field(default_factory=dict)
    """The objects as they were in the phase, by the name of their case."""
    declared: dict[str, Manifest] = field(default_factory=dict)
    """What Git says of them at the end."""

    def declare(self, manifest: Manifest) -> None:
        """Apply a manifest, the next one of its name replaces it."""
        self.declared[manifest["metadata"]["name"]] = manifest
        self.apply(manifest)

    def keep(self, name: str, phase: str, reason: str) -> None:
        """Remember the object once it is in the phase, and Ready has the reason: one that stays."""
        kind = self.declared[name]["kind"].lower()

        def there() -> Manifest:
            found = self.cluster.get(kind, name, self.namespace)
            assert found is not None, f"no {kind} {name}"
            status = found["status"]
            assert status["observedGeneration"] == found["metadata"]["generation"], "not seen yet"
            why = next(c["reason"] for c in status["conditions"] if c["type"] == "Ready")
            assert (status["phase"], why) == (phase, reason), (status["phase"], why)
            return found

        self.reached[name] = eventually(there, 40, f"{name} {phase} {reason}")

    def pods_of(self, name: str, count: int = 1) -> list[Manifest]:
        """The Pods of a Model, once there are so many."""

        def enough() -> list[Manifest]:
            found = pods(self.cluster, self.namespace, name)
            return found if len(found) == count else []

        return eventually(enough, 20, f"{count} Pods of {name}")

    def bind(self, pod: Manifest) -> None:
        """Give the Pod a node, as the scheduler does. There is none of that name, so it is deleted after a minute."""
        name = pod["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": "gpu-node-1"}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/binding"
        self.cluster.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(body))

    def report(self, pod: Manifest, state: Mapping[str, Any], *, ready: bool = False) -> None:
        """What a kubelet would say of the server's container."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        server = {"name": "server", "ready": ready, "started": ready, "restartCount": 0, "state": state}
        server |= {"image": "none", "imageID": "none"}
        conditions = [
            {"type": "PodScheduled", "status": "True", "reason": None, "message": None, "lastTransitionTime": now},
            {"type": "Ready", "status": str(ready), "lastTransitionTime": now},
        ]
        status = {"phase": "Running", "conditions": conditions, "containerStatuses": [server]}
        self.cluster.kubectl(
            *("-n", self.namespace, "patch", "pod", pod["metadata"]["name"], "--subresource=status"),
            *("--type=strategic", "-p", json.dumps({"status": status})),
        )

    def running(self, pod: Manifest, *, ready: bool) -> None:
        """A server process that runs, and answers or not."""
        self.report(pod, {"running": {"startedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}}, ready=ready)


def every_phase(stage: Stage) -> None:
    """Bring a Model and a ModelCache into each phase; `stage.reached` has them afterwards."""
    _at_rest(stage)
    _on_the_way(stage)
    _in_service(stage)
    _given_up(stage)
    _caches(stage)


def _at_rest(stage: Stage) -> None:
    """Stopped, each for another reason."""
    stage.declare(custom("stopped", state="Stopped"))
    stage.declare(custom("scaled-to-zero", replicas=0))
    stage.declare(custom("asleep", state="OnDemand", idle={"after": "15m"}))
    stage.declare(custom("stopped-on-demand", state="Stopped", idle={"after": "15m"}))
    stage.keep("stopped", "Stopped", "StoppedByUser")
    stage.keep("scaled-to-zero", "Stopped", "ScaledToZero")
    stage.keep("asleep", "Stopped", "Idle")
    stage.keep("stopped-on-demand", "Stopped", "StoppedByUser")


def _on_the_way(stage: Stage) -> None:
    """Not there yet. The notations are as people write them, which the API server keeps."""
    odd = {"cpu": "1000m", "memory": "1024Mi"}
    stage.declare(custom("pending", limits=odd, requests={"cpu": "0.5", "memory": "1000M"}, podTemplate=TEMPLATE))
    stage.declare(cache("busy", artifacts=[{"uri": "hf://Qwen/Qwen3-8B"}]))
    weights = {"uri": "hf://Qwen/Qwen3-8B", "cache": "busy"}
    stage.declare(model("provisioning", backend="vllm", source=weights, limits={"memory": "48Gi"}))
    stage.declare(custom("loading"))
    (pod,) = stage.pods_of("loading")
    stage.bind(pod)
    stage.running(pod, ready=False)
    stage.keep("loading", "Loading", "LoadingWeights")
    stage.keep("pending", "Pending", "Unschedulable")
    stage.keep("provisioning", "Provisioning", "Unschedulable")


def _in_service(stage: Stage) -> None:
    """Servers answer, or did."""
    cluster, namespace = stage.cluster, stage.namespace
    for name, replicas in (("ready", 1), ("degraded", 2), ("updating", 2), ("draining", 1)):
        stage.declare(custom(name, replicas=replicas))
    for name, replicas in (("ready", 1), ("degraded", 2), ("updating", 2), ("draining", 1)):
        found = stage.pods_of(name, replicas)
        if name == "draining":
            stage.bind(found[0])  # a Pod without a node would be gone at once
        pretend_ready(cluster, namespace, name)
        wait_for_phase(cluster, namespace, name, "Ready")
    stage.keep("ready", "Ready", "Serving")
    for pod in stage.pods_of("degraded", 2):
        stage.bind(pod)
    stage.running(pod, ready=False)
    stage.keep("degraded", "Degraded", "LoadingWeights")
    stage.declare(custom("updating", "registry.invalid/server:2", replicas=2))
    stage.keep("updating", "Updating", "Unschedulable")
    stage.declare(custom("draining", state="Stopped"))
    stage.keep("draining", "Draining", "StoppedByUser")


def _given_up(stage: Stage) -> None:
    """A person has to do something."""
    stage.declare(custom("failed"))
    stage.declare(custom("stuck"))
    stage.pods_of("stuck")
    pretend_ready(stage.cluster, stage.namespace, "stuck")
    wait_for_phase(stage.cluster, stage.namespace, "stuck", "Ready")
    stage.declare(custom("stuck", "registry.invalid/server:nosuch"))
    stage.declare(custom("refused", podTemplate={"spec": {"hostNetwork": True}}))
    (pod,) = stage.pods_of("failed")
    newer = next(p for p in stage.pods_of("stuck", 2) if p["spec"]["containers"][0]["image"].endswith("nosuch"))
    for waiting in (pod, newer):
        stage.bind(waiting)
        words = "Back-off pulling image: manifest unknown"
        stage.report(waiting, {"waiting": {"reason": "ImagePullBackOff", "message": words}})
    stage.keep("failed", "Failed", "ImagePullFailed")
    stage.keep("stuck", "Failed", "RolloutFailed")
    stage.keep("refused", "Failed", "InvalidSpec")


def _caches(stage: Stage) -> None:
    """ModelCaches in each of their phases."""
    stage.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "for-one-pod"},
            "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}},
        },
        namespace=stage.namespace,
    )
    stage.declare(cache("empty"))
    stage.declare(cache("without-claim", storage={"claim": "missing"}))
    stage.declare(cache("unusable", storage={"claim": "for-one-pod"}))
    stage.keep("busy", "Provisioning", "Unschedulable")
    stage.keep("empty", "Ready", "AsDeclared")
    stage.keep("without-claim", "Pending", "ClaimNotFound")
    stage.keep("unusable", "Failed", "AccessModeUnsupported")
