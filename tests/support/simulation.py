"""A cluster in memory that is small enough to be read: objects, a Deployment controller, a scheduler and a kubelet.

It is no stand-in for the API server (tests/integration has the real one). It shows where decisions lead when they
are carried out, in any order and cut off anywhere.
"""

from datetime import datetime, timedelta
from typing import Any

import orjson

from berth.controllers.store import Key, Store
from berth.planning import names
from berth.planning.model_plan import decide
from berth.planning.policy import Policy
from berth.planning.world import Apply, Delete, ModelWorld, Plan, format_time
from support import builders

Manifest = dict[str, Any]
KEY = Key("Model", builders.NAMESPACE, "m")


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
        steps = [lambda change=change: self.carry_out(change) for change in plan.changes]
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
        new = [pod for pod in here if pod["metadata"]["labels"][names.TEMPLATE_HASH_LABEL] == mark]
        old = [pod for pod in here if pod not in new]
        if len(new) > wanted:
            return self.end(new[-1])
        if old and (not ready(old[-1]) or sum(map(ready, here)) > wanted - limits["maxUnavailable"]):
            return self.end(old[-1])
        if len(new) < wanted and len(here) < wanted + limits["maxSurge"]:
            self.pods_made += 1
            self.keep(
                builders.pod(
                    f"p{self.pods_made}", template=mark, created=-self.elapsed(), ready_changed=-self.elapsed()
                )
            )
            return True
        return False

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return (self.now - builders.NOW).total_seconds()

    def end(self, pod: Manifest) -> bool:
        """A Pod is told to end."""
        labels = pod["metadata"]["labels"]
        name = pod["metadata"]["name"]
        shape = builders.serving_pod if ready(pod) else builders.pod
        gone = shape(name, template=labels[names.TEMPLATE_HASH_LABEL], deleting=True)
        self.keep({**gone, "status": pod["status"], "spec": pod["spec"]})
        return True

    def run_pod(self, pod: Manifest) -> bool:
        """One step of scheduler and kubelet for one Pod; whether it did anything."""
        name, template = pod["metadata"]["name"], pod["metadata"]["labels"][names.TEMPLATE_HASH_LABEL]
        since = -self.elapsed()
        if "deletionTimestamp" in pod["metadata"]:
            self.drop("Pod", name)
        elif pod["status"]["phase"] == "Failed":
            return False
        elif not pod["spec"]:
            self.keep(builders.pod(name, template=template, node="n1", created=since, scheduled_before=since))
        elif "containerStatuses" not in pod["status"]:
            server = builders.container(running_for=since)
            self.keep(
                builders.pod(name, template=template, node="n1", phase="Running", created=since, containers=(server,))
            )
        elif not ready(pod) and not pod["status"]["containerStatuses"][0]["state"].get("waiting"):
            server = builders.container(running_for=since, started=True, ready=True)
            self.keep(
                builders.serving_pod(name, template=template, created=since, ready_changed=since, containers=(server,))
            )
        else:
            return False
        return True

    def crash(self, restarts: int, code: int = 1) -> None:
        """Every server has ended, and is held back by the kubelet."""
        for pod in self.pods():
            name, template = pod["metadata"]["name"], pod["metadata"]["labels"][names.TEMPLATE_HASH_LABEL]
            last = builders.ended(code, ended_before=1 - self.elapsed())
            server = builders.container(waiting="CrashLoopBackOff", restarts=restarts, last=last)
            created = -self.elapsed()
            self.keep(builders.pod(name, template=template, node="n1", created=created, containers=(server,)))

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


def ready(pod: Manifest) -> bool:
    """Whether a Pod is ready."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
