"""Small clusters for the tests of the capacity planner."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from berth.api.model_status import MemorySource
from berth.planning.capacity.plan import CapacityPlan, ModelCapacity
from berth.planning.capacity.planner import plan_capacity
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.world import (
    CapacityWorld,
    Demand,
    Gpu,
    GpuPod,
    GpuReport,
    Need,
    Node,
    Remembered,
)
from support.builders import NOW

GPU = "nvidia.com/gpu"
POLICY = CapacityPolicy(headroom_mib=0, report_stale_after=50000)
LONG_AGO = NOW - timedelta(days=1)


def gpu(number: int = 0, total: int | None = 80000, **more: Any) -> Gpu:
    return Gpu(f"gpu-{number}", more.pop("resource", GPU), total, **more)


def node(name: str = "node-a", gpus: int | Iterable[Gpu] = 8, **more: Any) -> Node:
    """A node with so many empty GPUs of 80000 MiB, or with these."""
    devices = tuple(gpu(n) for n in range(gpus)) if isinstance(gpus, int) else tuple(gpus)
    offered: dict[str, int] = {}
    for device in devices:
        offered[device.resource] = offered.get(device.resource, 0) + 1
    report = more.pop("report", GpuReport(devices, NOW))
    return Node(name, LONG_AGO, more.pop("allocatable", offered), report=report, **more)


def model(name: str = "m", count: int = 1, memory: int | None = 24576, **more: Any) -> Demand:
    """A Model of one replica that has nothing yet."""
    source = None if memory is None else MemorySource.DECLARED
    need = Need(count, more.pop("resource", GPU), memory, source, more.pop("shared", False), more.pop("capped", True))
    return Demand(
        f"default/{name}", more.pop("created_at", NOW), more.pop("wanted", 1), more.pop("replicas", 0), need, **more
    )


def pod(name: str = "p", on: str = "", of: str = "", gpus: int = 1, **more: Any) -> GpuPod:
    """A Pod with so many GPUs; of a Model it is ready and Exclusive unless said otherwise."""
    return GpuPod(
        uid=more.pop("uid", f"uid-{name}"),
        name=name,
        created_at=more.pop("created_at", LONG_AGO),
        gpus=more.pop("resources", {GPU: gpus} if gpus else {}),
        model=f"default/{of}" if of else "",
        node=on,
        ready=more.pop("ready", bool(of and on)),
        bound_at=more.pop("bound_at", NOW if on else None),
        **more,
    )


def later(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


@dataclass
class Cluster:
    """A world that is changed step by step."""

    nodes: list[Node] = field(default_factory=list)
    models: list[Demand] = field(default_factory=list)
    pods: list[GpuPod] = field(default_factory=list)
    volumes: Mapping[str, Any] = field(default_factory=dict)
    policy: CapacityPolicy = POLICY

    def world(self) -> CapacityWorld:
        return CapacityWorld(
            {one.name: one for one in self.nodes},
            {one.uid: one for one in self.pods},
            {one.key: one for one in self.models},
            self.volumes,
        )

    def plan(self, after: float = 0) -> CapacityPlan:
        """The plan; it is not carried out."""
        return plan_capacity(self.world(), later(after), self.policy)

    def carry_out(self, after: float = 0) -> CapacityPlan:
        """The plan, with Deployments and memories as it wants them."""
        plan = self.plan(after)
        self.models = [
            replace(one, replicas=plan.models[one.key].admitted, remembered=plan.models[one.key].remembered)
            for one in self.models
        ]
        return plan

    def change(self, name: str, **fields: Any) -> None:
        """Changes what has this name and these fields: a node, Model or Pod."""
        for things in (self.nodes, self.models, self.pods):
            for number, thing in enumerate(things):
                own = thing.key.removeprefix("default/") if isinstance(thing, Demand) else thing.name
                if own == name and all(hasattr(thing, one) for one in fields):
                    things[number] = replace(thing, **fields)  # type: ignore[call-overload]

    def drop(self, name: str) -> None:
        """A Pod or node is gone."""
        self.pods = [one for one in self.pods if one.name != name]
        self.nodes = [one for one in self.nodes if one.name != name]


def admitted(plan: CapacityPlan) -> dict[str, int]:
    """Replicas that Models may have, by name."""
    return {key.removeprefix("default/"): one.admitted for key, one in plan.models.items()}


def decided(cluster: Cluster, name: str = "m", after: float = 0) -> ModelCapacity:
    """What is decided about one Model."""
    return cluster.plan(after).models[f"default/{name}"]


def waiting(cluster: Cluster, name: str = "m", after: float = 0) -> tuple[str, str]:
    """Reason and message of a Model that waits."""
    found = decided(cluster, name, after).waiting
    assert found is not None
    return str(found.reason), found.message


def remember(**fields: Any) -> Remembered:
    """Of a Model that was planned for before."""
    return Remembered(queued_at=fields.pop("queued_at", NOW), **fields)
