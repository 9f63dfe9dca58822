"""What holds in every cluster and after every event: see support/gpu_simulation, which asserts most of it."""

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from berth.api.model import RolloutStrategy
from berth.api.model_status import MemorySource
from berth.planning.capacity.planner import Planner, plan_capacity
from berth.planning.capacity.rooms import holds, survey
from berth.planning.capacity.world import Demand, GpuPod, Need
from support.gpu_clusters import GPU
from support.gpu_simulation import Simulation

SIZES = (8000, 24000, 48000)
names = st.sampled_from("abcd")
numbers = st.integers(0, 7)
seeds = st.integers(0, 2**16)
asks = {
    "wanted": st.sampled_from((1, 1, 2, 3)),
    "count": st.sampled_from((1, 1, 1, 2)),
    "memory": st.sampled_from((None, 5000, 5000, 20000, 20000, 40000)),
    "priority": st.sampled_from((10, 100, 500)),
    "shared": st.sampled_from((False, False, True)),
    "autoscaled": st.sampled_from((False, False, False, True)),
}
"""What a random Model asks for."""


class Clusters(RuleBasedStateMachine):
    """Random clusters, random events in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.sim = Simulation()
        self._models = 0

    @initialize(
        loads=st.sampled_from((1, 1, 3)),
        nodes=st.lists(st.tuples(st.sampled_from(SIZES), st.integers(1, 4), st.sampled_from((1, 1, 3))), max_size=3),
        models=st.lists(st.tuples(*asks.values()), max_size=6),
    )
    def a_cluster(self, loads: int, nodes: list[tuple[int, int, int]], models: list[tuple[Any, ...]]) -> None:
        self.sim.policy = replace(self.sim.policy, loads_per_node=loads, loads_per_cluster=loads + 2)
        for name, (total, gpus, slots) in zip("abc", nodes, strict=False):
            self.sim.add_node(name, [total] * gpus, slots)
        for ask in models:
            self.model_appears(**dict(zip(asks, ask, strict=True)))

    # ---- nodes -----------------------------------------------------------------------------------------------

    @rule(name=names, total=st.sampled_from(SIZES), gpus=st.integers(1, 4), slots=st.sampled_from((1, 1, 3)))
    def node_appears(self, name: str, total: int, gpus: int, slots: int) -> None:
        if name not in self.sim.nodes:
            self.sim.add_node(name, [total] * gpus, slots)

    @rule(name=names)
    def node_vanishes(self, name: str) -> None:
        if name in self.sim.nodes:
            self.sim.drop_node(name)

    @rule(name=names, cordoned=st.booleans())
    def node_is_cordoned_or_not(self, name: str, cordoned: bool) -> None:
        if name in self.sim.nodes:
            site = self.sim.nodes[name]
            site.node = replace(site.node, unschedulable=cordoned)

    @rule(name=names, number=numbers, mib=st.sampled_from((0, 300, 9000, 30000)))
    def a_foreign_process_uses_memory(self, name: str, number: int, mib: int) -> None:
        if name in self.sim.nodes:
            self.sim.grab(name, number, mib)

    # ---- Models ----------------------------------------------------------------------------------------------

    @rule(**asks)
    def model_appears(
        self, wanted: int, count: int, memory: int | None, priority: int, shared: bool, autoscaled: bool
    ) -> None:
        self._models += 1
        need = Need(count, GPU, memory, MemorySource.DECLARED if memory else None, shared)
        key = f"default/m-{self._models:02}"
        demand = Demand(key, self.sim.now, wanted, 0, need, priority, autoscaled=autoscaled)
        self.sim.models[key] = demand

    def _pick(self, number: int) -> str | None:
        keys = sorted(self.sim.models)
        return keys[number % len(keys)] if keys else None

    @rule(number=numbers, wanted=st.integers(0, 3), priority=st.sampled_from((10, 100, 500)))
    def model_changes(self, number: int, wanted: int, priority: int) -> None:
        if key := self._pick(number):
            self.sim.models[key] = replace(self.sim.models[key], wanted=wanted, priority=priority)

    @rule(number=numbers, wish=st.sampled_from(RolloutStrategy))
    def template_changes(self, number: int, wish: RolloutStrategy) -> None:
        if key := self._pick(number):
            self.sim.roll(key, wish)

    @rule(number=numbers)
    def model_is_deleted(self, number: int) -> None:
        if key := self._pick(number):
            del self.sim.models[key]
            for uid in [pod.uid for pod in self.sim.pods.values() if pod.model == key]:
                self.sim.end(uid)

    # ---- Pods ------------------------------------------------------------------------------------------------

    @rule(gpus=st.integers(1, 2), priority=st.sampled_from((-5, 0)))
    def pod_of_others_appears(self, gpus: int, priority: int) -> None:
        uid = f"foreign-{self.sim.step:04}"
        self.sim.pods[uid] = GpuPod(uid, uid, self.sim.now, {GPU: gpus}, pod_priority=priority)

    @rule(number=st.integers(0, 40))
    def pod_is_deleted_by_somebody(self, number: int) -> None:
        if self.sim.pods:
            self.sim.end(sorted(self.sim.pods)[number % len(self.sim.pods)])

    @rule(seed=seeds)
    def some_of_it_goes_on(self, seed: int) -> None:
        self.sim.happen(seed)

    # ---- time and the planner --------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1, 30, 61, 130, 650, 2000)))
    def time_passes(self, seconds: int) -> None:
        self.sim.passes(seconds)

    @rule()
    def operator_restarts(self) -> None:
        self.sim.planner = Planner()

    @rule()
    def controllers_act(self) -> None:
        self.sim.deployments()

    @rule()
    def all_goes_on(self) -> None:
        self.sim.settle()

    @invariant()
    def the_plan_is_carried_out(self) -> None:
        self.sim.step += 1
        self.sim.carry_out()

    def teardown(self) -> None:
        come_to_rest(self.sim)


def come_to_rest(sim: Simulation) -> None:
    """Without further events everything settles: whoever could be admitted is, and nobody is stopped for ever."""
    quiet = 0
    sim.prompt = 1
    for _ in range(200):
        before = (sim.models, dict(sim.pods))
        sim.step += 1
        models = dict(sim.models)
        preemptions = sim.preemptions
        for _ in range(3):
            sim.carry_out()
            sim.settle()
        for uid in [pod.uid for pod in sim.pods.values() if not pod.model and not pod.node]:
            del sim.pods[uid]  # Pods of others that fit nowhere are given up
        sim.carry_out()
        sim.settle()
        sim.passes(sim.plan.look_again or 1)
        stable = {k: (m.replicas, m.rollout) for k, m in models.items()} == {
            k: (m.replicas, m.rollout) for k, m in sim.models.items()
        }
        quiet = quiet + 1 if stable and sim.preemptions == preemptions and before[1].keys() == sim.pods.keys() else 0
        if quiet >= 25:
            break
    else:
        raise AssertionError("the cluster does not come to rest")
    everybody_who_fits_is_in(sim)


def everybody_who_fits_is_in(sim: Simulation) -> None:
    """No Model waits that fits, by the plain formula, on a node that could hold it."""
    plan = plan_capacity(sim.world(), sim.now, sim.policy)
    for key, decision in plan.models.items():
        model = sim.models[key]
        if decision.waiting is None or model.rollout is not None or decision.admitted >= model.wanted:
            continue
        assert not (decision.waiting.reason == "SharingUnavailable" and not model.need.shared)
        for name, site in sim.nodes.items():
            pods = [pod for pod in sim.pods.values() if pod.node == name]
            found = survey(site.node, pods, (), sim.policy, sim.now).now[GPU]
            fits = holds(found, model.need) and not site.node.unschedulable and sim.has_its_size(model, name)
            assert not fits or decision.new_nodes_only, f"{key} fits on {name} and waits: {decision.waiting.message}"


TestClusters = Clusters.TestCase
TestClusters.settings = settings(max_examples=max(50, settings().max_examples // 10), stateful_step_count=40)
