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
from berth.planning.starting import START_ANNOTATION
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
        told = [c["reason"] for c in status.get("conditions", ()) if c["type"] in ("Ready", "Provisioned")]
        seen = status.get("observedGeneration", -1) == self.model["metadata"]["generation"]
        template = deployment["spec"]["template"] if deployment else None
        rolled = (deployment["spec"]["replicas"], _image(template) == spec["serving"]["image"]) if template else None
        pods = sorted((template is not None and _mark(pod) == _mark(template), *_stage(pod)) for pod in self.pods())
        woken = START_ANNOTATION in self.model["metadata"].get("annotations", {})
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
    states = [(*one["state"], one["restartCount"]) for one in pod["status"].get("containerStatuses", ())]
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
    """The servers end, and are held back by the kubelet; after so many times, Berth gives them up."""

    def event(cluster: _Explored) -> None:
        for pod in _with_a_server(cluster, "running"):
            since = -cluster.elapsed()
            last = builders.ended(1, ended_before=1 + since)
            server = builders.container(waiting="CrashLoopBackOff", restarts=restarts, last=last)
            cluster.keep(builders.pod(pod["metadata"]["name"], containers=(server,), **_on_a_node(cluster, pod)))

    return event


def _starts_again(cluster: _Explored) -> None:
    """The kubelet starts a server again that has crashed."""
    for pod in _with_a_server(cluster, "waiting"):
        server = builders.container(running_for=-cluster.elapsed(), restarts=1)
        cluster.keep(builders.pod(pod["metadata"]["name"], containers=(server,), **_on_a_node(cluster, pod)))


def _with_a_server(cluster: _Explored, state: str) -> list[Manifest]:
    """Pods that stay, and whose server is in this state."""
    return [
        pod
        for pod in cluster.pods()
        if "deletionTimestamp" not in pod["metadata"]
        and any(state in one["state"] for one in pod["status"].get("containerStatuses", ()))
    ]


def _on_a_node(cluster: _Explored, pod: Manifest) -> dict[str, Any]:
    return {"template": _mark(pod), "node": "n1", "phase": "Running", "created": -cluster.elapsed()}


def _loses_a_pod(cluster: _Explored) -> None:
    """One is deleted, evicted, or goes with its node."""
    staying = [pod for pod in cluster.pods() if "deletionTimestamp" not in pod["metadata"]]
    if staying:
        cluster.end(staying[0])


def _wakes(cluster: _Explored) -> None:
    metadata = {**cluster.model["metadata"], "annotations": {START_ANNOTATION: "now"}}
    cluster.keep({**cluster.model, "metadata": metadata})


def _cache_says(**entry: Any) -> Event:
    told = {"observedGeneration": 1, "phase": "Ready", "claim": "modelcache-default", "accessMode": "ReadWriteOnce"}

    def event(cluster: _Explored) -> None:
        cluster.keep(builders.model_cache(status={**told, "artifacts": [builders.entry(**entry)]}))

    return event


_MISHAPS: tuple[Event, ...] = (_crashes(1), _crashes(9), _starts_again, _loses_a_pod)
_STOP, _RUN = _changes(state="Stopped"), _changes(state="Running")
_BREAK, _MEND = _changes(podTemplate={"spec": {"hostNetwork": True}}), _changes(podTemplate={})
_SCALE = tuple(_changes(replicas=number) for number in (0, 1, 2))
_DOWNLOADS: tuple[Event, ...] = (
    _cache_says(state="Downloading"),
    _cache_says(state="Failed", reason="TokenMissing", message="set source.secretRef"),
    _cache_says(),
    _STOP,
    _RUN,
)
_CASES: tuple[tuple[dict[str, Any], tuple[Event, ...]], ...] = (
    ({"gpus": {"count": 1}}, (_STOP, _RUN, _changes_the_image, _BREAK, _MEND, *_MISHAPS)),
    ({"gpus": {"count": 0}}, (_STOP, _RUN, _changes_the_image, _BREAK, _MEND, _crashes(9))),
    ({"gpus": {"count": 0}, "replicas": 2}, (*_SCALE, _crashes(1), _loses_a_pod)),
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
        if event is not _world_goes_on and twin.version == state.version:
            continue  # it changes nothing here
        twin.now += _LOOK
        twin.reconcile()
        yield twin
