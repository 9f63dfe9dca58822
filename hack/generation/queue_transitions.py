"""Transitions of Models that wait for GPUs: found by playing what may happen to some of them that share one GPU.

The operator's own parts decide, in the simulated cluster of the tests: `decide`, the store and the capacity planner.
"""

from typing import Any

from generation.transitions import Transition
from support.queue_simulation import Manifest, QueueSimulation


class _Watched(QueueSimulation):
    """A simulation that is asked which transitions its operator has shown."""

    def __init__(self, **more: Any) -> None:
        self.shown: set[Transition] = set()
        super().__init__(**more)

    def keep(self, manifest: Manifest, *, own: bool = False) -> Manifest:
        name = manifest["metadata"]["name"]
        if own and manifest["kind"] == "Model":
            before = self.status(name).get("phase", "Pending")
            status = manifest["status"]
            if before != status["phase"]:
                reason = next(c["reason"] for c in status["conditions"] if c["type"] == "Ready")
                self.shown.add(Transition(before, status["phase"], reason))
        return super().keep(manifest, own=own)


def queue_transitions() -> frozenset[Transition]:
    """Those of the story below."""
    sim = _Watched(nodes=(1,))

    def then(event: Any) -> None:
        event()
        sim.settle()

    then(lambda: sim.add_model("a"))
    then(lambda: sim.add_model("waits"))
    then(lambda: sim.edit("waits", state="Stopped"))
    then(lambda: sim.edit("waits", state="Running"))
    then(lambda: sim.edit("waits", serving={"image": "server:2"}))
    then(lambda: sim.edit("a", serving={"image": "server:2"}))  # in place: there is no other GPU
    then(lambda: sim.add_model("vip", priority=500))  # a makes way
    then(lambda: sim.delete("vip"))
    then(lambda: sim.edit("a", replicas=2))  # one of them waits
    then(lambda: sim.edit("a", replicas=0))
    then(lambda: sim.edit("a", replicas=1))
    then(lambda: sim.delete("waits"))
    then(lambda: sim.add_model("large", gpus=4))  # fits nowhere until a node appears
    then(lambda: sim.add_node("large", 4))
    then(lambda: sim.edit("a", replicas=3))
    then(lambda: sim.edit("large", state="Stopped"))
    return frozenset(sim.shown)
