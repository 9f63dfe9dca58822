"""Where the queue for GPUs leads when it is carried out step by step, in any order, and cut off anywhere."""

import pytest

from support.queue_simulation import QueueSimulation

NODES = ((2, 1), (1,), (4,), (2, 2), (3, 1, 1))
"""GPUs of the nodes. Models ask for one or two, so that some fit nowhere."""


def _shake(sim: QueueSimulation, steps: int) -> None:
    """Random events, with the operator cut off now and then."""
    chance = sim.chance
    for _ in range(steps):
        event = chance.random()
        models = sorted(name for kind, name in sim.objects if kind == "Model")
        if event < 0.06 and len(models) < 6:
            sim.add_model(f"m{sim.version}", chance.choice((1, 1, 2)), priority=chance.choice((10, 100, 500)))
        elif event < 0.10 and models:
            sim.edit(chance.choice(models), priority=chance.choice((10, 100, 500)))
        elif event < 0.14 and models:
            sim.edit(chance.choice(models), replicas=chance.randint(0, 3))
        elif event < 0.18 and models:
            sim.edit(chance.choice(models), serving={"image": f"server:{sim.version}"})
        elif event < 0.20 and models:
            sim.edit(chance.choice(models), state=chance.choice(("Running", "Stopped")))
        elif event < 0.22 and models:
            sim.delete(chance.choice(models))
        elif event < 0.25 and sim.left is None:
            sim.left = chance.randint(0, 4)
        elif event < 0.27:
            sim.passes(chance.choice((1, 10, 61, 700)))
        elif event < 0.28 and (pods := list(sim.of_kind("Pod"))):
            sim.end(chance.choice(pods))
        else:
            sim.something_happens()


def _comes_to_rest(sim: QueueSimulation) -> None:
    sim.left = None
    sim.settle()
    models = {name: model for (kind, name), model in sim.objects.items() if kind == "Model"}
    waiting = {name: model for name, model in models.items() if model["status"]["phase"] == "Queued"}
    phases = {model["status"]["phase"] for model in models.values()}
    assert phases <= {"Ready", "Queued", "Stopped", "Updating", "Degraded", "Failed"}, phases
    free = sim.free()
    for model in waiting.values():
        if model["status"]["queue"].get("position") == "1":
            assert model["spec"]["gpus"]["count"] > max(free.values()), model["status"]["queue"]
    before = sim.versions()
    sim.restart()
    sim.settle()
    changed = {where for where, version in sim.versions().items() if before.get(where) != version}
    assert not changed, "a process that takes over has something to write"


@pytest.mark.parametrize("seed", range(15))
def test_whatever_happens_it_comes_to_rest_with_everybody_in_that_fits(seed: int) -> None:
    sim = QueueSimulation(seed, NODES[seed % len(NODES)])
    _shake(sim, 120)
    _comes_to_rest(sim)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1200, 40))
def test_so_it_does_many_times(first: int) -> None:
    for seed in range(first, first + 40):
        test_whatever_happens_it_comes_to_rest_with_everybody_in_that_fits(seed)
