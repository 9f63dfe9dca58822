"""What the watches have seen, as projections in memory. The only place that knows the present state.

Newer beats older by resourceVersion, whoever brings it: a watch, a relist, a sweep or the answer to a write of
our own. Kubernetes promises comparable resourceVersions since 1.35 (KEP-5504) and has always kept to it.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import orjson

from berth.planning.world import Child, ModelWorld, Pod, Refusal, Subject, child_from, pod_from, subject_from

CHILD_KINDS = ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")
KINDS = ("Model", "Pod", *CHILD_KINDS)
_TOMBSTONES = 10_000


class Key(NamedTuple):
    """Who a reconciliation is about."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


_Projection = TypeVar("_Projection", Subject, Pod, Child)
_Names = tuple[str, str]


def _version(resource_version: str) -> int:
    return int(resource_version) if resource_version.isdigit() else 0


class Store:
    """Projections by kind and name, with the index from a Model to its Pods."""

    def __init__(self) -> None:
        self._models: dict[_Names, Subject] = {}
        self._pods: dict[_Names, Pod] = {}
        self._children: dict[str, dict[_Names, Child]] = {kind: {} for kind in CHILD_KINDS}
        self._digests: dict[str, bytes] = {}  # uid of a child -> what of it matters to a plan
        self._pods_of: defaultdict[_Names, set[_Names]] = defaultdict(set)
        self._buried: OrderedDict[str, None] = OrderedDict()  # uids of deleted objects: late news must not raise them
        self._refusals: dict[_Names, dict[str, Refusal]] = {}
        self._stubborn: dict[_Names, dict[str, tuple[str, frozenset[str]]]] = {}
        self._status_written_at: dict[_Names, datetime] = {}

    # ---- news ------------------------------------------------------------------------------------------------

    def observe(self, manifest: Mapping[str, Any]) -> Key | None:
        """Take in an object as the API server showed it; returns the key to reconcile, None when nothing matters."""
        kind = manifest["kind"]
        if manifest["metadata"]["uid"] in self._buried:
            return None
        if kind == "Model":
            return self._observe_model(subject_from(manifest))
        if kind == "Pod":
            return self._observe_pod(pod_from(manifest))
        return self._observe_child(child_from(manifest), manifest)

    def forget(self, kind: str, namespace: str, name: str, uid: str) -> Key | None:
        """The object is gone; returns the key to reconcile."""
        self._buried[uid] = None
        while len(self._buried) > _TOMBSTONES:
            self._buried.popitem(last=False)
        names = (namespace, name)
        if kind == "Model":
            if (model := self._models.get(names)) is not None and model.uid == uid:
                del self._models[names]
                for memory in (self._refusals, self._stubborn, self._status_written_at):
                    memory.pop(names, None)  # type: ignore[attr-defined]
            return None  # the garbage collector does the rest
        if kind == "Pod":
            pod = self._pods.get(names)
            if pod is None or pod.uid != uid:
                return None
            del self._pods[names]
            owner = (namespace, pod.model)
            self._pods_of[owner].discard(names)
            if not self._pods_of[owner]:
                del self._pods_of[owner]
            return self._model_key(namespace, pod.model)
        child = self._children[kind].get(names)
        if child is None or child.uid != uid:
            return None
        del self._children[kind][names]
        self._digests.pop(uid, None)
        return self._model_key(namespace, child.model or name)

    def _observe_model(self, model: Subject) -> Key | None:
        names = (model.namespace, model.name)
        known = self._models.get(names)
        if not _is_news(known, model):
            return None
        self._models[names] = model
        if known is not None and known.uid == model.uid and _same_model(known, model):
            return None
        return Key("Model", *names)

    def _observe_pod(self, pod: Pod) -> Key | None:
        names = (pod.namespace, pod.name)
        known = self._pods.get(names)
        if not _is_news(known, pod):
            return None
        self._pods[names] = pod
        self._pods_of[pod.namespace, pod.model].add(names)
        if known is not None and known.uid == pod.uid and _same_pod(known, pod):
            return None
        return self._model_key(pod.namespace, pod.model)

    def _observe_child(self, child: Child, manifest: Mapping[str, Any]) -> Key | None:
        names = (child.namespace, child.name)
        known = self._children[child.kind].get(names)
        if not _is_news(known, child):
            return None
        self._children[child.kind][names] = child
        digest = _digest(manifest) if child.model else b""
        same = known is not None and known.uid == child.uid and self._digests.get(child.uid, b"") == digest
        if digest:
            self._digests[child.uid] = digest
        if same and known is not None and known.deleting == child.deleting:
            return None
        return self._model_key(child.namespace, child.model or child.name)

    def _model_key(self, namespace: str, name: str) -> Key | None:
        return Key("Model", namespace, name) if (namespace, name) in self._models else None

    # ---- what this process remembers of its own writes; all of it may be lost ------------------------------------

    def refuse(self, key: Key, refusal: Refusal) -> None:
        """Remember that the API server refused an object, for the next plan."""
        self._refusals.setdefault((key.namespace, key.name), {})[refusal.kind] = refusal

    def accept(self, key: Key, kind: str, applied_hash: str, unequal: frozenset[str]) -> None:
        """Remember that an object was applied, and which leaves the API server kept different."""
        names = (key.namespace, key.name)
        if (refusals := self._refusals.get(names)) and refusals.pop(kind, None) and not refusals:
            del self._refusals[names]
        if unequal:
            self._stubborn.setdefault(names, {})[kind] = (applied_hash, unequal)
        elif names in self._stubborn:
            self._stubborn[names].pop(kind, None)

    def status_written(self, key: Key, now: datetime) -> None:
        """Remember when the status was written."""
        self._status_written_at[key.namespace, key.name] = now

    # ---- what is known -------------------------------------------------------------------------------------------

    def gather(self, key: Key) -> ModelWorld | None:
        """The World for one Model; None when there is no such Model."""
        names = (key.namespace, key.name)
        model = self._models.get(names)
        if model is None:
            return None
        children = (self._children[kind].get(names) for kind in CHILD_KINDS)
        return ModelWorld(
            subject=model,
            children=tuple(child for child in children if child is not None),
            pods=tuple(self._pods[pod] for pod in sorted(self._pods_of.get(names, ()))),
            refusals=tuple(self._refusals.get(names, {}).values()),
            status_written_at=self._status_written_at.get(names),
            stubborn=self._stubborn.get(names, {}),
        )

    def model_keys(self) -> Iterator[Key]:
        """The keys of all Models."""
        for namespace, name in tuple(self._models):
            yield Key("Model", namespace, name)

    def phases(self) -> dict[str, int]:
        """How many Models are in each phase."""
        counts: defaultdict[str, int] = defaultdict(int)
        for model in self._models.values():
            counts[model.status.get("phase", "Pending")] += 1
        return dict(counts)

    def known(self, kind: str) -> dict[_Names, tuple[str, str]]:
        """uid and resourceVersion of every object of a kind, for the sweep."""
        table: Mapping[_Names, Subject | Pod | Child]
        table = {"Model": self._models, "Pod": self._pods}.get(kind) or self._children.get(kind, {})  # type: ignore[assignment]
        return {names: (seen.uid, seen.resource_version) for names, seen in table.items()}


def _is_news(known: _Projection | None, seen: _Projection) -> bool:
    return known is None or _version(seen.resource_version) > _version(known.resource_version)


def _same_model(known: Subject, seen: Subject) -> bool:
    """Whether nothing changed that a plan depends on. A changed status matters: somebody may have edited it."""
    parts: Callable[[Subject], tuple[Any, ...]] = lambda m: (
        m.generation,
        m.deleting,
        m.annotations,
        m.status,
    )  # noqa: E731
    return parts(known) == parts(seen)


def _same_pod(known: Pod, seen: Pod) -> bool:
    return all(getattr(known, field) == getattr(seen, field) for field in Pod.__slots__ if field != "resource_version")


def _digest(manifest: Mapping[str, Any]) -> bytes:
    """What of a child matters to a plan: all but its status, of which only refusals of Pods do."""
    metadata = manifest["metadata"]
    kept = [
        manifest.get("spec"),
        *(metadata.get(part) for part in ("labels", "annotations", "ownerReferences")),
    ]
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    kept.append([(c.get("message")) for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"])
    return hash(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)).to_bytes(8, "big", signed=True)
