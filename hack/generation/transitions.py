"""Which transitions a Model really makes: found by trying out, from everywhere, what people, nodes and mishaps may do.

The decisions are the operator's own, `model_plan.decide`, carried out in the simulated cluster of the tests. States
that differ only in times and names count as one, so that the search comes to an end.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from berth.planning import names
from berth.planning.intent import WAKE_ANNOTATION
from support import builders
from support.simulation import Manifest, Simulation, ready

_LOOK = timedelta(seconds=3)
"""Time between two looks of the operator: longer than a Service has to be closed before its servers stop."""


@dataclass(frozen=True, order=True)
class Transition:
    """A change of the phase, and the reason that the new one gives."""

    before: str
    after: str
    reason: str


class _Explored(Simulation):
    """A simulation that can be copied, compared, and asked which transitions its operator has shown."""

    def __init__(self, **spec: Any) -> None:
        self.shown: set[Transition] = set()
        super().__init__(**spec)

    def copy(self) -> "_Explored":
        """The same cluster, with an operator that has just started: what it decides is in the cluster."""
        twin = copy.copy(self)
        twin.objects, twin.shown = dict(self.objects), self.shown
        twin.restart()
        return twin

    def write_status(self, status: Any) -> None:
        before = self.status.get("phase", "Pending")
        if before != status["phase"]:
            reason = next(c["reason"] for c in status["conditions"] if c["type"] == "Ready")
            self.shown.add(Transition(before, status["phase"], reason))
        super().write_status(status)

    def key(self) -> tuple[Any, ...]:
        """What makes two states different."""
        status, spec, deployment = self.status, self.model["spec"], self.objects.get(("Deployment", "m"))
        service = self.objects.get(("Service", "m"), {"spec": {"selector": {}}})
        wishes = spec.get("state", "Running"), spec.get("replicas"), bool(spec.get("podTemplate"))
        told = [(c["type"], c["status"], c["reason"]) for c in status.get("conditions", ())]
        seen = status.get("observedGeneration", -1) == self.model["metadata"]["generation"]
        template = deployment["spec"]["template"] if deployment else None
        rolled = (deployment["spec"]["replicas"], _image(template) == spec["serving"]["image"]) if template else None
        pods = sorted((template is not None and _mark(pod) == _mark(template), *_stage(pod)) for pod in self.pods())
        woken = WAKE_ANNOTATION in self.model["metadata"].get("annotations", {})
        cached = self.objects.get(("ModelCache", builders.CACHE), {}).get("status")
        closed = names.CLOSED_LABEL in service["spec"]["selector"]
        return tuple(map(repr, (wishes, woken, status.get("phase"), told, seen, rolled, closed, pods, cached)))


def _mark(template: Manifest) -> str:
    found: str = template["metadata"]["labels"][names.TEMPLATE_HASH_LABEL]
    return found


def _image(template: Manifest) -> str:
    found: str = template["spec"]["containers"][0]["image"]
    return found


def _stage(pod: Manifest) -> tuple[Any, ...]:
    states = [(one["state"].keys(), one["restartCount"]) for one in pod["status"].get("containerStatuses", ())]
    going = "deletionTimestamp" in pod["metadata"]
    return going, bool(pod["spec"]), ready(pod), str(states), str(pod["status"]["conditions"][0].get("reason"))


# ---- what may happen -------------------------------------------------------------------------------------------

Event = Callable[[_Explored], object]


def _world_goes_on(cluster: _Explored) -> None:
    """Controller manager, scheduler and kubelet each take a step."""
    cluster.roll_out()
    for pod in cluster.pods():
        cluster.run_pod(pod)


def _changes(**spec: Any) -> Event:
    """A person changes the spec, unless it is so already."""

    def event(cluster: _Explored) -> None:
        if any(cluster.model["spec"].get(field) != value for field, value in spec.items()):
            cluster.edit(**spec)

    return event


def _changes_the_image(cluster: _Explored) -> None:
    other = "server:2" if cluster.model["spec"]["serving"]["image"] == "server:1" else "server:1"
    cluster.edit(serving={"image": other})


def _crashes(restarts: int) -> Event:
    def event(cluster: _Explored) -> None:
        cluster.crash(restarts)

    return event


def _starts_again(cluster: _Explored) -> None:
    """The kubelet starts a server again that has crashed."""
    for pod in cluster.pods():
        if any(one["state"].get("waiting") for one in pod["status"].get("containerStatuses", ())):
            since = -cluster.elapsed()
            server = builders.container(running_for=since, restarts=1)
            labels = {"template": _mark(pod), "node": "n1", "phase": "Running", "created": since}
            cluster.keep(builders.pod(pod["metadata"]["name"], containers=(server,), **labels))


def _loses_a_pod(cluster: _Explored) -> None:
    """One is deleted, evicted, or goes with its node."""
    staying = [pod for pod in cluster.pods() if "deletionTimestamp" not in pod["metadata"]]
    if staying:
        cluster.end(staying[0])


def _wakes(cluster: _Explored) -> None:
    metadata = {**cluster.model["metadata"], "annotations": {WAKE_ANNOTATION: "now"}}
    cluster.keep({**cluster.model, "metadata": metadata})


def _cache_says(**entry: Any) -> Event:
    told = {"observedGeneration": 1, "phase": "Ready", "claim": "modelcache-default", "accessMode": "ReadWriteOnce"}

    def event(cluster: _Explored) -> None:
        cluster.keep(builders.model_cache(status={**told, "artifacts": [builders.entry(**entry)]}))

    return event


_MISHAPS: tuple[Event, ...] = (_crashes(1), _crashes(9), _starts_again, _loses_a_pod)
_WISHES: tuple[Event, ...] = (
    _changes(state="Stopped"),
    _changes(state="Running"),
    _changes_the_image,
    _changes(podTemplate={"spec": {"hostNetwork": True}}),
    _changes(podTemplate={}),
)
_DOWNLOADS: tuple[Event, ...] = (
    _cache_says(state="Downloading"),
    _cache_says(state="Failed", reason="TokenMissing", message="set source.secretRef"),
    _cache_says(),
    _changes(state="Stopped"),
    _changes(state="Running"),
)
_CASES: tuple[tuple[dict[str, Any], tuple[Event, ...]], ...] = (
    ({"gpus": {"count": 1}}, _WISHES + _MISHAPS),
    ({"gpus": {"count": 0}}, _WISHES + _MISHAPS),
    ({"gpus": {"count": 0}, "replicas": 2}, (_changes(replicas=0), _changes(replicas=1), _changes(replicas=2), *_MISHAPS)),
    ({"state": "OnDemand"}, (_wakes, _loses_a_pod)),
    ({"source": {"uri": builders.URI}, "gpus": {"count": 0}}, _DOWNLOADS),
)
"""Models, and what may happen to each of them at any moment."""


# ---- the search ------------------------------------------------------------------------------------------------


@cache
def transitions() -> frozenset[Transition]:
    """Every transition that was found."""
    return frozenset(found for spec, events in _CASES for found in _explore(_Explored(**spec), events))


def _explore(first: _Explored, events: tuple[Event, ...]) -> set[Transition]:
    """From every state that can be reached: nothing special happens, or one of the events does."""
    known, waiting = {first.key()}, deque([first])
    while waiting:
        for state in _next(waiting.popleft(), events):
            key = state.key()
            if key not in known:
                known.add(key)
                waiting.append(state)
    return first.shown


def _next(state: _Explored, events: tuple[Event, ...]) -> Iterator[_Explored]:
    for event in (_world_goes_on, *events):
        twin = state.copy()
        event(twin)
        twin.now += _LOOK
        twin.reconcile()
        yield twin
