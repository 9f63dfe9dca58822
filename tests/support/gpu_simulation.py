"""A cluster of GPUs in memory, in which the plans of the capacity planner are carried out.

Deployments make Pods, a scheduler binds them to any node that Kubernetes and their affinity allow, kubelet gives them
any GPUs, servers load, end and leave memory behind. The planner sees it through reports that lag. What a real cluster
must never do is asserted where it happens.
"""

import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from berth.api.model import RolloutStrategy
from berth.planning.capacity.plan import CapacityPlan
from berth.planning.capacity.planner import Planner, plan_capacity
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.world import CapacityWorld, Demand, Gpu, GpuPod, GpuReport, Node, Rollout
from support.builders import NOW
from support.gpu_clusters import GPU

GRACE = timedelta(seconds=30)
HEADROOM = 500


@dataclass
class SimGpu:
    """What is really on a GPU."""

    total: int
    foreign: int = 0
    used: dict[str, int] = field(default_factory=dict)
    """MiB by uid of the Pod, also of Pods that are gone."""
    holders: set[str] = field(default_factory=set)


@dataclass
class SimNode:
    """A node, and when somebody else last took memory of it."""

    node: Node
    gpus: list[SimGpu]
    slots: int
    disturbed: int = -1
    made: int = -1
    """The step in which it appeared."""


class Simulation:
    """Everything happens in steps; whatever is random is drawn from one seed."""

    def __init__(self, seed: int = 0, policy: CapacityPolicy | None = None) -> None:
        self.chance = random.Random(seed)
        self.policy = policy or CapacityPolicy(headroom_mib=HEADROOM, candidates=2, loads_per_cluster=3)
        self.now = NOW
        self.prompt = 0.7
        """How often the controllers of Deployments have acted before anything else happens."""
        self.planner = Planner()
        self.nodes: dict[str, SimNode] = {}
        self.pods: dict[str, GpuPod] = {}
        self.models: dict[str, Demand] = {}
        self.told: dict[str, int] = {}
        """By uid: the step in which a Pod was told where it may go."""
        self.plan = CapacityPlan()
        self.preemptions = 0
        self.step = 0
        self._made = 0
        self._served: set[str] = set()
        """Models of which a Pod was told by this plan."""

    # ---- what the planner sees -------------------------------------------------------------------------------

    def world(self) -> CapacityWorld:
        return CapacityWorld({n: s.node for n, s in self.nodes.items()}, dict(self.pods), dict(self.models))

    def report(self, name: str) -> None:
        """The agent of a node looks."""
        site = self.nodes[name]
        gpus = tuple(
            Gpu(f"{name}-{number}", GPU, gpu.total, 0, gpu.foreign, dict(gpu.used), tuple(sorted(gpu.holders)))
            for number, gpu in enumerate(site.gpus)
        )
        if site.node.report is not None:
            site.node = replace(site.node, report=GpuReport(gpus, self.now))

    def look(self) -> CapacityPlan:
        """Plans, by a planner that knows the world before, and twice by one that knows nothing."""
        world = self.world()
        plan = self.planner.plan(world, self.now, self.policy)
        assert plan == plan_capacity(world, self.now, self.policy)
        self.plan = plan
        self._served.clear()
        return plan

    # ---- carrying out ----------------------------------------------------------------------------------------

    def carry_out(self) -> CapacityPlan:
        """Plans and does what the plan says."""
        before = dict(self.models)
        plan = self.look()
        self.check_order(before, plan)
        self.check_holds(before, plan)
        self.preemptions += len(plan.preemptions)
        for preemption in plan.preemptions:
            for uid in preemption.pods:
                self.pods[uid] = replace(self.pods[uid], leaves_first=True)
        for key, decision in plan.models.items():
            model = replace(self.models[key], remembered=decision.remembered)
            if model.rollout is not None and decision.rollout is not None and decision.rollout.begin:
                model = replace(model, rollout=replace(model.rollout, started=decision.rollout.strategy))
            self.models[key] = replace(model, replicas=decision.admitted)
        self.tell()
        if self.chance.random() < self.prompt:
            self.deployments()
        if self.chance.random() < 0.5:
            self.tell()  # at once, or after the next plan
        return plan

    def tell(self) -> None:
        """Removes the gate of one Pod of each Model whose nodes are decided."""
        for key, decision in self.plan.models.items():
            if key in self._served:
                continue
            held = [p for p in self.pods.values() if p.model == key and not p.node and not p.nodes and not p.deleting]
            if held and decision.nodes:
                pod = held[0]
                self.pods[pod.uid] = replace(pod, nodes=decision.nodes)
                self.told[pod.uid] = self.step
                self._served.add(key)

    def deployments(self) -> None:
        """The controllers of Deployments make and end Pods."""
        for key in list(self.models):
            self._deployment(key)

    def _deployment(self, key: str) -> None:
        model = self.models[key]
        mine = [pod for pod in self.pods.values() if pod.model == key and not pod.deleting]
        rollout = model.rollout
        started = rollout is not None and rollout.started is not None
        allowed = model.replicas
        if started and rollout is not None and model.replicas:
            old = [pod for pod in mine if pod.outdated]
            new = [pod for pod in mine if not pod.outdated]
            if rollout.started is RolloutStrategy.SURGE:
                allowed += 1
                if old and sum(pod.ready for pod in mine) > model.replicas:
                    self.end(old[0].uid)
                target = model.replicas - len(new)
            else:
                if old and sum(pod.ready for pod in mine) >= model.replicas:
                    self.end(old[0].uid)
                    mine.remove(old[0])
                target = model.replicas - len(new)
            for _ in range(min(target, allowed - len(mine))):
                self._make(model, outdated=False)
        else:
            for _ in range(allowed - len(mine)):
                self._make(model, outdated=rollout is not None and not started)
        mine = [pod for pod in self.pods.values() if pod.model == key and not pod.deleting]
        mine.sort(key=lambda p: (bool(p.node), p.ready, not p.leaves_first, -p.created_at.timestamp(), p.uid))
        for pod in mine[: max(0, len(mine) - allowed)]:
            self.end(pod.uid)
        if started and not any(pod.outdated for pod in self.pods.values() if pod.model == key):
            self.models[key] = replace(self.models[key], rollout=None)

    def _make(self, model: Demand, *, outdated: bool) -> None:
        self._made += 1
        uid = f"pod-{self._made:04}"
        need = model.need
        self.pods[uid] = GpuPod(
            uid,
            uid,
            self.now,
            {need.resource: need.count},
            model.key,
            memory_mib=need.memory_mib,
            shared=need.shared,
            outdated=outdated,
        )

    def end(self, uid: str) -> None:
        """A Pod is deleted; one without a node is gone at once."""
        pod = self.pods[uid]
        if not pod.node:
            del self.pods[uid]
        elif not pod.deleting:
            self.pods[uid] = replace(pod, deleting=True, ends_at=self.now + GRACE, loading=False)

    # ---- scheduler and kubelet -------------------------------------------------------------------------------

    def schedule(self, uid: str) -> None:
        """The scheduler tries one Pod."""
        pod = self.pods[uid]
        if pod.node or pod.deleting or (pod.model and not self._ungated(pod)):
            return
        names = [name for name in sorted(self.nodes) if self._takes(name, pod)]
        if not names:
            if pod.unschedulable_since is None:
                self.pods[uid] = replace(pod, unschedulable_since=self.now)
            return
        name = self.chance.choice(names)
        site = self.nodes[name]
        picks = [gpu for gpu in site.gpus for _ in range(site.slots - len(gpu.holders))]
        self.chance.shuffle(picks)
        bound = replace(
            pod, node=name, bound_at=self.now, unschedulable_since=None, loading=bool(pod.model), ready=not pod.model
        )
        self.pods[uid] = bound
        for gpu in picks[: pod.gpus[GPU]]:
            gpu.holders.add(uid)
        if pod.model:
            self.check_gpus(name, uid)
            self.check_loads()
        else:
            site.disturbed = self.step

    def _ungated(self, pod: GpuPod) -> bool:
        decision = self.plan.models.get(pod.model)
        return bool(pod.nodes) or (decision is not None and decision.new_nodes_only)

    def _takes(self, name: str, pod: GpuPod) -> bool:
        site = self.nodes[name]
        if pod.nodes and name not in pod.nodes:
            return False
        if pod.model and not pod.nodes:
            remembered = self.models[pod.model].remembered
            if remembered is None or remembered.beyond is None or site.node.created_at <= remembered.beyond:
                return False
        taken = sum(other.gpus.get(GPU, 0) for other in self.pods.values() if other.node == name)
        free = sum(site.slots - len(gpu.holders) for gpu in site.gpus)
        return not site.node.unschedulable and min(site.node.allocatable[GPU] - taken, free) >= pod.gpus[GPU]

    def load(self, uid: str, *, fine: bool) -> None:
        """A server that has loaded is ready, or it fails and is held back."""
        pod = self.pods[uid]
        if not pod.loading or pod.deleting:
            return
        for gpu in self.nodes[pod.node].gpus:
            if uid in gpu.holders:
                most = gpu.total - gpu.foreign - sum(gpu.used.values())
                gpu.used[uid] = max(0, min(pod.memory_mib or most, most))
        self.pods[uid] = replace(pod, loading=False, ready=fine)
        self.report(pod.node)

    def finish(self, uid: str) -> None:
        """A Pod that is ending is gone; its memory is still used."""
        pod = self.pods[uid]
        if not pod.deleting:
            return
        del self.pods[uid]
        if pod.node in self.nodes:
            self.nodes[pod.node].disturbed = self.step  # a Pod that was told before may be given its GPU
            for gpu in self.nodes[pod.node].gpus:
                gpu.holders.discard(uid)

    def release(self, name: str) -> None:
        """Memory of Pods that are gone is free at last."""
        for gpu in self.nodes[name].gpus:
            gpu.used = {uid: mib for uid, mib in gpu.used.items() if uid in self.pods}
        self.report(name)

    def happen(self, seed: int) -> None:
        """Some of what goes on by itself happens, in some order."""
        chance = self.chance = random.Random(seed)
        events = [(self.schedule, uid) for uid in self.pods]
        events += [(self.finish, uid) for uid in self.pods]
        events += [(self.release, name) for name in self.nodes]
        for event, name in chance.sample(events, len(events) // 2):
            if name in self.pods or name in self.nodes:
                event(name)
        for uid in chance.sample(sorted(self.pods), len(self.pods) // 3):
            self.load(uid, fine=chance.random() < 0.8)

    def settle(self) -> None:
        """All that goes on by itself, once."""
        for uid in list(self.pods):
            if uid in self.pods and not self.pods[uid].node:
                self.schedule(uid)
        for uid in list(self.pods):
            self.load(uid, fine=True)
        for uid in list(self.pods):
            self.finish(uid)
        for name in self.nodes:
            self.release(name)
        self.deployments()

    # ---- what must never be ----------------------------------------------------------------------------------

    def check_gpus(self, name: str, uid: str) -> None:
        """What a Pod that was just bound was promised is really there.

        Nobody can promise anything of a node that an autoscaler makes, or where others came in between.
        """
        site, pod = self.nodes[name], self.pods[uid]
        told = self.told.get(uid, -1)
        undisturbed = site.disturbed < told and site.node.report is not None
        for gpu in site.gpus:
            if uid not in gpu.holders or not pod.nodes or site.made >= told:
                continue
            ours = [self.pods[other] for other in gpu.holders if other in self.pods and self.pods[other].model]
            if any(one.memory_mib is None or not one.shared for one in ours):
                assert len(ours) == 1, f"an Exclusive Pod shares a GPU of {name}"
                assert len(gpu.holders) == 1 or not undisturbed, f"an Exclusive Pod shares a GPU of {name}"
            reserved = sum(one.memory_mib or 0 for one in ours)
            assert reserved <= gpu.total, f"a GPU of {name} is reserved beyond its memory"
            if undisturbed:
                left = sum(mib for other, mib in gpu.used.items() if other not in gpu.holders)
                assert reserved + gpu.foreign + left <= gpu.total, f"a GPU of {name} has too little memory for {uid}"
                if pod.memory_mib is None:
                    assert gpu.foreign + left <= HEADROOM, f"{uid} was promised a whole GPU of {name}"

    def check_loads(self) -> None:
        """No more servers load at once than may, those apart that asked for a new node: Kubernetes starts them."""
        loading = [pod.node for pod in self.pods.values() if self._has_slot(pod) and pod.nodes]
        assert len(loading) <= self.policy.loads_per_cluster
        for name in set(loading):
            assert loading.count(name) <= self.policy.loads_per_node, f"too many servers load on {name}"

    def _has_slot(self, pod: GpuPod) -> bool:
        started = pod.bound_at or self.now
        return pod.loading and not pod.deleting and self.now < started + timedelta(seconds=self.policy.slot_timeout)

    def check_order(self, before: dict[str, Demand], plan: CapacityPlan) -> None:
        """Nobody is admitted past somebody more important who asks for no more and may go to the same nodes."""
        admitted = [
            before[key]
            for key, one in plan.models.items()
            if one.admitted > before[key].replicas and not one.new_nodes_only and not self._kept(before[key])
        ]
        for key, decision in plan.models.items():
            first = before[key]
            if decision.waiting is None or decision.admitted >= first.wanted or not self._plain(first):
                continue
            if decision.admitted < first.replicas or decision.nodes:
                continue  # it has just lost one; or has just got one, and what the next could have is kept for it
            for other in admitted:
                assert not (self._precedes(first, other) and self._asks_no_more(first, other)), (
                    f"{other.key} was admitted past {key}, which waits: {decision.waiting.message}"
                )

    def check_holds(self, before: dict[str, Demand], plan: CapacityPlan) -> None:
        """Nobody behind the first in a queue is admitted to a node that it holds."""
        for key, decision in plan.models.items():
            first, since = before[key], decision.remembered.held_since
            if since is None or first.need.shared or self.now >= since + timedelta(seconds=self.policy.hold_for):
                continue
            could = {name for name, site in self.nodes.items() if self._could_hold(site, first)}
            for other, one in plan.models.items():
                if one.admitted > before[other].replicas and self._precedes(first, before[other]):
                    held = could & set(one.nodes)
                    assert not held or self._kept(before[other]), f"{other} passes {key}, which holds {held}"

    def _could_hold(self, site: SimNode, model: Demand) -> bool:
        roomy = [gpu for gpu in site.gpus if gpu.total - self.policy.headroom_mib >= (model.need.memory_mib or 0)]
        fits = len(roomy) >= model.need.count and (site.slots == 1 or model.need.count == 1)
        return fits and not site.node.unschedulable

    def _kept(self, model: Demand) -> bool:
        return model.remembered is not None and bool(model.remembered.keeps)

    def _plain(self, model: Demand) -> bool:
        """Whether nothing but room and its turn is in its way."""
        remembered = model.remembered
        told = all(pod.nodes for pod in self.pods.values() if pod.model == model.key and not pod.node)
        staying = sum(not pod.deleting for pod in self.pods.values() if pod.model == model.key)
        return (
            model.rollout is None
            and not (model.need.shared and model.replicas)  # it may go to GPUs of one size only
            and told
            and staying == model.replicas
            and (remembered is None or not (remembered.taken_back or remembered.beyond or remembered.keeps))
        )

    def _precedes(self, one: Demand, other: Demand) -> bool:
        def rank(model: Demand) -> tuple[int, datetime, str]:
            queued = model.remembered.queued_at if model.remembered else model.created_at
            return -model.priority, queued or self.now, model.key

        return rank(one) < rank(other)

    def _asks_no_more(self, one: Demand, other: Demand) -> bool:
        if one.need.shared != other.need.shared or one.placement != other.placement:
            return False
        if one.need.memory_mib is None or other.need.memory_mib is None:
            return one.need == other.need
        return one.need.count <= other.need.count and one.need.memory_mib <= other.need.memory_mib

    def has_its_size(self, model: Demand, name: str) -> bool:
        """Whether GPUs of this node are as large as those on which a Shared Model runs already."""
        others = {pod.node for pod in self.pods.values() if pod.model == model.key and pod.node}
        same = {self.nodes[other].gpus[0].total for other in others} <= {self.nodes[name].gpus[0].total}
        return same or not model.need.shared

    # ---- events ----------------------------------------------------------------------------------------------

    def add_node(self, name: str, totals: list[int], slots: int = 1, *, reports: bool = True) -> None:
        labels = {"nvidia.com/gpu.memory": str(min(totals)), "nvidia.com/gpu.replicas": str(slots)}
        node = Node(name, self.now, {GPU: len(totals) * slots}, labels)
        if reports:
            node = replace(node, report=GpuReport((), self.now))
        self.nodes[name] = SimNode(node, [SimGpu(total) for total in totals], slots, made=self.step)
        self.report(name)

    def drop_node(self, name: str) -> None:
        """A node is gone with everything on it."""
        del self.nodes[name]
        self.pods = {uid: pod for uid, pod in self.pods.items() if pod.node != name}

    def roll(self, key: str, wish: RolloutStrategy) -> None:
        """The Pod template of a Model changes."""
        mine = [pod for pod in self.pods.values() if pod.model == key]
        if mine:
            for pod in mine:
                self.pods[pod.uid] = replace(pod, outdated=True)
            self.models[key] = replace(self.models[key], rollout=Rollout(wish))

    def grab(self, name: str, number: int, mib: int) -> None:
        """A process that is nobody's Pod takes or frees memory."""
        site = self.nodes[name]
        gpu = site.gpus[number % len(site.gpus)]
        gpu.foreign = min(mib, gpu.total)
        site.disturbed = self.step
        self.report(name)

    def passes(self, seconds: float) -> None:
        """Time passes."""
        self.now += timedelta(seconds=seconds)
        for site in self.nodes.values():
            if site.node.report is not None:
                self.report(site.node.name)
