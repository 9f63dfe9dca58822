"""`hack/bench capacity`: how long the capacity planner takes for a large cluster, from scratch and after one change."""

import gc
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from berth.api.model_status import MemorySource
from berth.planning.capacity.placement import Placement, Requirement, Taint, Toleration
from berth.planning.capacity.plan import CapacityPlan
from berth.planning.capacity.planner import Planner, plan_capacity
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.world import CapacityWorld, Demand, Gpu, GpuPod, GpuReport, Need, Node, Remembered

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
RESOURCE = "nvidia.com/gpu"
GPUS = 8
PRODUCTS = (("NVIDIA-L4", 23034), ("NVIDIA-A100-SXM4-80GB", 81920), ("NVIDIA-H100-80GB-HBM3", 81559))
POLICY = CapacityPolicy(loads_per_cluster=1000)


def run(models: int, nodes: int, repetitions: int) -> dict[str, Any]:
    """All figures of the benchmark; see docs/benchmarks.md for their meaning."""
    world = _carried_out(_world(models, nodes))
    load = round(os.getloadavg()[0], 2)
    full = [_timed(lambda: plan_capacity(world, NOW, POLICY)) for _ in range(repetitions)]
    empty = replace(
        world, pods={}, models={key: replace(one, replicas=0, remembered=None) for key, one in world.models.items()}
    )
    started = [_timed(lambda: plan_capacity(empty, NOW, POLICY)) for _ in range(repetitions)]
    changes = {name: _after(change, world, repetitions) for name, change in _CHANGES.items()}
    plan = plan_capacity(world, NOW, POLICY)
    return {
        "models": models,
        "nodes": nodes,
        "full_ms": median(full),
        "incremental_ms": max(median(times) for times in changes.values()),
        "full_ms_each": sorted(full),
        "nothing_runs_ms": median(started),
        "incremental_ms_by_change": {name: median(times) for name, times in changes.items()},
        "running": sum(one.waiting is None for one in plan.models.values()),
        "waiting": sum(one.waiting is not None for one in plan.models.values()),
        "preemptions": len(plan.preemptions),
        "repetitions": repetitions,
        "load_average": load,
    }


def _carried_out(world: CapacityWorld) -> CapacityWorld:
    """The world after one plan: Deployments have their replicas, and what is remembered is stored."""
    decided = plan_capacity(world, NOW, POLICY).models
    models = {
        key: replace(one, replicas=decided[key].admitted, remembered=decided[key].remembered)
        for key, one in world.models.items()
    }
    return replace(world, models=models)


def _timed(plan: Callable[[], CapacityPlan]) -> float:
    """Milliseconds of processor time: the planner keeps one core busy, and waits for nothing."""
    gc.collect()
    start = time.process_time()
    plan()
    return round((time.process_time() - start) * 1000, 1)


def _after(
    change: Callable[[CapacityWorld, random.Random], CapacityWorld], world: CapacityWorld, repetitions: int
) -> list[float]:
    """Times of plans after one change each, by a planner that knows the world before it."""
    planner, chance = Planner(), random.Random(1)
    planner.plan(world, NOW, POLICY)
    times = []
    for number in range(repetitions):
        world = change(world, chance)
        moment = NOW + timedelta(seconds=number + 1)
        times.append(_timed(lambda world=world, moment=moment: planner.plan(world, moment, POLICY)))  # type: ignore[misc]
    return times


def _ended(world: CapacityWorld, chance: random.Random) -> CapacityWorld:
    """A server is gone, and with it its GPUs."""
    pods = dict(world.pods)
    pod = pods.pop(chance.choice([uid for uid, one in pods.items() if one.ready]))
    wanted = replace(world.models[pod.model], wanted=0, replicas=0)
    return replace(world, pods=pods, models={**world.models, pod.model: wanted})


def _measured(world: CapacityWorld, chance: random.Random) -> CapacityWorld:
    """The agent of a node has written a new report."""
    node = world.nodes[chance.choice(sorted(world.nodes))]
    assert node.report is not None
    gpus = tuple(replace(gpu, foreign_mib=chance.randrange(1000)) for gpu in node.report.gpus)
    report = replace(node.report, gpus=gpus, at=NOW)
    return replace(world, nodes={**world.nodes, node.name: replace(node, report=report)})


def _urgent(world: CapacityWorld, chance: random.Random) -> CapacityWorld:
    """A Model before which all others have to make way."""
    key = f"bench/urgent-{len(world.models)}"
    demand = Demand(key, NOW, 1, 0, Need(4, RESOURCE, 40000, MemorySource.DECLARED), priority=900)
    return replace(world, models={**world.models, key: demand})


def _cordoned(world: CapacityWorld, chance: random.Random) -> CapacityWorld:
    """A node takes no Pods any more, or again."""
    node = world.nodes[chance.choice(sorted(world.nodes))]
    changed = replace(node, unschedulable=not node.unschedulable)
    return replace(world, nodes={**world.nodes, node.name: changed})


_CHANGES = {"server_gone": _ended, "memory_measured": _measured, "urgent_model": _urgent, "node_cordoned": _cordoned}


# ---- the cluster ------------------------------------------------------------------------------------------------


def _world(models: int, nodes: int) -> CapacityWorld:
    """A cluster that is full, with different GPUs, taints and sizes of Models; the rest of the Models wait."""
    chance = random.Random(5)
    free = {number: list(range(GPUS)) for number in range(nodes)}
    holders: dict[tuple[int, int], str] = {}
    demands: dict[str, Demand] = {}
    pods: dict[str, GpuPod] = {}
    rooms = list(range(nodes))
    for number in range(models):
        demand = _demand(number, chance)
        node = chance.choice(rooms) if rooms else None
        memory = demand.need.memory_mib or 0
        fits = node is not None and len(free[node]) >= demand.need.count and memory < PRODUCTS[node % 3][1] - 1000
        if node is not None and fits and _allowed(demand, node):
            taken = [free[node].pop() for _ in range(demand.need.count)]
            pod = _pod(demand, number, node)
            pods[pod.uid] = pod
            holders |= {(node, gpu): pod.uid for gpu in taken}
            remembered = Remembered(queued_at=demand.created_at)
            demand = replace(demand, replicas=1, remembered=remembered)
            if not free[node]:
                rooms.remove(node)
        demands[demand.key] = demand
    return CapacityWorld({_name(n): _node(n, holders, chance) for n in range(nodes)}, pods, demands)


def _name(number: int) -> str:
    return f"node-{number:05}"


def _node(number: int, holders: dict[tuple[int, int], str], chance: random.Random) -> Node:
    product, total = PRODUCTS[number % len(PRODUCTS)]
    gpus = []
    for place in range(GPUS):
        holder = holders.get((number, place))
        measured = {holder: total // 2} if holder else {}
        foreign = chance.choice((0, 0, 0, 300, 9000))
        gpus.append(Gpu(f"{number}-{place}", RESOURCE, total, 500, foreign, measured, (holder,) if holder else ()))
    labels = {
        "kubernetes.io/hostname": _name(number),
        "topology.kubernetes.io/zone": f"zone-{number % 3}",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(total),
        **{f"example.com/label-{n}": str(number % (n + 2)) for n in range(16)},
    }
    taints = (Taint("nvidia.com/gpu", "present"), *((Taint("team", "research"),) if number % 10 == 0 else ()))
    return Node(_name(number), NOW, {RESOURCE: GPUS}, labels, taints, report=GpuReport(tuple(gpus), NOW))


def _demand(number: int, chance: random.Random) -> Demand:
    count = chance.choice((1, 1, 1, 1, 1, 2, 2, 4))
    memory = chance.choice((None, 8000, 16000, chance.randrange(4000, 70000), chance.randrange(4000, 70000)))
    tolerations = [Toleration("nvidia.com/gpu", "Exists")]
    if number % 7 == 0:
        tolerations.append(Toleration("team", value="research"))
    terms = None
    if number % 4 == 0:
        product = PRODUCTS[chance.randrange(len(PRODUCTS))][0]
        terms = ((Requirement("nvidia.com/gpu.product", "In", (product,)),),)
    return Demand(
        f"bench/model-{number:05}",
        NOW - timedelta(seconds=chance.randrange(100000)),
        1,
        0,
        Need(count, RESOURCE, memory, MemorySource.ESTIMATED if memory else None),
        priority=chance.choice((50, 100, 100, 100, 200)),
        placement=Placement(terms, tuple(tolerations)),
    )


def _allowed(demand: Demand, node: int) -> bool:
    wanted = demand.placement.terms[0][0].values if demand.placement.terms else (PRODUCTS[node % 3][0],)
    return PRODUCTS[node % 3][0] in wanted and (node % 10 != 0 or len(demand.placement.tolerations) == 2)


def _pod(demand: Demand, number: int, node: int) -> GpuPod:
    return GpuPod(
        uid=f"pod-{number:05}",
        name=f"model-{number:05}",
        created_at=demand.created_at,
        gpus={RESOURCE: demand.need.count},
        model=demand.key,
        node=_name(node),
        memory_mib=demand.need.memory_mib,
        ready=number % 40 != 0,
        loading=number % 40 == 0,
        bound_at=NOW - timedelta(seconds=600),
    )
