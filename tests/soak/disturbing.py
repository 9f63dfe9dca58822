"""What happens to a Model under load: gently, as people and nodes do it, and by deliberate kills."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from berth.planning.names import MODEL_LABEL
from soak.judging import Window
from soak.processes import ClusterProcesses
from support.kube import Cluster, eventually
from support.models import Manifest, Served, patch, pods, wait_for_phase

PATIENCE = 180.0
"""Seconds for anything to be as it was; machines are shared."""


@dataclass
class Target:
    """The Model that is disturbed, and what is known of it."""

    served: Served
    name: str
    processes: ClusterProcesses
    cycle: int = 0
    kills: list[Window] = field(default_factory=list)
    """Of this cycle, those that servers fell victim to."""

    def pods(self) -> list[Manifest]:
        """Its Pods, those being deleted included."""
        return pods(self.served.cluster, self.served.namespace, self.name)

    def living(self) -> list[Manifest]:
        """Its Pods that are not being deleted, in a fixed order."""
        return sorted(
            (pod for pod in self.pods() if "deletionTimestamp" not in pod["metadata"]),
            key=lambda pod: pod["metadata"]["name"],
        )

    def wait_until_ready(self) -> None:
        """Until it is Ready, and each of its Pods is."""
        wait_for_phase(self.served.cluster, self.served.namespace, self.name, "Ready", PATIENCE)
        eventually(lambda: all(map(_is_ready, self.pods())), PATIENCE, f"{self.name} without Pods that come or go")
        wait_for_phase(self.served.cluster, self.served.namespace, self.name, "Ready", PATIENCE)

    def wait_until_gone(self, uid: str) -> None:
        """Until a Pod is gone."""
        there = lambda: {pod["metadata"]["uid"] for pod in self.pods()}  # noqa: E731
        eventually(lambda: uid not in there(), PATIENCE, f"the end of Pod {uid}")


def _is_ready(pod: Manifest) -> bool:
    conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}
    return "deletionTimestamp" not in pod["metadata"] and conditions.get("Ready") == "True"


# ---- gently ----------------------------------------------------------------------------------------------------


def nothing(target: Target) -> None:
    """The stop alone."""


def roll_out(target: Target) -> None:
    """Another template: all servers are replaced beside those that answer."""
    old = [pod["metadata"]["uid"] for pod in target.living()]
    change = {"spec": {"serving": {"env": [{"name": "CYCLE", "value": str(target.cycle)}]}}}
    patch(target.served.cluster, target.served.namespace, target.name, change)
    for uid in old:
        target.wait_until_gone(uid)
    target.wait_until_ready()


def evict(target: Target) -> None:
    """The Eviction API, as node drains and autoscalers use it."""
    pod = target.living()[0]["metadata"]
    namespace = target.served.namespace
    identity = {"name": pod["name"], "namespace": namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": identity}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod['name']}/eviction"
    target.served.cluster.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))
    target.wait_until_gone(pod["uid"])
    target.wait_until_ready()


def drain_the_node(target: Target) -> None:
    """`kubectl drain` of the only node, and `kubectl uncordon` once nothing but the budget holds the last server."""
    cluster = target.served.cluster
    old = {pod["metadata"]["uid"] for pod in target.living()}
    node = target.living()[0]["spec"]["nodeName"]
    draining = start_drain(cluster, target.name, node)
    try:
        left = lambda: old & {pod["metadata"]["uid"] for pod in target.pods()}  # noqa: E731
        eventually(lambda: len(left()) < len(old), PATIENCE, "the end of one server")
        assert draining.poll() is None, "the drain took the last server that answers"
        assert any(_is_ready(pod) for pod in target.living())
        cluster.kubectl("uncordon", node)
        eventually(lambda: draining.poll() is not None, PATIENCE, "the end of the drain")
        assert draining.returncode == 0, draining.communicate()[0]
    finally:
        end_drain(cluster, node, draining)
    target.wait_until_ready()


def start_drain(cluster: Cluster, name: str, node: str) -> subprocess.Popen[str]:
    """`kubectl drain` of a node, of the Pods of this Model only, in the background."""
    return subprocess.Popen(
        [
            *(str(cluster.kubectl_path), "--kubeconfig", str(cluster.kubeconfig), "drain", node),
            *(f"--pod-selector={MODEL_LABEL}={name}", "--delete-emptydir-data", f"--timeout={PATIENCE:.0f}s"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end_drain(cluster: Cluster, node: str, draining: subprocess.Popen[str]) -> None:
    """The node takes Pods again, whatever became of the drain."""
    cluster.kubectl("uncordon", node)
    if draining.poll() is None:
        draining.kill()
    draining.communicate()


GENTLE: tuple[Callable[[Target], None], ...] = (nothing, roll_out, evict, drain_the_node)


# ---- by kills --------------------------------------------------------------------------------------------------


def kill_operator(target: Target) -> None:
    """kill -9 of the operator, and another one."""
    target.served.operator.kill()
    target.served.operator.start(wait_until_leading=False)


def kill_runtime(target: Target) -> None:
    """kill -9 of containerd; no container ends with it."""
    target.processes.kill_containerd()
    target.processes.repair()


def kill_server(target: Target) -> None:
    """kill -9 of a server process, which takes its requests with it."""
    _kill_one(target, target.processes.kill_server)


def kill_shim(target: Target) -> None:
    """kill -9 of a containerd-shim, which takes the server with it."""
    _kill_one(target, target.processes.kill_shim)


def _kill_one(target: Target, kill: Callable[[str], None]) -> None:
    victim = target.living()[0]
    uid, killed = victim["metadata"]["uid"], time.time()
    before = _server_container(victim)
    kill(uid)

    def another() -> bool:
        found = [pod for pod in target.pods() if pod["metadata"]["uid"] == uid]
        return not found or _server_container(found[0]) not in ("", before)

    eventually(another, PATIENCE, "another server")
    target.wait_until_ready()
    target.kills.append(Window(killed - 1, time.time() + 1))


def _server_container(pod: Manifest) -> str:
    statuses = pod["status"].get("containerStatuses", ())
    found: str = next((one.get("containerID", "") for one in statuses if one["name"] == "server"), "")
    return found


KILLS: tuple[Callable[[Target], None], ...] = (kill_operator, kill_runtime, kill_server, kill_shim)
EXCUSED = (kill_server, kill_shim)
"""Kills that take requests with them."""
