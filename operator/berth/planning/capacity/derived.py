"""What follows from the world before anything is decided, kept from one pass to the next.

An object that is the same as before, by identity, has not changed; what rests on another one is derived anew.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TypeVar

from berth.planning.capacity.eligibility import NodeIndex
from berth.planning.capacity.policy import CapacityPolicy
from berth.planning.capacity.rooms import Site, survey
from berth.planning.capacity.standing import Standing, standing_of
from berth.planning.capacity.world import CapacityWorld, Demand, GpuPod, Node

T = TypeVar("T")


class Derived:
    """Standings of Models, sites of nodes and the index of nodes."""

    def __init__(self, policy: CapacityPolicy) -> None:
        self.policy = policy
        self.standings: dict[str, Standing] = {}
        self.unsettled: set[str] = set()
        """Models about which there is something to decide."""
        self.sites: dict[str, Site] = {}
        self.index = NodeIndex({}, {})
        self.eligible: dict[str, int] = {}
        """Nodes that the placement of Models allows, as far as it was asked for."""
        self.without_node: dict[str, GpuPod] = {}
        self._nodes: dict[str, Node] = {}
        self._pods: dict[str, GpuPod] = {}
        self._models: dict[str, Demand] = {}
        self._of_model: dict[str, dict[str, GpuPod]] = {}
        self._on_node: dict[str, dict[str, GpuPod]] = {}
        self._of_cache: dict[str, dict[str, GpuPod]] = {}

    def users(self, cache: str) -> Mapping[str, GpuPod]:
        """Pods that use the volume of a cache."""
        return self._of_cache.get(cache, {})

    def update(self, world: CapacityWorld, now: datetime) -> set[str]:
        """Takes in the world. Returns the Models whose standing is another one now, or that are gone."""
        models = _changed(self._models, world.models)
        nodes = _changed(self._nodes, world.nodes)
        for uid in _changed(self._pods, world.pods):
            before, after = self._pods.get(uid), world.pods.get(uid)
            for pod in (before, after):
                if pod is not None:
                    models.add(pod.model)
                    nodes.add(pod.node)
            self._file(uid, before, after)
        self._nodes, self._pods, self._models = dict(world.nodes), dict(world.pods), dict(world.models)
        models.discard("")
        for key in models:
            nodes |= self._stand(key)
        for name, site in self.sites.items():
            if site.survey.valid_until is not None and site.survey.valid_until <= now:
                nodes.add(name)
        self._look(nodes, now)
        return models

    def _file(self, uid: str, before: GpuPod | None, after: GpuPod | None) -> None:
        """Puts a Pod where it is looked for."""
        places: tuple[tuple[dict[str, dict[str, GpuPod]], Callable[[GpuPod], str]], ...] = (
            (self._of_model, lambda pod: pod.model),
            (self._on_node, lambda pod: pod.node),
            (self._of_cache, lambda pod: pod.cache),
        )
        for folders, name_of in places:
            if before is not None:
                folder = folders.get(name_of(before), {})
                folder.pop(uid, None)
                if not folder:
                    folders.pop(name_of(before), None)
            if after is not None and name_of(after):
                folders.setdefault(name_of(after), {})[uid] = after
        self.without_node.pop(uid, None)
        if after is not None and not after.node:
            self.without_node[uid] = after

    def _stand(self, key: str) -> set[str]:
        """Derives the standing of a Model. Returns the nodes on which other Pods of it are about to go than before."""
        before = self.standings.pop(key, None)
        self.unsettled.discard(key)
        self.eligible.pop(key, None)
        demand = self._models.get(key)
        pods = self._of_model.get(key, {})
        leaving = before.leaving if before else frozenset[str]()
        if demand is None:
            going = frozenset(uid for uid, pod in pods.items() if pod.deleting)
        else:
            standing = standing_of(demand, [pods[uid] for uid in sorted(pods)])
            self.standings[key] = standing
            going = standing.leaving
            if not standing.settled:
                self.unsettled.add(key)
        return {pods[uid].node for uid in leaving ^ going if uid in pods}

    def _look(self, names: set[str], now: datetime) -> None:
        """Surveys these nodes anew, and the index when what it is made of has changed."""
        stale = False
        for name in names:
            node, before = self._nodes.get(name), self.sites.pop(name, None)
            if node is None:
                stale = stale or before is not None
                continue
            pods = self._on_node.get(name, {})
            going = {uid for uid, pod in pods.items() if pod.deleting or self._is_leaving(pod)}
            site = Site(
                node,
                tuple(pods[uid] for uid in sorted(pods)),
                survey(node, [pods[uid] for uid in sorted(pods)], going, self.policy, now),
            )
            self.sites[name] = site
            stale = stale or before is None or _shape(before) != _shape(site)
        if stale:
            self.eligible.clear()
            self.index = NodeIndex(self._nodes, {name: site.survey.static for name, site in self.sites.items()})

    def _is_leaving(self, pod: GpuPod) -> bool:
        standing = self.standings.get(pod.model)
        return standing is not None and pod.uid in standing.leaving


def _changed(before: Mapping[str, T], after: Mapping[str, T]) -> set[str]:
    """Keys whose object is another one, there for the first time, or gone."""
    changed = {key for key, value in after.items() if before.get(key) is not value}
    if len(before) + sum(key not in before for key in changed) != len(after):
        changed |= before.keys() - after.keys()
    return changed


def _shape(site: Site) -> tuple[object, ...]:
    """What the index is made of."""
    node = site.node
    return node.labels, node.taints, node.unschedulable, site.survey.static
