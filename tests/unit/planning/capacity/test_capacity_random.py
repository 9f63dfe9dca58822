"""Hundreds of random clusters and events, more than the quick properties can look at: see support/gpu_simulation."""

import random
from dataclasses import replace

import pytest

from berth.api.model import RolloutStrategy
from berth.api.model_status import MemorySource
from berth.planning.capacity.planner import Planner
from berth.planning.capacity.world import Demand, GpuPod, Need
from support.gpu_clusters import GPU
from support.gpu_simulation import Simulation
from unit.planning.capacity.test_capacity_properties import SIZES, come_to_rest

SEQUENCES, STEPS = 40, 60
"""For each of the ten tests below."""


class Driver:
    """Draws a cluster and what happens to it from one seed; small clusters that are always full find most."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.sim = Simulation(seed)
        loads = self.chance.choice((1, 1, 3))
        self.sim.policy = replace(self.sim.policy, loads_per_node=loads, loads_per_cluster=loads + 2)
        for name in "abc"[: self.chance.randint(1, 3)]:
            self.node(name)
        for _ in range(self.chance.randint(2, 6)):
            self.model()
        self.rules = (
            *(self.model,) * 3,
            *(self.change,) * 3,
            *(self.roll,) * 3,
            *(self.delete,) * 2,
            *(self.of_others,) * 2,
            *(self.end,) * 2,
            *(self.go_on,) * 10,
            *(self.sim.deployments,) * 4,
            *(self.sim.settle,) * 4,
            *(self.time,) * 3,
            self.cordon,
            *(self.grab,) * 2,
            self.come_or_go,
            self.restart,
        )

    def run(self) -> None:
        """All of it, and whether it comes to rest."""
        for _ in range(STEPS):
            self.chance.choice(self.rules)()
            self.sim.step += 1
            self.sim.carry_out()
        come_to_rest(self.sim)

    def node(self, name: str) -> None:
        total, gpus = self.chance.choice(SIZES), self.chance.randint(1, 4)
        self.sim.add_node(name, [total] * gpus, self.chance.choice((1, 1, 3)))

    def model(self) -> None:
        if len(self.sim.models) >= 8:
            return
        memory = self.chance.choice((None, 5000, 5000, 20000, 20000, 40000))
        source, shared = (MemorySource.DECLARED if memory else None), self.chance.random() < 0.3
        need = Need(self.chance.choice((1, 1, 1, 2)), GPU, memory, source, shared)
        key = f"default/m-{self.sim.step:03}-{len(self.sim.models)}"
        self.sim.models[key] = Demand(
            key, self.sim.now, self.chance.choice((1, 1, 2, 3)), 0, need, self.priority(),
            autoscaled=self.chance.random() < 0.2,
        )  # fmt: skip

    def priority(self) -> int:
        return self.chance.choice((10, 100, 500))

    def pick(self) -> str:
        if not self.sim.models:
            self.model()
        return self.chance.choice(sorted(self.sim.models))

    def change(self) -> None:
        key = self.pick()
        self.sim.models[key] = replace(self.sim.models[key], wanted=self.chance.randint(0, 3), priority=self.priority())

    def roll(self) -> None:
        self.sim.roll(self.pick(), self.chance.choice(list(RolloutStrategy)))

    def delete(self) -> None:
        key = self.pick()
        del self.sim.models[key]
        for uid in [pod.uid for pod in self.sim.pods.values() if pod.model == key]:
            self.sim.end(uid)

    def of_others(self) -> None:
        uid = f"foreign-{self.sim.step:04}"
        gpus, priority = self.chance.randint(1, 2), self.chance.choice((-5, 0))
        self.sim.pods[uid] = GpuPod(uid, uid, self.sim.now, {GPU: gpus}, pod_priority=priority)

    def end(self) -> None:
        if self.sim.pods:
            self.sim.end(self.chance.choice(sorted(self.sim.pods)))

    def go_on(self) -> None:
        self.sim.happen(self.chance.randrange(2**16))

    def time(self) -> None:
        self.sim.passes(self.chance.choice((1, 30, 61, 130, 650, 2000)))

    def cordon(self) -> None:
        if self.sim.nodes:
            site = self.sim.nodes[self.chance.choice(sorted(self.sim.nodes))]
            site.node = replace(site.node, unschedulable=not site.node.unschedulable)

    def grab(self) -> None:
        if self.sim.nodes:
            name = self.chance.choice(sorted(self.sim.nodes))
            self.sim.grab(name, self.chance.randrange(8), self.chance.choice((0, 0, 300, 9000, 30000)))

    def come_or_go(self) -> None:
        name = self.chance.choice("abcd")
        if name in self.sim.nodes:
            self.sim.drop_node(name)
        else:
            self.node(name)

    def restart(self) -> None:
        self.sim.planner = Planner()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 10 * SEQUENCES, SEQUENCES))
def test_what_must_never_be_never_is(first: int) -> None:
    for seed in range(first, first + SEQUENCES):
        try:
            Driver(seed).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
