"""What the watches have seen, as projections in memory. The only place that knows the present state.

Newer beats older by resourceVersion, whoever brings it: a watch, a relist, a sweep or the answer to a write of
our own. Kubernetes promises comparable resourceVersions since 1.35 (KEP-5504) and has always kept to it.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import orjson

from berth.controllers.memories import Memories
from berth.controllers.relations import Key, Relations
from berth.planning import names
from berth.planning.cache_world import CacheWorld, Node, node_from
from berth.planning.gpu_nodes import GPU_NODE, GpuNodeWorld
from berth.planning.world import CLAIM, Child, ModelWorld, Pod, Subject, child_from, pod_from, subject_from

__all__ = ["Key", "Keys", "Store", "version_number"]

SUBJECT_KINDS = ("Model", "ModelCache")
MODEL_KINDS = ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")
CHILD_KINDS = (*MODEL_KINDS, CLAIM, "Job", GPU_NODE)
KINDS = (*SUBJECT_KINDS, "Pod", "Node", *CHILD_KINDS)
_TOMBSTONES = 10_000
_NOTHING = b"{}"  # the body of an object that is not ours
_WITH_STATUS = (CLAIM, "Job")
"""Kinds whose whole status matters to a plan."""

Keys = tuple[Key, ...]
_Projection = TypeVar("_Projection", Subject, Pod, Child)
_Names = tuple[str, str]


def version_number(resource_version: str) -> int:
    """The resourceVersion as a number: the larger, the newer."""
    return int(resource_version) if resource_version.isdigit() else 0


class Store:
    """Projections by kind and name. What belongs to what is in `relations`, what this process did in `memories`."""

    def __init__(self) -> None:
        self._subjects: dict[str, dict[_Names, Subject]] = {kind: {} for kind in SUBJECT_KINDS}
        self._pods: dict[_Names, Pod] = {}
        self._nodes: dict[str, tuple[Node, str]] = {}  # with its resourceVersion
        self._children: dict[str, dict[_Names, Child]] = {kind: {} for kind in CHILD_KINDS}
        self._digests: dict[str, bytes] = {}  # uid of a child -> what of it matters to a plan
        self._relations = Relations()
        # uids of objects that are gone, with the version of their end: older news that comes late must not raise them
        self._buried: OrderedDict[str, float] = OrderedDict()
        self.memories = Memories(self._exists)
        self._uninstalling: bool | None = None

    # ---- news ------------------------------------------------------------------------------------------------

    def observe(self, manifest: Mapping[str, Any]) -> Keys:
        """Take in an object as the API server showed it; returns the keys to reconcile, none when nothing matters."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        ended = self._buried.get(metadata["uid"])
        if ended is not None:
            if version_number(metadata["resourceVersion"]) <= ended:
                return ()
            del self._buried[metadata["uid"]]
        if kind in SUBJECT_KINDS:
            return self._observe_subject(subject_from(manifest))
        if kind == "Pod":
            return self._observe_pod(pod_from(manifest))
        if kind == "Node":
            return self._observe_node(node_from(manifest), metadata)
        return self._observe_child(child_from(manifest), manifest)

    def forget(self, kind: str, namespace: str, name: str, uid: str, resource_version: str | None = None) -> Keys:
        """The object is gone; returns the keys to reconcile.

        `resource_version` is that of its end. A watch with a label selector also calls an object deleted that has
        lost its labels, and which may come back: newer news of it is believed. None means gone for good.
        """
        ended = float("inf") if resource_version is None else version_number(resource_version)
        if kind == "Node":
            return self._forget_node(name, uid, ended)
        where = (namespace, name)
        table = self._table(kind)
        known = table.get(where)
        if known is not None and known.uid == uid and version_number(known.resource_version) > ended:
            return ()  # it came back before the news of its end did
        self._bury(uid, ended)
        if known is None or known.uid != uid:
            return ()
        del table[where]
        if isinstance(known, Subject):
            self.memories.forget(Key(kind, *where))
            return self._existing(*self._relations.drop_subject(known))  # the garbage collector does the rest
        if isinstance(known, Pod):
            self._relations.drop_pod(known)
            self.memories.progress.pop(where, None)
            return self._existing(*self._relations.of_pod(known))
        self._digests.pop(uid, None)
        return self._existing(*self._relations.drop_child(known))

    def uninstall(self, asked: bool | None) -> Keys:
        """Whether Berth is uninstalled, None while nothing says so or otherwise; returns the keys to reconcile."""
        if asked == self._uninstalling:
            return ()
        self._uninstalling = asked
        return tuple(Key("Model", *where) for where in self._subjects["Model"])

    def _forget_node(self, name: str, uid: str, ended: float) -> Keys:
        known, version = self._nodes.get(name, (None, ""))
        if known is not None and known.uid == uid and version_number(version) > ended:
            return ()
        self._bury(uid, ended)
        if known is None or known.uid != uid:
            return ()
        del self._nodes[name]
        self.memories.forget(Key("Node", "", name))
        return self._existing(*self._caches())

    def _table(self, kind: str) -> dict[_Names, Any]:
        if kind in SUBJECT_KINDS:
            return self._subjects[kind]
        return self._pods if kind == "Pod" else self._children[kind]

    def _bury(self, uid: str, ended: float) -> None:
        self._buried[uid] = max(ended, self._buried.get(uid, 0))
        self._buried.move_to_end(uid)
        while len(self._buried) > _TOMBSTONES:
            self._buried.popitem(last=False)

    def _exists(self, key: Key) -> bool:
        if key.kind == "Node":
            return key.name in self._nodes
        return (key.namespace, key.name) in self._subjects[key.kind]

    def _existing(self, *keys: Key) -> Keys:
        """Those keys whose subject is there, each once."""
        return tuple(dict.fromkeys(filter(self._exists, keys)))

    def _caches(self) -> Iterator[Key]:
        for where in self._subjects["ModelCache"]:
            yield Key("ModelCache", *where)

    def _observe_subject(self, subject: Subject) -> Keys:
        where = (subject.namespace, subject.name)
        table = self._subjects[subject.kind]
        known = table.get(where)
        if not _is_news(known, subject):
            return ()
        table[where] = subject
        key = Key(subject.kind, *where)
        if known is not None and known.uid != subject.uid:
            self.memories.forget(key)  # they are about a namesake that is gone
            known = None
        touched = self._relations.put_subject(known, subject)
        if known is not None and _same_subject(known, subject):
            return ()
        return self._existing(key, *touched)

    def _observe_pod(self, pod: Pod) -> Keys:
        where = (pod.namespace, pod.name)
        known = self._pods.get(where)
        if not _is_news(known, pod):
            return ()
        self._pods[where] = pod
        if known is not None:
            self._relations.drop_pod(known)  # somebody may have given it another label, to take it out of service
        self._relations.put_pod(pod)
        if known is not None and known.uid == pod.uid and _same_pod(known, pod):
            return ()
        return self._existing(*self._relations.of_pod(pod), *(self._relations.of_pod(known) if known else ()))

    def _observe_node(self, node: Node, metadata: Mapping[str, Any]) -> Keys:
        known = self._nodes.get(node.name)
        if known is not None and version_number(metadata["resourceVersion"]) <= version_number(known[1]):
            return ()
        self._nodes[node.name] = (node, metadata["resourceVersion"])
        if known is not None and known[0] == node:
            return ()
        return self._existing(Key("Node", "", node.name), *self._caches())

    def _observe_child(self, child: Child, manifest: Mapping[str, Any]) -> Keys:
        where = (child.namespace, child.name)
        known = self._children[child.kind].get(where)
        if not _is_news(known, child):
            return ()
        self._children[child.kind][where] = child
        touched = self._relations.put_child(known, child)
        digest = _digest(manifest) if child.body != _NOTHING else b""
        before = self._digests.pop(known.uid, b"") if known is not None else b""
        if digest:
            self._digests[child.uid] = digest
        same = known is not None and known.uid == child.uid and known.deleting == child.deleting and before == digest
        if same and known is not None and known.owner_uid == child.owner_uid:
            return ()
        return self._existing(*touched)

    # ---- what is known -------------------------------------------------------------------------------------------

    def gather(self, key: Key) -> ModelWorld | CacheWorld | GpuNodeWorld | None:
        """The World for one Model, ModelCache or Node; None when there is none of that name."""
        if key.kind == "Node":
            return self._node_world(key)
        subject = self._subjects[key.kind].get((key.namespace, key.name))
        if subject is None:
            return None
        return self._model_world(key, subject) if key.kind == "Model" else self._cache_world(key, subject)

    def _node_world(self, key: Key) -> GpuNodeWorld | None:
        known = self._nodes.get(key.name)
        if known is None:
            return None
        return GpuNodeWorld(known[0], self._children[GPU_NODE].get(("", key.name)), self.memories.refusals(key))

    def _model_world(self, key: Key, model: Subject) -> ModelWorld:
        where = (key.namespace, key.name)
        pods = self._pods_at(self._relations.pods_of(key))
        children = (self._children[kind].get(where) for kind in MODEL_KINDS)
        cache_key = self._relations.cache_of(key)
        cache = self._subjects["ModelCache"].get((cache_key.namespace, cache_key.name)) if cache_key else None
        return ModelWorld(
            subject=model,
            children=tuple(child for child in children if child is not None),
            pods=pods,
            refusals=self.memories.refusals(key),
            status_written_at=self.memories.status_written_at(key),
            stubborn=self.memories.stubborn(key),
            cache=cache,
            progress=self.memories.progress_of(pods),
            uninstalling=self._uninstalling,
        )

    def _cache_world(self, key: Key, cache: Subject) -> CacheWorld:
        namespace = key.namespace
        pods = self._pods_at(self._relations.pods_of(key))
        models = (self._subjects["Model"].get((one.namespace, one.name)) for one in self._relations.models_of(key))
        claim = self._relations.claim_of(key)
        jobs = (self._children["Job"].get((namespace, name)) for name in sorted(self._relations.jobs_of(key)))
        return CacheWorld(
            subject=cache,
            claim=self._children[CLAIM].get((namespace, claim)),
            policy=self._children["NetworkPolicy"].get((namespace, names.cache_object(key.name))),
            jobs=tuple(job for job in jobs if job is not None and job.owner_uid == cache.uid),
            pods=pods,
            models=tuple(model for model in models if model is not None),
            nodes=tuple(node for node, *_ in self._nodes.values()),
            progress=self.memories.progress_of(pods),
            refusals=self.memories.refusals(key),
            status_written_at=self.memories.status_written_at(key),
            stubborn=self.memories.stubborn(key),
        )

    def _pods_at(self, places: set[_Names]) -> tuple[Pod, ...]:
        return tuple(self._pods[place] for place in sorted(places))

    def all_keys(self) -> Iterator[Key]:
        """The keys of everything that is reconciled."""
        for kind, table in self._subjects.items():
            for where in tuple(table):
                yield Key(kind, *where)
        for name in tuple(self._nodes):
            yield Key("Node", "", name)

    def everything(self) -> Iterator[Subject | Child | Pod | Node]:
        """All objects that are known, also those that belong to nobody."""
        for subjects in self._subjects.values():
            yield from subjects.values()
        for children in self._children.values():
            yield from children.values()
        yield from self._pods.values()
        yield from (node for node, _ in self._nodes.values())

    def keys_of(self, pod: Pod) -> Keys:
        """Who a Pod belongs to."""
        return self._existing(*self._relations.of_pod(pod))

    def downloading_pods(self) -> list[Pod]:
        """Pods that can be asked how far their download is."""
        return [pod for pod in self._pods.values() if pod.address and _downloads(pod)]

    def phases(self, kind: str = "Model") -> dict[str, int]:
        """How many Models or ModelCaches are in each phase."""
        counts: defaultdict[str, int] = defaultdict(int)
        for subject in self._subjects[kind].values():
            counts[subject.status.get("phase", "Pending")] += 1
        return dict(counts)

    def used_bytes(self) -> dict[_Names, int]:
        """Bytes that each ModelCache holds."""
        return {where: int(one.status.get("usedBytes") or 0) for where, one in self._subjects["ModelCache"].items()}

    def known(self, kind: str) -> dict[_Names, tuple[str, str]]:
        """uid and resourceVersion of every object of a kind, for the sweep. Nodes have an empty namespace."""
        if kind == "Node":
            return {("", name): (node.uid, version) for name, (node, version) in self._nodes.items()}
        return {where: (seen.uid, seen.resource_version) for where, seen in self._table(kind).items()}


def _is_news(known: _Projection | None, seen: _Projection) -> bool:
    return known is None or version_number(seen.resource_version) > version_number(known.resource_version)


def _same_subject(known: Subject, seen: Subject) -> bool:
    """Whether nothing changed that a plan depends on. A changed status matters: somebody may have edited it."""
    return (
        known.generation == seen.generation
        and known.deleting == seen.deleting
        and known.annotations == seen.annotations
        and known.status == seen.status
    )


def _same_pod(known: Pod, seen: Pod) -> bool:
    return all(getattr(known, field) == getattr(seen, field) for field in Pod.__slots__ if field != "resource_version")


def _downloads(pod: Pod) -> bool:
    container = pod.provisioner
    return container is not None and container.running_since is not None


def _digest(manifest: Mapping[str, Any]) -> bytes:
    """What of a child matters to a plan: of most, all but the status, of which only refusals of Pods do."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    kept = [
        manifest.get("spec"),
        *(metadata.get(part) for part in ("labels", "annotations", "ownerReferences")),
    ]
    if manifest["kind"] in _WITH_STATUS:
        kept.append(status)
    else:
        conditions = status.get("conditions") or ()
        kept.append([c.get("message") for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"])
    return hash(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)).to_bytes(8, "big", signed=True)
