"""Several Models with GPUs in memory: the operator's real parts, and Kubernetes as far as the queue can tell.

The parts are `decide`, the store and the capacity planner; each of their steps may be cut off after any write, and
another process take over. The watch lags, but for what the operator wrote itself. What must never be is asserted where
it would happen. No stand-in for the API server: tests/integration has the real one.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import orjson

from berth.controllers.store import Key, Store
from berth.planning import names
from berth.planning.capacity.planner import Planner
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.step import heard
from berth.planning.model_plan import decide
from berth.planning.plan import Apply, Delete, Plan, PodPatch
from berth.planning.policy import Policy
from berth.planning.render_settings import RenderSettings
from berth.planning.times import format_time
from berth.planning.world import ModelWorld
from support import builders
from support.builders import NAMESPACE, NOW
from support.simulation import ConflictError, ready

Manifest = dict[str, Any]
GPU = "nvidia.com/gpu"
POLICY = Policy(render=RenderSettings(gated=True))
_Where = tuple[str, str]


class CutOffError(Exception):
    """The process has ended in the middle of something."""


class QueueSimulation:
    """A cluster with nodes of some GPUs; whatever is random is drawn from one seed."""

    def __init__(self, seed: int = 0, nodes: tuple[int, ...] = (2, 1), capacity: CapacityPolicy | None = None) -> None:
        self.chance = random.Random(seed)
        self.capacity = capacity or CapacityPolicy()
        self.now: datetime = NOW
        self.version = 0
        self.writes = 0
        self.objects: dict[_Where, Manifest] = {}
        self.news: list[Callable[[], object]] = []
        """What the watch has not brought yet."""
        self.left: int | None = None
        """Writes until the process ends; None: it does not."""
        self.asked: set[str] = set()
        """Models that were asked to be looked at again."""
        self._made = 0
        self.undisturbed = True
        """Whether all that the operator was told about nodes was true ever since."""
        self.restart()
        for number, gpus in enumerate(nodes):
            self.add_node(f"node-{number}", gpus)
        self.deliver()

    # ---- the API server --------------------------------------------------------------------------------------

    def keep(self, manifest: Manifest, *, own: bool = False) -> Manifest:
        """Store an object; the operator hears of it now, if it wrote that itself, or later."""
        self.version += 1
        stored: Manifest = orjson.loads(orjson.dumps(manifest))
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[stored["kind"], stored["metadata"]["name"]] = stored
        if own:
            self.hear(lambda: self.store.observe(stored))
        else:
            self.news.append(lambda: self.store.observe(stored))
        return stored

    def drop(self, kind: str, name: str) -> None:
        """An object is gone."""
        metadata = self.objects.pop((kind, name))["metadata"]
        self.version += 1
        version, namespace = str(self.version), metadata.get("namespace", "")
        self.news.append(lambda: self.store.forget(kind, namespace, name, metadata["uid"], version))

    def hear(self, news: Callable[[], Any]) -> None:
        """The operator takes something in."""
        for key in news() or ():
            if key.kind == "Model":
                self.asked.add(key.name)

    def deliver(self, number: int | None = None) -> None:
        """The watch brings so many pieces of news, or all."""
        for _ in range(len(self.news) if number is None else min(number, len(self.news))):
            self.hear(self.news.pop(0))

    def of_kind(self, kind: str) -> Iterator[Manifest]:
        """The objects of a kind, oldest first."""
        yield from [manifest for (one, _), manifest in self.objects.items() if one == kind]

    def pods_of(self, name: str) -> list[Manifest]:
        """The Pods of a Model, those that are ending included."""
        return [pod for pod in self.of_kind("Pod") if pod["metadata"]["labels"].get(names.MODEL_LABEL) == name]

    def status(self, name: str) -> Manifest:
        """The status of a Model."""
        status: Manifest = self.objects["Model", name]["status"]
        return status

    # ---- people ----------------------------------------------------------------------------------------------

    def add_node(self, name: str, gpus: int) -> None:
        """A node appears."""
        node = builders.node(name, gpus=gpus)
        node["metadata"]["labels"] = {**(node["metadata"].get("labels") or {}), "kubernetes.io/hostname": name}
        node["metadata"]["creationTimestamp"] = format_time(self.now)
        node["status"] = {**(node.get("status") or {}), "allocatable": {GPU: str(gpus)}}
        self.keep(node)

    def add_model(self, name: str, gpus: int = 1, **spec: Any) -> None:
        """A Model appears."""
        spec = {"gpus": {"count": gpus, "memory": "10Gi"}, "priority": 100, **spec}
        self.keep(
            builders.model(
                name, spec=builders.spec(**spec), uid=f"model-{name}", creationTimestamp=format_time(self.now)
            )
        )

    def edit(self, name: str, **spec: Any) -> None:
        """The spec of a Model changes."""
        model = orjson.loads(orjson.dumps(self.objects["Model", name]))
        model["spec"] |= spec
        model["metadata"]["generation"] += 1
        self.keep(model)

    def delete(self, name: str) -> None:
        """A Model is deleted, and the garbage collector has been there."""
        for kind in ("Model", "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"):
            if (kind, name) in self.objects:
                self.drop(kind, name)
        for pod in self.pods_of(name):
            self.end(pod)

    # ---- the operator ----------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Another process takes over: it knows what is stored, and nothing else."""
        self.store, self.planner, self.left = Store(), Planner(), None
        self.news.clear()
        self.asked = set()
        for manifest in self.objects.values():
            self.store.observe(manifest)
        self.asked = {name for kind, name in self.objects if kind == "Model"}
        self.store.capacity.expect(self.store.all_keys())

    def plan_capacity(self) -> None:
        """The capacity worker plans once, if it may already."""
        if not self.store.capacity.complete.is_set():
            return
        plan = self.planner.plan(self.store.capacity.world(self.now), self.now, self.capacity)
        self.asked.update(key.name for key in self.store.capacity.decide(plan, self.now))

    def reconcile(self, name: str) -> None:
        """A worker looks at one Model, and carries out what it planned, as far as it gets."""
        key = Key("Model", NAMESPACE, name)
        self.asked.discard(name)
        world = self.store.gather(key)
        if world is None:
            return
        assert isinstance(world, ModelWorld)
        plan = decide(world, self.now, POLICY)
        self.check_outdated(world, plan)
        self.store.capacity.ask(key, plan.demand, plan.template_hash)
        try:
            self._carry_out(key, plan)
        except ConflictError:
            self.asked.add(name)
        except CutOffError:
            self.restart()
        else:
            if plan.look_again is not None and plan.look_again <= 0:
                self.asked.add(name)

    def _carry_out(self, key: Key, plan: Plan) -> None:
        """In the order of carry_out.Executor."""
        for patch in plan.marks:
            self._patch(patch)
        for change in plan.changes:
            if isinstance(change, Apply):
                self._apply(change)
        for change in plan.changes:
            if isinstance(change, Delete):
                self._counted()
                if (change.kind, change.name) in self.objects:
                    self.drop(change.kind, change.name)
        for patch in plan.tells:
            self.check_told(key.name, patch)
            self._patch(patch)
            self.store.capacity.told(key)
        if plan.status is not None:
            self._counted()
            model = self.objects.get(("Model", key.name))
            if model is None:
                raise ConflictError(key)
            self.keep({**model, "status": dict(plan.status)}, own=True)
            self.store.memories.status_written(key, self.now)

    def _counted(self) -> None:
        if self.left is not None:
            if self.left <= 0:
                raise CutOffError
            self.left -= 1
        self.writes += 1

    def _apply(self, change: Apply) -> None:
        self._counted()
        manifest = change.manifest
        where = manifest["kind"], manifest["metadata"]["name"]
        stored = self.objects.get(where)
        given = manifest["metadata"].get("resourceVersion")
        if given is not None and (stored is None or given != stored["metadata"]["resourceVersion"]):
            raise ConflictError(where)
        identity = builders.metadata(*where, 0, None, creationTimestamp=format_time(self.now))
        metadata = {**(stored["metadata"] if stored else identity), **manifest["metadata"]}
        self.keep({**manifest, "metadata": metadata}, own=True)
        if ("Model", where[1]) not in self.objects:
            self.drop(*where)  # so does the garbage collector

    def _patch(self, patch: PodPatch) -> None:
        self._counted()
        pod = self.objects.get(("Pod", patch.name))
        if pod is None or pod["metadata"]["uid"] != patch.uid:
            return
        if pod["metadata"]["resourceVersion"] != patch.resource_version:
            raise ConflictError(patch.name)
        self.keep(_merged(pod, patch.body), own=True)

    # ---- what must never be ----------------------------------------------------------------------------------

    def check_outdated(self, world: ModelWorld, plan: Plan) -> None:
        """Without a decision about just what the Model asks for now, nothing is raised and no template applied."""
        if plan.demand is None or heard(world.decision, plan.demand) is not None:
            return
        assert not plan.tells
        before = world.child("Deployment")
        for change in plan.changes:
            if isinstance(change, Apply) and change.manifest["kind"] == "Deployment":
                assert before is not None, "a Deployment is made of nothing that was decided"
                old, new = before.manifest()["spec"], change.manifest["spec"]
                assert new["replicas"] <= old["replicas"], "replicas are raised without a decision"
                same = new["template"]["metadata"]["labels"] == old["template"]["metadata"]["labels"]
                assert same or not new["replicas"], "a template is applied without a decision"

    def check_told(self, name: str, patch: PodPatch) -> None:
        """Nodes are stored before a Pod is told them, and have room, wherever those go that were told before."""
        note = orjson.loads(patch.body["metadata"]["annotations"][names.CAPACITY_ANNOTATION])
        if ("Deployment", name) not in self.objects:
            return  # its Model was deleted, which the operator does not know yet
        annotations = self.objects["Deployment", name]["metadata"]["annotations"]
        stored = orjson.loads(annotations[names.CAPACITY_ANNOTATION])
        if note.get("beyond"):
            assert stored.get("beyond"), "told to wait for a new node before that was stored"
            return
        assert stored.get("nodes") == note["nodes"], f"told {note['nodes']} and stored {stored}"
        if not self.undisturbed:
            return
        pod = self.objects.get(("Pod", patch.name))
        if pod is None:
            return
        for node in note["nodes"]:
            taken = sum(_gpus(other) for other in self.of_kind("Pod") if self._may_be_on(other, node))
            offered = int(self.objects["Node", node]["status"]["allocatable"][GPU])
            assert taken + _gpus(pod) <= offered, f"{patch.name} is told {node}, where {taken} of {offered} are taken"

    @staticmethod
    def _may_be_on(pod: Manifest, node: str) -> bool:
        if pod["spec"].get("nodeName"):
            return bool(pod["spec"]["nodeName"] == node)
        told = orjson.loads(pod["metadata"].get("annotations", {}).get(names.CAPACITY_ANNOTATION, "{}"))
        return node in told.get("nodes", ())

    def check_nodes(self) -> None:
        """No node gives away more GPUs than it has, and no more Pods load on it than may."""
        held: Counter[str] = Counter()
        loading: Counter[str] = Counter()
        for pod in self.of_kind("Pod"):
            held[pod["spec"].get("nodeName", "")] += _gpus(pod)
            ends = "deletionTimestamp" in pod["metadata"]
            loading[pod["spec"].get("nodeName", "")] += not ends and not ready(pod)
        for node in self.of_kind("Node"):
            name = node["metadata"]["name"]
            assert held[name] <= int(node["status"]["allocatable"][GPU])
            assert loading[name] <= self.capacity.loads_per_node, f"{loading[name]} servers load on {name}"

    def free(self) -> dict[str, int]:
        """GPUs of each node that nobody has."""
        held: Counter[str] = Counter()
        for pod in self.of_kind("Pod"):
            held[pod["spec"].get("nodeName", "")] += _gpus(pod)
        return {
            name: int(node["status"]["allocatable"][GPU]) - held[name]
            for (kind, name), node in self.objects.items()
            if kind == "Node"
        }

    def versions(self) -> dict[_Where, str]:
        """resourceVersion of every object."""
        return {where: one["metadata"]["resourceVersion"] for where, one in self.objects.items()}

    # ---- everybody else --------------------------------------------------------------------------------------

    def controllers(self) -> int:
        """One step of the Deployment controller for each Model; how many did something."""
        return sum(self._roll_out(deployment) for deployment in self.of_kind("Deployment"))

    def _roll_out(self, deployment: Manifest) -> bool:
        spec, name = deployment["spec"], deployment["metadata"]["name"]
        mark = spec["template"]["metadata"]["labels"][names.TEMPLATE_HASH_LABEL]
        here = [pod for pod in self.pods_of(name) if "deletionTimestamp" not in pod["metadata"]]
        new = [pod for pod in here if pod["metadata"]["labels"][names.TEMPLATE_HASH_LABEL] == mark]
        old = [pod for pod in here if pod not in new]
        limits, wanted = spec["strategy"]["rollingUpdate"], spec["replicas"]
        serving = sum(map(ready, here))
        if len(new) > wanted or (not wanted and here):
            return self.end(min(new or old, key=_order_of_end))
        if old and (not ready(old[-1]) or serving > wanted - limits["maxUnavailable"]):
            return self.end(old[-1])
        if len(new) < wanted and len(here) < wanted + limits["maxSurge"]:
            self._make_pod(name, spec["template"])
            return True
        return False

    def _make_pod(self, name: str, template: Manifest) -> None:
        self._made += 1
        pod = builders.pod(f"{name}-{self._made}", model=name)
        metadata = {
            **pod["metadata"],
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"].get("annotations") or {},
            "creationTimestamp": format_time(self.now),
        }
        spec = orjson.loads(orjson.dumps(template["spec"]))
        for container in spec["containers"]:  # what the API server fills in
            resources = container.get("resources") or {}
            container["resources"] = {**resources, "requests": {**resources["limits"], **resources.get("requests", {})}}
        self.keep({**pod, "metadata": metadata, "spec": spec, "status": _status("Pending", self.now)})

    def end(self, pod: Manifest) -> bool:
        """A Pod is deleted: one without a node is gone at once."""
        if not pod["spec"].get("nodeName"):
            self.drop("Pod", pod["metadata"]["name"])
        elif "deletionTimestamp" not in pod["metadata"]:
            over = format_time(self.now + timedelta(seconds=30))
            self.keep({**pod, "metadata": {**pod["metadata"], "deletionTimestamp": over}})
        return True

    def schedule(self, pod: Manifest) -> bool:
        """The scheduler and the kubelet look at one Pod."""
        name, spec, meta = pod["metadata"]["name"], pod["spec"], pod["metadata"]
        if "deletionTimestamp" in meta:
            self.drop("Pod", name)
            return True
        if not spec.get("nodeName"):
            nodes = [] if spec.get("schedulingGates") else [n for n in self.of_kind("Node") if self._takes(n, pod)]
            if not nodes:
                return False
            node = self.chance.choice(nodes)["metadata"]["name"]
            self.keep({**pod, "spec": {**spec, "nodeName": node}, "status": _status("Pending", self.now, node=True)})
        elif not ready(pod):
            self.keep({**pod, "status": _status("Running", self.now, node=True, ready=True)})
        else:
            return False
        return True

    def _takes(self, node: Manifest, pod: Manifest) -> bool:
        name = node["metadata"]["name"]
        required = (pod["spec"].get("affinity") or {}).get("nodeAffinity", {})
        terms = required.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [{}])
        for requirement in terms[0].get("matchExpressions", ()):
            if (name in requirement["values"]) != (requirement["operator"] == "In"):
                return False
        taken = sum(_gpus(other) for other in self.of_kind("Pod") if other["spec"].get("nodeName") == name)
        return taken + _gpus(pod) <= int(node["status"]["allocatable"][GPU])

    # ---- time ------------------------------------------------------------------------------------------------

    def something_happens(self) -> None:
        """One step of anybody."""
        pods, models = list(self.of_kind("Pod")), [name for kind, name in self.objects if kind == "Model"]
        steps: list[Callable[[], object]] = [
            self.plan_capacity,
            self.controllers,
            lambda: self.deliver(self.chance.randint(1, 4)),
            self.deliver,
            *([lambda: self.reconcile(self.chance.choice(sorted(self.asked)))] * 3 if self.asked else []),
            *([lambda: self.reconcile(self.chance.choice(models))] if models else []),
            *([lambda: self.schedule(self.chance.choice(pods))] * 2 if pods else []),
        ]
        self.chance.choice(steps)()
        self.check_nodes()

    def passes(self, seconds: float) -> None:
        """Time passes."""
        self.now += timedelta(seconds=seconds)

    def settle(self, rounds: int = 300) -> None:
        """Until nothing happens any more by itself, however long one waits."""
        quiet = 0
        for _ in range(rounds):
            before = self.writes
            self.deliver()
            self.plan_capacity()
            for name in sorted(name for kind, name in self.objects if kind == "Model"):
                self.reconcile(name)
            busy = self.controllers() + sum(self.schedule(pod) for pod in list(self.of_kind("Pod")))
            self.check_nodes()
            quiet = 0 if busy or self.writes != before or self.news else quiet + 1
            if quiet > 8:
                return
            self.passes(1 if not quiet else 600 * quiet)
        raise AssertionError(
            f"it never comes to rest: {[self.status(n)['phase'] for k, n in self.objects if k == 'Model']}"
        )


def _gpus(pod: Manifest) -> int:
    resources = (one.get("resources") or {} for one in pod["spec"].get("containers", ()))
    return sum(int((one.get("limits") or {}).get(GPU, 0)) for one in resources)


def _order_of_end(pod: Manifest) -> tuple[bool, bool, bool, int]:
    """The order in which a ReplicaSet ends Pods: not bound, not ready, marked, young."""
    marked = names.DELETION_COST_ANNOTATION in pod["metadata"]["annotations"]
    return bool(pod["spec"].get("nodeName")), ready(pod), not marked, -int(pod["metadata"]["name"].rpartition("-")[2])


def _status(phase: str, now: datetime, *, node: bool = False, ready: bool = False) -> Manifest:
    at = format_time(now)
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": at}]
    if node:
        conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": at})
    status: Manifest = {"phase": phase, "conditions": conditions}
    if ready:
        status["containerStatuses"] = [
            {**builders.container(started=True, ready=True), "state": {"running": {"startedAt": at}}}
        ]
    return status


def _merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result
