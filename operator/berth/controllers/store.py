"""What the watches have seen, as projections in memory. The only place that knows the present state.

Newer beats older by resourceVersion, whoever brings it: a watch, a relist, a sweep or the answer to a write of
our own. Kubernetes promises comparable resourceVersions since 1.35 (KEP-5504) and has always kept to it.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import orjson

from berth.planning.world import Child, ModelWorld, Pod, Refusal, Subject, child_from, pod_from, subject_from

CHILD_KINDS = ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")
KINDS = ("Model", "Pod", *CHILD_KINDS)
_TOMBSTONES = 10_000
_NOTHING = b"{}"  # the body of an object that is not ours


class Key(NamedTuple):
    """Who a reconciliation is about."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


_Projection = TypeVar("_Projection", Subject, Pod, Child)
_Names = tuple[str, str]


def version_number(resource_version: str) -> int:
    """The resourceVersion as a number: the larger, the newer."""
    return int(resource_version) if resource_version.isdigit() else 0


class Store:
    """Projections by kind and name, with the index from a Model to its Pods."""

    def __init__(self) -> None:
        self._models: dict[_Names, Subject] = {}
        self._pods: dict[_Names, Pod] = {}
        self._children: dict[str, dict[_Names, Child]] = {kind: {} for kind in CHILD_KINDS}
        self._digests: dict[str, bytes] = {}  # uid of a child -> what of it matters to a plan
        self._pods_of: defaultdict[_Names, set[_Names]] = defaultdict(set)
        # uids of objects that are gone, with the version of their end: older news that comes late must not raise them
        self._buried: OrderedDict[str, float] = OrderedDict()
        self._refusals: dict[_Names, dict[str, Refusal]] = {}
        self._stubborn: dict[_Names, dict[str, tuple[str, frozenset[str]]]] = {}
        self._status_written_at: dict[_Names, datetime] = {}

    # ---- news ------------------------------------------------------------------------------------------------

    def observe(self, manifest: Mapping[str, Any]) -> Key | None:
        """Take in an object as the API server showed it; returns the key to reconcile, None when nothing matters."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        ended = self._buried.get(metadata["uid"])
        if ended is not None:
            if version_number(metadata["resourceVersion"]) <= ended:
                return None
            del self._buried[metadata["uid"]]
        if kind == "Model":
            return self._observe_model(subject_from(manifest))
        if kind == "Pod":
            return self._observe_pod(pod_from(manifest))
        return self._observe_child(child_from(manifest), manifest)

    def forget(self, kind: str, namespace: str, name: str, uid: str, resource_version: str | None = None) -> Key | None:
        """The object is gone; returns the key to reconcile.

        `resource_version` is that of its end. A watch with a label selector also calls an object deleted that has
        lost its labels, and which may come back: newer news of it is believed. None means gone for good.
        """
        ended = float("inf") if resource_version is None else version_number(resource_version)
        names = (namespace, name)
        table = self._table(kind)
        known = table.get(names)
        if known is not None and known.uid == uid and version_number(known.resource_version) > ended:
            return None  # it came back before the news of its end did
        self._bury(uid, ended)
        if known is None or known.uid != uid:
            return None
        del table[names]
        if isinstance(known, Subject):
            self._forget_memories(names)
            return None  # the garbage collector does the rest
        if isinstance(known, Pod):
            self._unlist(known)
            return self._model_key(namespace, known.model)
        self._digests.pop(uid, None)
        return self._model_key(namespace, name)

    def _table(self, kind: str) -> dict[_Names, Any]:
        if kind == "Model":
            return self._models
        return self._pods if kind == "Pod" else self._children[kind]

    def _bury(self, uid: str, ended: float) -> None:
        self._buried[uid] = max(ended, self._buried.get(uid, 0))
        self._buried.move_to_end(uid)
        while len(self._buried) > _TOMBSTONES:
            self._buried.popitem(last=False)

    def _unlist(self, pod: Pod) -> None:
        """Take a Pod out of the index."""
        owner = (pod.namespace, pod.model)
        self._pods_of[owner].discard((pod.namespace, pod.name))
        if not self._pods_of[owner]:
            del self._pods_of[owner]

    def _forget_memories(self, names: _Names) -> None:
        self._refusals.pop(names, None)
        self._stubborn.pop(names, None)
        self._status_written_at.pop(names, None)

    def _observe_model(self, model: Subject) -> Key | None:
        names = (model.namespace, model.name)
        known = self._models.get(names)
        if not _is_news(known, model):
            return None
        self._models[names] = model
        if known is not None and known.uid != model.uid:
            self._forget_memories(names)  # they are about a namesake that is gone
        if known is not None and known.uid == model.uid and _same_model(known, model):
            return None
        return Key("Model", *names)

    def _observe_pod(self, pod: Pod) -> Key | None:
        names = (pod.namespace, pod.name)
        known = self._pods.get(names)
        if not _is_news(known, pod):
            return None
        self._pods[names] = pod
        if known is not None and known.model != pod.model:
            self._unlist(known)  # somebody gave it another label, to take it out of service
        self._pods_of[pod.namespace, pod.model].add(names)
        if known is not None and known.uid == pod.uid and _same_pod(known, pod):
            return None
        key = self._model_key(pod.namespace, pod.model)
        if known is not None and known.model != pod.model:
            key = self._model_key(pod.namespace, known.model) or key
        return key

    def _observe_child(self, child: Child, manifest: Mapping[str, Any]) -> Key | None:
        names = (child.namespace, child.name)
        known = self._children[child.kind].get(names)
        if not _is_news(known, child):
            return None
        self._children[child.kind][names] = child
        digest = _digest(manifest) if child.body != _NOTHING else b""
        before = self._digests.pop(known.uid, b"") if known is not None else b""
        if digest:
            self._digests[child.uid] = digest
        same = known is not None and known.uid == child.uid and known.deleting == child.deleting and before == digest
        if same and known is not None and known.owner_uid == child.owner_uid:
            return None
        return self._model_key(child.namespace, child.name)  # whatever its labels say: a child has its Model's name

    def _model_key(self, namespace: str, name: str) -> Key | None:
        return Key("Model", namespace, name) if (namespace, name) in self._models else None

    # ---- what this process remembers of its own writes; all of it may be lost ------------------------------------

    def refuse(self, key: Key, refusal: Refusal) -> None:
        """Remember that the API server refused an object, for the next plan."""
        if (key.namespace, key.name) not in self._models:
            return  # deleted meanwhile
        self._refusals.setdefault((key.namespace, key.name), {})[refusal.kind] = refusal

    def accept(self, key: Key, kind: str, applied_hash: str, unequal: frozenset[str]) -> None:
        """Remember that an object was applied, and which leaves the API server kept different."""
        names = (key.namespace, key.name)
        if names not in self._models:
            return  # deleted meanwhile
        if (refusals := self._refusals.get(names)) and refusals.pop(kind, None) and not refusals:
            del self._refusals[names]
        if unequal:
            self._stubborn.setdefault(names, {})[kind] = (applied_hash, unequal)
        elif names in self._stubborn:
            self._stubborn[names].pop(kind, None)

    def status_written(self, key: Key, now: datetime) -> None:
        """Remember when the status was written."""
        if (key.namespace, key.name) in self._models:
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
        return {names: (seen.uid, seen.resource_version) for names, seen in self._table(kind).items()}


def _is_news(known: _Projection | None, seen: _Projection) -> bool:
    return known is None or version_number(seen.resource_version) > version_number(known.resource_version)


def _same_model(known: Subject, seen: Subject) -> bool:
    """Whether nothing changed that a plan depends on. A changed status matters: somebody may have edited it."""
    return (
        known.generation == seen.generation
        and known.deleting == seen.deleting
        and known.annotations == seen.annotations
        and known.status == seen.status
    )


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
