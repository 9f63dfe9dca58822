"""A cluster in memory that is small enough to be read: objects, a Deployment controller, a scheduler and a kubelet.

It is no stand-in for the API server (tests/integration has the real one). It shows where decisions lead when they
are carried out, in any order and cut off anywhere.
"""

from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any

import orjson

from berth.controllers.store import Key, Store
from berth.planning import names
from berth.planning.canonical import content_hash
from berth.planning.load_questions import server_name
from berth.planning.load_state import Reading, look
from berth.planning.model_plan import decide
from berth.planning.plan import Apply, Delete, Plan
from berth.planning.policy import Policy
from berth.planning.times import format_time
from berth.planning.world import ModelWorld
from support import builders

Manifest = dict[str, Any]
KEY = Key("Model", builders.NAMESPACE, "m")
REVISION = "pod-template-hash"
"""Label by which a Deployment tells its Pods apart: of the whole template, whatever Berth thinks of it."""
SETTLE = 30.0


class ConflictError(Exception):
    """The write rests on another version than the stored one."""


class Simulation:
    """One Model, and what becomes of it."""

    def __init__(self, policy: Policy | None = None, **spec: Any) -> None:
        self.policy = policy or Policy()
        self.now: datetime = builders.NOW
        self.version = 0
        self.writes = 0
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.pods_made = 0
        self.places: tuple[str, ...] = ("n1",)
        """Names of the nodes, in the order in which the scheduler likes them."""
        self.store = Store()
        self.keep(builders.model(spec=builders.spec(**spec), creationTimestamp=format_time(self.now)))

    # ---- the API server --------------------------------------------------------------------------------------

    def keep(self, manifest: Manifest) -> None:
        """Store an object and tell the operator, as a watch does."""
        self.version += 1
        manifest = orjson.loads(orjson.dumps(manifest))
        manifest["metadata"]["resourceVersion"] = str(self.version)
        self.objects[manifest["kind"], manifest["metadata"]["name"]] = manifest
        self.store.observe(manifest)

    def drop(self, kind: str, name: str) -> None:
        """An object is gone."""
        gone = self.objects.pop((kind, name))
        self.version += 1
        self.store.forget(kind, builders.NAMESPACE, name, gone["metadata"]["uid"], str(self.version))

    @property
    def model(self) -> Manifest:
        """The Model as it is stored."""
        return self.objects["Model", "m"]

    @property
    def status(self) -> Manifest:
        """The status of the Model."""
        found: Manifest = self.model["status"]
        return found

    @property
    def deployment(self) -> Manifest:
        """The Deployment as it is stored."""
        return self.objects["Deployment", "m"]

    def pods(self) -> list[Manifest]:
        """The Pods, oldest first."""
        return [manifest for (kind, _), manifest in self.objects.items() if kind == "Pod"]

    def edit(self, **spec: Any) -> None:
        """The person changes the spec."""
        model = orjson.loads(orjson.dumps(self.model))
        model["spec"] |= spec
        model["metadata"]["generation"] += 1
        self.keep(model)

    def annotate(self, **annotations: str | None) -> None:
        """The person sets annotations of berth.dev, or takes them away."""
        model = orjson.loads(orjson.dumps(self.model))
        given = model["metadata"].get("annotations", {}) | {f"berth.dev/{name}": v for name, v in annotations.items()}
        model["metadata"]["annotations"] = {name: value for name, value in given.items() if value is not None}
        self.keep(model)

    def carry_out(self, change: Apply | Delete) -> None:
        """One write to a child."""
        self.writes += 1
        if isinstance(change, Delete):
            self.drop(change.kind, change.name)
            return
        manifest = change.manifest
        where = manifest["kind"], manifest["metadata"]["name"]
        stored = self.objects.get(where)
        given = manifest["metadata"].get("resourceVersion")
        if given != (stored["metadata"]["resourceVersion"] if stored else None):
            raise ConflictError(where)
        identity = builders.metadata(*where, 0, None, creationTimestamp=format_time(self.now))
        metadata = {**(stored["metadata"] if stored else identity), **manifest["metadata"]}
        self.keep({**manifest, "metadata": metadata})

    def hurry(self, name: str) -> None:
        """Delete a Pod."""
        self.writes += 1
        if ("Pod", name) in self.objects:
            self.end(self.objects["Pod", name])

    def write_status(self, status: Any) -> None:
        """The status, as it comes back from the API server."""
        self.writes += 1
        self.keep({**self.model, "status": dict(status)})
        self.store.memories.status_written(KEY, self.now)

    # ---- the operator ----------------------------------------------------------------------------------------

    def world(self) -> ModelWorld:
        """What the operator knows."""
        world = self.store.gather(KEY)
        assert world is not None
        return world

    def plan(self) -> Plan:
        """What the operator would do now."""
        return decide(self.world(), self.now, self.policy)

    def reconcile(self, cut_off_after: int | None = None) -> Plan:
        """Plan and carry out, at once again where the plan wants that; the process may end after so many writes."""
        plan = self.plan()
        steps = [lambda hurry=hurry: self.hurry(hurry.name) for hurry in plan.hurries]
        steps += [lambda change=change: self.carry_out(change) for change in plan.changes]
        if plan.status is not None:
            steps.append(lambda: self.write_status(plan.status))
        for step in steps[:cut_off_after]:
            step()
        if cut_off_after is not None:
            self.restart()
        elif plan.look_again == 0 and plan.status is None:
            return self.reconcile()
        return plan

    def restart(self) -> None:
        """Another process takes over: it knows what is stored, and nothing else."""
        self.store = Store()
        for manifest in self.objects.values():
            self.store.observe(manifest)

    def look(self, *answers: Reading | None) -> None:
        """Every server is asked for its load; whoever answers nothing in particular is at rest."""
        servers = [server_name(pod) for pod in self.store.servers().get(KEY, ())]
        told = dict(zip_longest(servers, answers[: len(servers)], fillvalue=Reading(0, 0, 0)))
        loads = self.store.memories.loads
        if servers:
            loads[KEY] = look(loads.get(KEY), told, self.status.get("load"), self.now, self.elapsed(), SETTLE)
        else:
            loads.pop(KEY, None)

    # ---- everybody else --------------------------------------------------------------------------------------

    def roll_out(self) -> bool:
        """One step of the Deployment controller; whether it did anything."""
        spec = self.objects.get(("Deployment", "m"), {"spec": None})["spec"]
        if spec is None:
            return False
        template, wanted = spec["template"], spec["replicas"]
        mark = template["metadata"]["labels"][names.TEMPLATE_HASH_LABEL]
        limits = spec["strategy"]["rollingUpdate"]
        living = [pod for pod in self.pods() if pod["status"]["phase"] not in ("Failed", "Succeeded")]
        here = [pod for pod in living if "deletionTimestamp" not in pod["metadata"]]
        revision = content_hash(template)
        marks = {names.TEMPLATE_HASH_LABEL: mark, REVISION: revision}
        new = [pod for pod in here if marks.items() <= {**marks, **pod["metadata"]["labels"]}.items()]
        old = [pod for pod in here if pod not in new]
        if len(new) > wanted:
            return self.end(new[-1])
        if old and (not ready(old[-1]) or sum(map(ready, here)) > wanted - limits["maxUnavailable"]):
            return self.end(old[-1])
        if len(new) < wanted and len(here) < wanted + limits["maxSurge"]:
            self.pods_made += 1
            self.keep(
                builders.pod(
                    f"p{self.pods_made}",
                    template=mark,
                    created=-self.elapsed(),
                    ready_changed=-self.elapsed(),
                    labels={REVISION: revision},
                )
            )
            return True
        return False

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return (self.now - builders.NOW).total_seconds()

    def end(self, pod: Manifest) -> bool:
        """A Pod is told to end."""
        if "deletionTimestamp" not in pod["metadata"]:
            self.keep({**pod, "metadata": {**pod["metadata"], "deletionTimestamp": format_time(self.now)}})
        return True

    def lose(self, pod: Manifest, reason: str = "Evicted") -> None:
        """A kubelet ends a Pod, or does not take it."""
        since = format_time(self.now)
        target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
        others = [c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled"]
        conditions = [
            *others,
            {**target, "lastTransitionTime": since},
            {"type": "Ready", "status": "False", "lastTransitionTime": since},
        ]
        words = {"phase": "Failed", "reason": reason, "message": f"the kubelet says {reason}"}
        self.keep({**pod, "status": {"conditions": conditions, **words}})

    def lose_node(self, name: str) -> None:
        """A node falls silent, and the Pods on it are to be replaced."""
        self.keep(builders.node(name, gpus=8, lost=True))
        since = format_time(self.now)
        target = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
        for pod in self.pods():
            if pod["spec"].get("nodeName") == name:
                conditions = [c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled"]
                conditions.append({"type": "Ready", "status": "False", "lastTransitionTime": since})
                conditions.append({**target, "lastTransitionTime": since})
                self.keep({**pod, "status": {**pod["status"], "conditions": conditions}})
                self.end(self.objects["Pod", pod["metadata"]["name"]])

    def _lost(self, node: str) -> bool:
        found = self.objects.get(("Node", node))
        return found is not None and bool(found["status"]["conditions"])

    def _place(self) -> str:
        """Where the scheduler puts a Pod; empty when there is no place."""
        pod = self.deployment["spec"]["template"]["spec"]
        avoided = {host for term in _terms(pod) for one in term["matchExpressions"] for host in one["values"]}
        return next((name for name in self.places if name not in avoided and not self._lost(name)), "")

    def run_pod(self, pod: Manifest) -> bool:
        """One step of scheduler and kubelet for one Pod; whether it did anything."""
        name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
        since, node = -self.elapsed(), pod["spec"].get("nodeName", "")
        created = builders.NOW - datetime.fromisoformat(pod["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
        known = {"labels": labels, "created": created.total_seconds()}
        if node and self._lost(node):
            return False
        if "deletionTimestamp" in pod["metadata"]:
            self.drop("Pod", name)
        elif pod["status"]["phase"] == "Failed":
            return False
        elif not pod["spec"]:
            place = self._place()
            if not place:
                return self._refuse(pod)
            self.keep(builders.pod(name, node=place, scheduled_before=since, ready_changed=since, **known))
        elif "containerStatuses" not in pod["status"]:
            server = builders.container(running_for=since)
            self.keep(
                builders.pod(name, node=node, phase="Running", ready_changed=since, containers=(server,), **known)
            )
        elif not ready(pod) and not pod["status"]["containerStatuses"][0]["state"].get("waiting"):
            server = builders.container(running_for=since, started=True, ready=True)
            self.keep(builders.serving_pod(name, node=node, ready_changed=since, containers=(server,), **known))
        else:
            return False
        return True

    def _refuse(self, pod: Manifest) -> bool:
        """The scheduler says that it finds no place; whether that is news."""
        unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no place"}
        others = [c for c in pod["status"]["conditions"] if c["type"] != "PodScheduled"]
        news = unschedulable not in pod["status"]["conditions"]
        if news:
            self.keep({**pod, "status": {**pod["status"], "conditions": [unschedulable, *others]}})
        return news

    def crash(self, restarts: int, code: int = 1, message: str = "") -> None:
        """Every server has ended, and is held back by the kubelet."""
        for pod in self.pods():
            last = builders.ended(code, ended_before=1 - self.elapsed(), message=message)
            server = builders.container(waiting="CrashLoopBackOff", restarts=restarts, last=last)
            self.keep(
                builders.pod(
                    pod["metadata"]["name"],
                    node=pod["spec"].get("nodeName", "n1"),
                    created=-self.elapsed(),
                    ready_changed=-self.elapsed(),
                    containers=(server,),
                    labels=pod["metadata"]["labels"],
                )
            )

    # ---- time ------------------------------------------------------------------------------------------------

    def settle(self, looks: int = 200) -> None:
        """Until nothing happens any more by itself."""
        for _ in range(looks):
            self.now += timedelta(seconds=1)
            before = self.writes
            plan = self.reconcile()
            others = self.roll_out()
            others = sum(self.run_pod(pod) for pod in self.pods()) > 0 or others
            if self.writes == before and not others:
                if plan.look_again is None:
                    return
                self.now += timedelta(seconds=plan.look_again)
        raise AssertionError(f"it never comes to rest: {self.status}")

    def ending(self) -> Manifest:
        """What counts in the end: everything but times, versions and names."""
        conditions = {c["type"]: (c["status"], c["reason"], c["message"]) for c in self.status.get("conditions", ())}
        untold = ("conditions", "timeline", "phaseSince", "lastFailure", "restarts")
        told = {k: v for k, v in self.status.items() if k not in untold}
        specs = {kind: manifest["spec"] for (kind, _), manifest in self.objects.items() if kind not in ("Pod", "Model")}
        return {"status": told, "conditions": conditions, "children": specs, "pods": len(self.pods())}


def _terms(pod: Manifest) -> list[Manifest]:
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    found: list[Manifest] = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get(
        "nodeSelectorTerms", []
    )
    return found


def ready(pod: Manifest) -> bool:
    """Whether a Pod is ready."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
