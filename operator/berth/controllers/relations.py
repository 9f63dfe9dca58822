"""Which objects concern which Model or ModelCache: the indexes of the store."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from berth.planning import names
from berth.planning.artifacts import cache_of
from berth.planning.gpu_nodes import GPU_NODE
from berth.planning.pods import Pod
from berth.planning.world import CLAIM, Child, Subject

_Names = tuple[str, str]
_K = TypeVar("_K")
_V = TypeVar("_V")


class Key(NamedTuple):
    """Who a reconciliation is about."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


class Relations:
    """From an object to the subjects that it concerns, and from a subject to what concerns it."""

    def __init__(self) -> None:
        self._pods: defaultdict[Key, set[_Names]] = defaultdict(set)
        self._jobs: defaultdict[Key, set[str]] = defaultdict(set)
        self._models: defaultdict[Key, set[Key]] = defaultdict(set)  # of a ModelCache, whether it exists or not
        self._cache: dict[Key, Key] = {}  # of a Model
        self._claim: dict[Key, str] = {}  # of a ModelCache
        self._caches_on: defaultdict[_Names, set[Key]] = defaultdict(set)  # by claim

    # ---- Pods ---------------------------------------------------------------------------------------------------

    @staticmethod
    def of_pod(pod: Pod) -> Iterator[Key]:
        """Whom a Pod concerns: its Model, and the ModelCache whose volume it uses."""
        if pod.model:
            yield Key("Model", pod.namespace, pod.model)
        if pod.cache:
            yield Key("ModelCache", pod.namespace, pod.cache)

    def put_pod(self, pod: Pod) -> None:
        """A Pod is there."""
        for key in self.of_pod(pod):
            self._pods[key].add((pod.namespace, pod.name))

    def drop_pod(self, pod: Pod) -> None:
        """A Pod is gone, or about to be put again."""
        for key in self.of_pod(pod):
            _discard(self._pods, key, (pod.namespace, pod.name))

    def pods_of(self, key: Key) -> set[_Names]:
        """Places of the Pods that concern a subject."""
        return self._pods.get(key, set())

    # ---- subjects -----------------------------------------------------------------------------------------------

    def put_subject(self, known: Subject | None, seen: Subject) -> list[Key]:
        """A Model or ModelCache is there; returns whom else it concerns, if anything of that changed."""
        key = Key(seen.kind, seen.namespace, seen.name)
        if seen.kind == "ModelCache":
            return self._put_cache(key, known, seen)
        name = cache_of(seen.spec)
        cache = Key("ModelCache", seen.namespace, name) if name else None
        before = self._cache.get(key)
        if before is not None and before != cache:
            _discard(self._models, before, key)
            del self._cache[key]
        if cache is not None:
            self._cache[key] = cache
            self._models[cache].add(key)
        changed = known is None or known.generation != seen.generation or known.deleting != seen.deleting
        return [one for one in (before, cache) if one is not None] if changed else []

    def _put_cache(self, key: Key, known: Subject | None, seen: Subject) -> list[Key]:
        claim = ((seen.spec.get("storage") or {}).get("claim")) or names.cache_object(seen.name)
        before = self._claim.get(key)
        if before is not None and before != claim:
            _discard(self._caches_on, (seen.namespace, before), key)
        self._claim[key] = claim
        self._caches_on[seen.namespace, claim].add(key)
        models = self._models.get(key, set())
        if known is None or known.deleting != seen.deleting or _claim_of(known) != _claim_of(seen):
            return sorted(models)
        return sorted(models) if _standing(known) != _standing(seen) else self._whose_artifact_changed(known, seen)

    def _whose_artifact_changed(self, known: Subject, seen: Subject) -> list[Key]:
        """The Models that refer to an artifact whose entry is another than before."""
        before = {entry["name"]: entry for entry in known.status.get("artifacts") or ()}
        after = {entry["name"]: entry for entry in seen.status.get("artifacts") or ()}
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        models = {model for name in changed for model in _models_of(before.get(name)) | _models_of(after.get(name))}
        return [Key("Model", seen.namespace, model) for model in sorted(models)]

    def drop_subject(self, subject: Subject) -> list[Key]:
        """A Model or ModelCache is gone; returns whom that concerns."""
        key = Key(subject.kind, subject.namespace, subject.name)
        if subject.kind == "ModelCache":
            claim = self._claim.pop(key, None)
            if claim is not None:
                _discard(self._caches_on, (subject.namespace, claim), key)
            return sorted(self._models.get(key, set()))
        cache = self._cache.pop(key, None)
        if cache is None:
            return []
        _discard(self._models, cache, key)
        return [cache]

    def cache_of(self, model: Key) -> Key | None:
        """The ModelCache that a Model's weights belong to, whether it exists or not."""
        return self._cache.get(model)

    def models_of(self, cache: Key) -> list[Key]:
        """The Models whose weights belong to a ModelCache."""
        return sorted(self._models.get(cache, set()))

    def claim_of(self, cache: Key) -> str:
        """Name of the claim of a ModelCache."""
        return self._claim.get(cache, "")

    # ---- children -----------------------------------------------------------------------------------------------

    def put_child(self, known: Child | None, child: Child) -> list[Key]:
        """A child is there; returns whom it concerns."""
        if known is not None and known.kind == "Job" and known.cache:
            _discard(self._jobs, Key("ModelCache", known.namespace, known.cache), known.name)
        if child.kind == "Job" and child.cache:
            self._jobs[Key("ModelCache", child.namespace, child.cache)].add(child.name)
        return self.of_child(child)

    def drop_child(self, child: Child) -> list[Key]:
        """A child is gone; returns whom that concerns."""
        if child.kind == "Job" and child.cache:
            _discard(self._jobs, Key("ModelCache", child.namespace, child.cache), child.name)
        return self.of_child(child)

    def of_child(self, child: Child) -> list[Key]:
        """Whom a child concerns: whatever its labels say, a child of a Model has the Model's name."""
        if child.kind == GPU_NODE:
            return [Key("Node", "", child.name)]
        if child.kind == CLAIM:
            return sorted(self._caches_on.get((child.namespace, child.name), set()))
        caches = [Key("ModelCache", child.namespace, child.cache)] if child.cache else []
        if child.kind == "NetworkPolicy" and child.name.startswith(names.cache_object("")):
            caches.append(Key("ModelCache", child.namespace, child.name.removeprefix(names.cache_object(""))))
        return caches if child.kind == "Job" else [Key("Model", child.namespace, child.name), *caches]

    def jobs_of(self, cache: Key) -> set[str]:
        """Names of the Jobs of a ModelCache."""
        return self._jobs.get(cache, set())


def _discard(index: defaultdict[_K, set[_V]], key: _K, value: _V) -> None:
    """Take a value out of an index that keeps no empty sets."""
    index[key].discard(value)
    if not index[key]:
        del index[key]


def _claim_of(cache: Subject) -> tuple[object, ...]:
    """What of a cache decides how Models mount it."""
    return cache.status.get("claim"), cache.status.get("accessMode")


def _standing(cache: Subject) -> tuple[object, ...]:
    """Whether a cache as a whole can be used."""
    return (cache.status.get("phase") == "Failed",)


def _models_of(entry: object) -> set[str]:
    return set(entry.get("models") or ()) if isinstance(entry, dict) else set()
