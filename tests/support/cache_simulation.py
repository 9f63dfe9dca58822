"""A cluster in memory with one ModelCache: a claim, Jobs that download onto a volume, and sources that may fail.

Like support.simulation it is no stand-in for the API server. It shows where decisions lead when they are carried
out, in any order and cut off anywhere, and it has what no real cluster shows: every byte on the volume.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import orjson

from berth.controllers.store import Key, Store
from berth.planning.cache_plan import decide_cache
from berth.planning.cache_world import CacheWorld
from berth.planning.model_plan import decide
from berth.planning.plan import Apply, Delete, Plan
from berth.planning.policy import Policy
from berth.planning.times import format_time, parse_time
from berth.planning.world import CLAIM, ModelWorld
from support import builders

Manifest = dict[str, Any]
KEY = Key("ModelCache", builders.NAMESPACE, builders.CACHE)
OK = "ok"
LOST = "lost"
"""The download succeeds, and its Pod is gone before anybody reads what it said."""
KILLED = "killed"
"""The download is killed half-way and says nothing."""


@dataclass
class Source:
    """What a download meets: the size of the files, and how the next attempts end. Afterwards all succeed."""

    size: int = 10 * builders.GIB
    ends: list[str] = field(default_factory=list)
    """OK, LOST, KILLED, or the reason of a failure; `!` before a reason says that a person is needed."""


class CacheSimulation:
    """One ModelCache, the Models that refer to it, and what becomes of them."""

    def __init__(self, policy: Policy | None = None, **spec: Any) -> None:
        self.policy = policy or Policy()
        self.now: datetime = builders.NOW
        self.version = 0
        self.born = 0
        self.writes = 0
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.volume: dict[str, int] = {}
        """Bytes by folder."""
        self.sources: dict[str, Source] = {}
        """By uri; what is not listed is 10 GiB large and never fails."""
        self.woken = True
        """Whether something happened that the operator looks at the ModelCache for."""
        self.look_at: datetime | None = None
        """When it does so anyway."""
        self.store = Store()
        self.keep(builders.model_cache(spec=builders.cache_spec(**spec), creationTimestamp=format_time(self.now)))

    # ---- the API server -----------------------------------------------------------------------------------------

    def keep(self, manifest: Manifest, *, own: bool = False) -> None:
        """Store an object and tell the operator, as a watch does. Its own writes are no news to it."""
        self.version += 1
        manifest = orjson.loads(orjson.dumps(manifest))
        manifest["metadata"]["resourceVersion"] = str(self.version)
        self.objects[manifest["kind"], manifest["metadata"]["name"]] = manifest
        news = self.store.observe(manifest)
        self.woken = self.woken or (KEY in news and not own)

    def drop(self, kind: str, name: str) -> None:
        """An object is gone, and the Pods of a Job with it."""
        gone = self.objects.pop((kind, name))
        self.version += 1
        uid = gone["metadata"]["uid"]
        self.woken = KEY in self.store.forget(kind, builders.NAMESPACE, name, uid, str(self.version)) or self.woken
        if kind == "Job":
            for pod in self.pods_of(gone):
                self.drop("Pod", pod["metadata"]["name"])

    @property
    def cache(self) -> Manifest:
        """The ModelCache as it is stored."""
        return self.objects["ModelCache", builders.CACHE]

    @property
    def status(self) -> Manifest:
        """The status of the ModelCache."""
        found: Manifest = self.cache["status"]
        return found

    @property
    def entries(self) -> dict[str, Manifest]:
        """What the status says of each artifact, by uri."""
        return {one.get("uri", one["name"]): one for one in self.status.get("artifacts") or ()}

    def state(self, uri: str = builders.URI) -> str:
        """The state of an artifact; empty when the status says nothing of it."""
        found: str = self.entries.get(uri, {}).get("state", "")
        return found

    def jobs(self) -> list[Manifest]:
        """The Jobs."""
        return [manifest for (kind, _), manifest in self.objects.items() if kind == "Job"]

    def downloads(self) -> list[str]:
        """The uris of downloads that have not ended."""
        return sorted(option(job, "--uri") for job in self.jobs() if option(job, "--uri") and not has_ended(job))

    def pods_of(self, job: Manifest) -> list[Manifest]:
        """The Pods of a Job."""
        pods = [manifest for (kind, _), manifest in self.objects.items() if kind == "Pod"]
        return [pod for pod in pods if pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]]

    # ---- people -------------------------------------------------------------------------------------------------

    def edit(self, **spec: Any) -> None:
        """Somebody changes the spec; None removes a field."""
        changed = {key: value for key, value in (self.cache["spec"] | spec).items() if value is not None}
        self._edit(self.cache, changed)

    def _edit(self, manifest: Manifest, spec: Manifest) -> None:
        metadata = manifest["metadata"] | {"generation": manifest["metadata"]["generation"] + 1}
        self.keep({**manifest, "metadata": metadata, "spec": spec})

    def declare(self, *artifacts: str | Manifest) -> None:
        """Somebody writes spec.artifacts."""
        self.edit(artifacts=[{"uri": one} if isinstance(one, str) else one for one in artifacts])

    def add_model(self, name: str = "m", uri: str = builders.URI, **changes: Any) -> None:
        """Somebody makes a Model, or changes it."""
        spec = builders.cached_spec(uri, **changes)
        if ("Model", name) in self.objects:
            self._edit(self.objects["Model", name], spec)
            return
        self.born += 1
        self.keep(builders.model(name, spec=spec, uid=f"{name}-{self.born}", creationTimestamp=format_time(self.now)))

    def add_node(self, name: str = "n1", **more: Any) -> None:
        """A node joins."""
        self.version += 1
        self.store.observe(builders.node(name, version=self.version, **more))

    # ---- the operator -------------------------------------------------------------------------------------------

    def world(self) -> CacheWorld:
        """What the operator knows."""
        world = self.store.gather(KEY)
        assert isinstance(world, CacheWorld)
        return world

    def plan(self) -> Plan:
        """What the operator would do now."""
        return decide_cache(self.world(), self.now, self.policy)

    def reconcile(self, cut_off_after: int | None = None) -> Plan:
        """Plan and carry out in the order of the operator; the process may end after so many writes."""
        world, self.woken = self.world(), False
        plan = decide_cache(world, self.now, self.policy)
        self.look_at = None if plan.look_again is None else self.now + timedelta(seconds=plan.look_again)
        self.assert_settled(world, plan)
        applies = [change for change in plan.changes if isinstance(change, Apply)]
        deletes = [change for change in plan.changes if isinstance(change, Delete)]
        steps = [lambda change=change: self.carry_out(change) for change in (*applies, *deletes)]
        if plan.status is not None:
            steps.append(lambda: self.write_status(plan.status))
        for step in steps[:cut_off_after]:
            self.writes += 1
            step()
        if cut_off_after is not None:
            self.restart()
        return plan

    def assert_settled(self, world: CacheWorld, plan: Plan) -> None:
        """Once its status is written, a plan asks for no other: it would be written over and over."""
        if plan.status is not None:
            written = replace(world, subject=replace(world.subject, status=plan.status), status_written_at=self.now)
            again = decide_cache(written, self.now, self.policy).status
            assert again is None, f"{plan.status} is followed by {again}"

    def carry_out(self, change: Apply | Delete) -> None:
        """One write to an object of ours."""
        if isinstance(change, Delete):
            found = self.objects.get((change.kind, change.name))
            assert found is None or found["metadata"]["uid"] == change.uid
            if found is not None:
                self.drop(change.kind, change.name)
            return
        manifest = change.manifest
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        stored = self.objects.get((kind, name))
        given = manifest["metadata"].get("resourceVersion")
        assert given == (stored["metadata"]["resourceVersion"] if stored else None), f"{kind} {name} is another by now"
        self.born += 1
        identity = builders.metadata(kind, name, 0, f"{name}-{self.born}", creationTimestamp=format_time(self.now))
        metadata = {**(stored["metadata"] if stored else identity), **manifest["metadata"]}
        body = {**manifest, "metadata": metadata}
        if stored is not None and "status" in stored:
            body["status"] = stored["status"]
        elif kind == CLAIM:
            body["status"] = {"phase": "Pending"}
        self.keep(body, own=True)

    def write_status(self, status: Any) -> None:
        """The status, as it comes back from the API server."""
        self.keep({**self.cache, "status": dict(status)}, own=True)
        self.store.memories.status_written(KEY, self.now)

    def restart(self) -> None:
        """Another process takes over: it knows what is stored, and nothing else."""
        self.woken = True
        nodes = [node for node, *_ in self.store._nodes.values()]
        self.store = Store()
        for manifest in self.objects.values():
            self.store.observe(manifest)
        for node in nodes:
            self.version += 1
            gpus = int(node.allocatable.get("nvidia.com/gpu", 0))
            self.store.observe(builders.node(node.name, gpus=gpus, cordoned=not node.schedulable, version=self.version))

    # ---- everybody else -----------------------------------------------------------------------------------------

    def bind_claim(self, modes: tuple[str, ...] = ("ReadWriteOnce",)) -> None:
        """The volume is made."""
        for (kind, _), manifest in list(self.objects.items()):
            if kind == CLAIM and manifest["status"]["phase"] == "Pending":
                capacity = {"storage": manifest["spec"]["resources"]["requests"]["storage"]}
                status = {"phase": "Bound", "accessModes": list(modes), "capacity": capacity}
                self.keep({**manifest, "status": status})

    def step(self, job: Manifest) -> bool:
        """One step in the life of a Job: its Pod is made, runs, and ends. Whether there was anything to do."""
        if has_ended(job):
            return False
        pods = self.pods_of(job)
        if not pods:
            self.born += 1
            self._pod(job, f"pod-{self.born}")
            return True
        pod = pods[-1]
        if pod["status"]["phase"] == "Pending":
            self._run(job, pod["metadata"]["name"])
        else:
            self._finish(job, pod["metadata"]["name"])
        return True

    def run(self, steps: int = 3) -> None:
        """All Jobs go on; three steps are a whole download."""
        for _ in range(steps):
            for job in self.jobs():
                self.step(job)

    def _pod(self, job: Manifest, name: str, **more: Any) -> None:
        since = (builders.NOW - self.now).total_seconds()
        self.keep(builders.download_pod(name, job_uid=job["metadata"]["uid"], created=since, **more))

    def _run(self, job: Manifest, name: str) -> None:
        """It starts, writes the first half, and tells how far it is."""
        self.bind_claim()
        self._pod(job, name, running_for=(builders.NOW - self.now).total_seconds())
        source, folder = self.source(job), folder_of(job)
        limit = option(job, "--limit")
        if "--remove" in arguments(job) or (limit and source.size > int(limit)) or self._failure(source).isalpha():
            return
        self.volume[folder] = max(self.volume.get(folder, 0), source.size // 2)
        told = builders.progress(100 * self.volume[folder] // source.size, source.size, uri=option(job, "--uri"))
        self.store.memories.progress[builders.NAMESPACE, name] = told
        self.woken = True

    @staticmethod
    def _failure(source: Source) -> str:
        """The reason for which the next attempt fails before its first byte; empty when it does not."""
        end = source.ends[0].removeprefix("!") if source.ends else OK
        return "" if end in (OK, LOST, KILLED) else end

    def _finish(self, job: Manifest, name: str) -> None:
        if "--remove" in arguments(job):
            self.volume.pop(folder_of(job), None)
            self.end(job, name, said=builders.said(bytesTotal=None, bytesPresent=0))
            return
        source, folder, limit = self.source(job), folder_of(job), option(job, "--limit")
        here = self.volume.get(folder, 0)
        if limit and source.size > int(limit):
            words = builders.said_failed("LimitExceeded", "too large", bytesTotal=source.size, bytesPresent=here)
            self.end(job, name, code=65, said=words)
            return
        end = source.ends.pop(0) if source.ends else OK
        if end == KILLED:
            self.end(job, name, code=137, said="")
        elif end in (OK, LOST):
            self.volume[folder] = source.size
            words = builders.said(bytesTotal=source.size, bytesPresent=source.size, bytesFetched=source.size - here)
            self.end(job, name, said=words)
            if end == LOST:
                self.drop("Pod", name)
        else:
            final = end.startswith("!")
            words = builders.said_failed(end.removeprefix("!"), "it fails", passing=not final, bytesPresent=here)
            self.end(job, name, code=65 if final else 75, said=words)

    def end(self, job: Manifest, pod: str, *, code: int = 0, said: str = "") -> None:
        """The Pod of a Job ends, and so does the Job."""
        self._pod(job, pod, code=code, said=said)
        condition = {"type": "Failed" if code else "Complete", "status": "True"}
        self.keep({**job, "status": {"conditions": [condition]}})

    def source(self, job: Manifest) -> Source:
        """What a download meets."""
        return self.sources.setdefault(option(job, "--uri"), Source())

    # ---- time ---------------------------------------------------------------------------------------------------

    def settle(self, looks: int = 300) -> None:
        """Until nothing happens any more by itself. The operator looks when it is woken, and when it said it would."""
        for _ in range(looks):
            self.now += timedelta(seconds=1)
            busy = self.woken or (self.look_at is not None and self.now >= self.look_at)
            if busy:
                self.reconcile()
            self.bind_claim()
            busy = sum(self.step(job) for job in self.jobs()) > 0 or busy
            if not busy and not self.woken:
                if self.look_at is None:
                    return
                self.now = self.look_at
        raise AssertionError(f"it never comes to rest: {self.status}")

    def model_phase(self, name: str = "m") -> tuple[str, str]:
        """Phase and reason of a Model, as its own plan would show them."""
        world = self.store.gather(Key("Model", builders.NAMESPACE, name))
        assert isinstance(world, ModelWorld)
        subject = replace(world.subject, status={"observedGeneration": 0})
        status = decide(replace(world, subject=subject), self.now, self.policy).status
        assert status is not None
        ready = next(one for one in status["conditions"] if one["type"] == "Ready")
        return status["phase"], ready["reason"]


def bound(**spec: Any) -> CacheSimulation:
    """A cluster whose volume is there, so that downloads may begin."""
    cluster = CacheSimulation(**spec)
    cluster.settle()
    return cluster


def failed(*ends: str, **spec: Any) -> CacheSimulation:
    """A cluster in which the download that a Model wants has ended like this, one attempt after another."""
    cluster = bound(**spec)
    source = cluster.sources[builders.URI] = Source(ends=list(ends))
    cluster.add_model()
    while source.ends:
        retry = parse_time(cluster.entries.get(builders.URI, {}).get("retryAt"))
        cluster.now = max(cluster.now, retry or cluster.now)
        cluster.reconcile()
        cluster.run()
        cluster.reconcile()
        cluster.reconcile()
    return cluster


def arguments(job: Manifest) -> list[str]:
    """The command line of a Job's program."""
    found: list[str] = job["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def option(job: Manifest, name: str) -> str:
    """The value of an option on that command line; empty when it is not there."""
    words = arguments(job)
    return words[words.index(name) + 1] if name in words else ""


def folder_of(job: Manifest) -> str:
    """The folder on the volume that a Job works on."""
    return option(job, "--destination").removeprefix("/cache/")


def has_ended(job: Manifest) -> bool:
    """Whether a Job has ended."""
    return any(one["type"] in ("Complete", "Failed") for one in (job.get("status") or {}).get("conditions") or ())


def jobs_in(plan: Plan) -> list[Manifest]:
    """The Jobs that a plan makes."""
    return [one.manifest for one in plan.changes if isinstance(one, Apply) and one.manifest["kind"] == "Job"]
