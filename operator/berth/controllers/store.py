"""What the watches have seen, as projections in memory. The only place that knows the present state.

Newer beats older by resourceVersion, whoever brings it: a watch, a relist, a sweep or the answer to a write of
our own. Kubernetes promises comparable resourceVersions since 1.35 (KEP-5504) and has always kept to it.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import orjson

from berth.controllers.capacity_store import CapacityStore
from berth.controllers.memories import Memories
from berth.controllers.relations import Key, Relations
from berth.planning import names
from berth.planning.cache_world import CacheWorld
from berth.planning.gpu_nodes import GPU_NODE, GpuNodeWorld
from berth.planning.load_questions import can_be_asked
from berth.planning.nodes import Node, node_from
from berth.planning.pods import Pod, pod_from
from berth.planning.world import CLAIM, Child, ModelWorld, Subject, child_from, subject_from

__all__ = ["Key", "Keys", "Store", "version_number"]

SUBJECT_KINDS = ("Model", "ModelCache")
MODEL_KINDS = ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")
CHILD_KINDS = (*MODEL_KINDS, CLAIM, "Job", GPU_NODE)
VOLUME = "PersistentVolume"
KINDS = (*SUBJECT_KINDS, "Pod", "Node", VOLUME, *CHILD_KINDS)
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
        # Pods that are none of ours, and volumes: of those nothing but uid and resourceVersion is kept here
        self._others: dict[str, dict[_Names, tuple[str, str]]] = {"Pod": {}, VOLUME: {}}
        self.capacity = CapacityStore()
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
            ours = (metadata.get("labels") or {}).get(names.MANAGED_BY_LABEL) == names.MANAGED_BY
            return self._observe_pod(pod_from(manifest), manifest) if ours else self._observe_other_pod(manifest)
        if kind == "Node":
            return self._observe_node(node_from(manifest), manifest)
        if kind == VOLUME:
            if self._is_news_of_other(kind, ("", metadata["name"]), metadata):
                self.capacity.observe_volume(manifest)
            return ()
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
        if where in self._others.get(kind, {}):
            self._forget_other(kind, where, uid, ended)
            return ()
        table = self._table(kind)
        known = table.get(where)
        if known is not None and known.uid == uid and version_number(known.resource_version) > ended:
            return ()  # it came back before the news of its end did
        self._bury(uid, ended)
        if known is None or known.uid != uid:
            return ()
        del table[where]
        self._tell_capacity_of_end(kind, where, uid)
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
        self.capacity.forget_node(name)
        self.memories.forget(Key("Node", "", name))
        return self._existing(*self._caches(), *self._models_on(name))

    def _models_on(self, node: str) -> Iterator[Key]:
        """Whom the Pods on a node belong to: what becomes of a node is rare news."""
        for pod in self._pods.values():
            if pod.node == node:
                yield from self._relations.of_pod(pod)

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
        if subject.kind == "ModelCache":
            self.capacity.observe_cache(subject)
        key = Key(subject.kind, *where)
        if known is not None and known.uid != subject.uid:
            self.memories.forget(key)  # they are about a namesake that is gone
            known = None
        touched = self._relations.put_subject(known, subject)
        if known is not None and _same_subject(known, subject):
            return ()
        return self._existing(key, *touched)

    def _observe_pod(self, pod: Pod, manifest: Mapping[str, Any]) -> Keys:
        where = (pod.namespace, pod.name)
        known = self._pods.get(where)
        if not _is_news(known, pod):
            return ()
        self._others["Pod"].pop(where, None)
        self.capacity.observe_pod(manifest, pod)
        self._pods[where] = pod
        if known is not None:
            self._relations.drop_pod(known)  # somebody may have given it another label, to take it out of service
        self._relations.put_pod(pod)
        if known is not None and known.uid == pod.uid and _same_pod(known, pod):
            return ()
        return self._existing(*self._relations.of_pod(pod), *(self._relations.of_pod(known) if known else ()))

    def _observe_other_pod(self, manifest: Mapping[str, Any]) -> Keys:
        """A Pod of somebody else's: it may hold GPUs, be an agent, or have been ours."""
        metadata = manifest["metadata"]
        where = (metadata["namespace"], metadata["name"])
        if not self._is_news_of_other("Pod", where, metadata):
            return ()
        if CapacityStore.concerns(manifest):
            self.capacity.observe_pod(manifest, pod_from(manifest))
        known = self._pods.get(where)
        if known is None or version_number(known.resource_version) > version_number(metadata["resourceVersion"]):
            return ()
        del self._pods[where]
        self._relations.drop_pod(known)
        return self._existing(*self._relations.of_pod(known))

    def _is_news_of_other(self, kind: str, where: _Names, metadata: Mapping[str, Any]) -> bool:
        known = self._others[kind].get(where)
        if known is not None and version_number(metadata["resourceVersion"]) <= version_number(known[1]):
            return False
        self._others[kind][where] = (metadata["uid"], metadata["resourceVersion"])
        return True

    def _forget_other(self, kind: str, where: _Names, uid: str, ended: float) -> None:
        known = self._others[kind][where]
        if known[0] == uid and version_number(known[1]) > ended:
            return
        self._bury(uid, ended)
        if known[0] == uid:
            del self._others[kind][where]
            self._tell_capacity_of_end(kind, where, uid)

    def _tell_capacity_of_end(self, kind: str, where: _Names, uid: str) -> None:
        if kind == "Pod":
            self.capacity.forget_pod(*where, uid)
        elif kind == "Model":
            self.capacity.forget_model(*where)
        elif kind == GPU_NODE:
            self.capacity.forget_report(where[1])
        else:
            self.capacity.forget_other(kind, *where)

    def _observe_node(self, node: Node, manifest: Mapping[str, Any]) -> Keys:
        metadata = manifest["metadata"]
        known = self._nodes.get(node.name)
        if known is not None and version_number(metadata["resourceVersion"]) <= version_number(known[1]):
            return ()
        self._nodes[node.name] = (node, metadata["resourceVersion"])
        self.capacity.observe_node(manifest)
        if known is not None and known[0] == node:
            return ()
        changed = self._models_on(node.name) if known is not None and known[0].lost != node.lost else ()
        return self._existing(Key("Node", "", node.name), *self._caches(), *changed)

    def _observe_child(self, child: Child, manifest: Mapping[str, Any]) -> Keys:
        where = (child.namespace, child.name)
        known = self._children[child.kind].get(where)
        if not _is_news(known, child):
            return ()
        self._children[child.kind][where] = child
        news: list[Key] = []
        if child.kind == GPU_NODE:
            news = self.capacity.observe_report(manifest)
        elif child.kind == CLAIM:
            self.capacity.observe_claim(manifest)
        touched = self._relations.put_child(known, child)
        digest = _digest(manifest) if child.body != _NOTHING else b""
        before = self._digests.pop(known.uid, b"") if known is not None else b""
        if digest:
            self._digests[child.uid] = digest
        same = known is not None and known.uid == child.uid and known.deleting == child.deleting and before == digest
        if same and known is not None and known.owner_uid == child.owner_uid:
            return self._existing(*news)
        return self._existing(*touched, *news)

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
            sick_gpus=self.capacity.sick_gpus(key),
            decision=self.capacity.decision(key),
            nodes=tuple(node for node, *_ in self._nodes.values()),
            load=self.memories.loads.get(key),
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

    def servers(self) -> dict[Key, list[Pod]]:
        """By key of a Model: Pods whose servers can be asked for their load."""
        found: defaultdict[Key, list[Pod]] = defaultdict(list)
        for pod in self._pods.values():
            if pod.model and can_be_asked(pod):
                found[Key("Model", pod.namespace, pod.model)].append(pod)
        return {key: pods for key, pods in found.items() if self._exists(key)}

    def subject(self, key: Key) -> Subject | None:
        """The Model or ModelCache of that name."""
        return self._subjects[key.kind].get((key.namespace, key.name))

    def subjects(self, kind: str) -> tuple[Subject, ...]:
        """All Models or ModelCaches."""
        return tuple(self._subjects[kind].values())

    def known(self, kind: str) -> dict[_Names, tuple[str, str]]:
        """uid and resourceVersion of every object of a kind, for the sweep. Nodes have an empty namespace."""
        if kind == "Node":
            return {("", name): (node.uid, version) for name, (node, version) in self._nodes.items()}
        others = self._others.get(kind, {})
        if kind == VOLUME:
            return dict(others)
        return {**others, **{where: (seen.uid, seen.resource_version) for where, seen in self._table(kind).items()}}


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
