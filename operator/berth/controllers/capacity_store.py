"""What the capacity planner rests on, gathered from the watches and from the plans of Models; and what it decided.

Everything in it is derived from what is observed, so a restart changes nothing. Only what is being carried out at this
moment is remembered: it counts as done until the Model asks for something else.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from berth.api.model_cache import AccessMode
from berth.controllers.relations import Key
from berth.planning import names
from berth.planning.capacity.decision import Decision, as_carried_out, has_to_be_carried_out
from berth.planning.capacity.placement import Terms, terms_from
from berth.planning.capacity.plan import CapacityPlan, ModelCapacity
from berth.planning.capacity.projections import (
    concerns_gpus,
    gpu_node_from,
    gpu_pod_from,
    report_from,
    sick_gpus,
)
from berth.planning.capacity.world import CapacityWorld, Demand, GpuPod, GpuReport, Node
from berth.planning.nodes import HOSTNAME_LABEL
from berth.planning.pods import Pod
from berth.planning.world import CLAIM, Subject

_Names = tuple[str, str]
_AGENT = {"app.kubernetes.io/name": "berth", names.COMPONENT_LABEL: "agent"}
PATIENCE = timedelta(seconds=30)
"""How long a decision counts as done that nobody has carried out."""


class CapacityStore:
    """Nodes, Pods, volumes and what Models ask for; decisions by Model."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Something has changed since the last plan."""
        self.complete = asyncio.Event()
        """Every Model that was expected has asked: a plan for a part of them would prefer that part."""
        self._expected: set[str] = set()
        self._bare: dict[str, Node] = {}  # as Kubernetes shows them, without what agents say
        self._reports: dict[str, Mapping[str, Any]] = {}  # the status of GPUNodes
        self._agents: dict[_Names, tuple[str, bool]] = {}  # agent Pods: node, and whether ready
        self._nodes: dict[str, Node] = {}
        self._sick: dict[str, Mapping[str, str]] = {}  # by node: what is wrong with GPUs, by uid of who holds them
        self._pods: dict[str, GpuPod] = {}
        self._hashes: dict[str, str] = {}  # by uid: the template that a Pod was made from
        self._uids: dict[_Names, str] = {}
        self._of_model: defaultdict[str, set[str]] = defaultdict(set)
        self._wanted: dict[str, str] = {}  # by Model: hash of the wanted template
        self._one_node: dict[str, tuple[bool, str]] = {}  # by ModelCache: whether one node at a time, its claim
        self._bound: dict[str, str] = {}  # by claim: its volume
        self._terms: dict[str, Terms] = {}  # by volume: nodes where it can be used
        self._asked: dict[str, Demand] = {}
        self._under_way: dict[str, tuple[Demand, datetime]] = {}
        self._decisions: dict[str, Decision] = {}

    # ---- news -----------------------------------------------------------------------------------------------

    def observe_node(self, manifest: Mapping[str, Any]) -> None:
        """A Node is there."""
        node = gpu_node_from(manifest)
        self._bare[node.name] = node
        self._compose(node.name)

    def observe_report(self, manifest: Mapping[str, Any]) -> list[Key]:
        """A GPUNode is there; returns the Models of Pods that hold a GPU which fell ill, or is well again."""
        name = manifest["metadata"]["name"]
        self._reports[name] = manifest.get("status") or {}
        before = self._sick.get(name, {})
        self._compose(name)
        changed = before.keys() ^ self._sick.get(name, {}).keys()
        models = {self._pods[uid].model for uid in changed if uid in self._pods}
        return [Key("Model", *model.split("/", 1)) for model in sorted(models) if model]

    def observe_pod(self, manifest: Mapping[str, Any], pod: Pod) -> None:
        """A Pod is there, whoever's it is."""
        if _is_agent(manifest):
            self._observe_agent(pod)
        where = (pod.namespace, pod.name)
        new = gpu_pod_from(manifest, pod)
        # A Pod of others that is held back, by Kueue for example, is let go once there is room for it.
        if not pod.living or not concerns_gpus(manifest) or (pod.gates and not new.model):
            self._drop_pod(where, pod.uid)
            return
        if new.model and not new.node and not new.nodes and not pod.gates and not pod.capacity_note:
            new = replace(new, nodes=tuple(sorted(self._nodes)))  # nobody holds it back
        before = self._uids.get(where)
        if before is not None and before != pod.uid:
            self._drop_pod(where, before)
        self._hashes[pod.uid] = pod.template_hash
        new = self._in_context(new)
        if self._pods.get(pod.uid) == new:
            return
        is_new = pod.uid not in self._pods
        self._pods[pod.uid] = new
        self._uids[where] = pod.uid
        if new.model:
            self._of_model[new.model].add(pod.uid)
        self.changed.set()
        if is_new and pod.node:
            self._compose(pod.node)  # kubelet tells holders by name

    def _observe_agent(self, pod: Pod) -> None:
        where = (pod.namespace, pod.name)
        before, now = self._agents.get(where), (pod.node, pod.ready and not pod.deleting)
        if before == now:
            return
        self._agents[where] = now
        for node in {now[0], *((before[0],) if before else ())}:
            self._compose(node)

    @staticmethod
    def concerns(manifest: Mapping[str, Any]) -> bool:
        """Whether a Pod of somebody else's matters at all."""
        return concerns_gpus(manifest) or _is_agent(manifest)

    def observe_cache(self, cache: Subject) -> None:
        """A ModelCache is there."""
        key = f"{cache.namespace}/{cache.name}"
        claim = cache.status.get("claim") or names.cache_object(cache.name)
        known = (cache.status.get("accessMode", "") != AccessMode.READ_WRITE_MANY, f"{cache.namespace}/{claim}")
        if self._one_node.get(key) == known:
            return
        self._one_node[key] = known
        self.changed.set()
        for uid, pod in list(self._pods.items()):
            if pod.cache == key:
                self._pods[uid] = self._in_context(pod)

    def observe_claim(self, manifest: Mapping[str, Any]) -> None:
        """A claim is there."""
        metadata = manifest["metadata"]
        volume = (manifest.get("spec") or {}).get("volumeName") or ""
        key = f"{metadata['namespace']}/{metadata['name']}"
        if self._bound.get(key, "") != volume:
            self._bound[key] = volume
            self.changed.set()

    def observe_volume(self, manifest: Mapping[str, Any]) -> None:
        """A PersistentVolume is there."""
        name = manifest["metadata"]["name"]
        terms = terms_from(((manifest.get("spec") or {}).get("nodeAffinity") or {}).get("required"))
        if terms is not None and self._terms.get(name) != terms:
            self._terms[name] = terms
            self.changed.set()

    def forget_node(self, name: str) -> None:
        """A Node is gone."""
        self._bare.pop(name, None)
        self._compose(name)

    def forget_report(self, name: str) -> None:
        """A GPUNode is gone."""
        self._reports.pop(name, None)
        self._compose(name)

    def forget_pod(self, namespace: str, name: str, uid: str) -> None:
        """A Pod is gone."""
        where = (namespace, name)
        if (agent := self._agents.pop(where, None)) is not None:
            self._compose(agent[0])
        self._drop_pod(where, uid)

    def _drop_pod(self, where: _Names, uid: str) -> None:
        """A Pod holds nothing that matters."""
        gone = self._pods.pop(uid, None)
        self._hashes.pop(uid, None)
        if self._uids.get(where) == uid:
            del self._uids[where]
        if gone is None:
            return
        self.changed.set()
        if gone.model:
            self._of_model[gone.model].discard(uid)
            if not self._of_model[gone.model]:
                del self._of_model[gone.model]
        if gone.node:
            self._compose(gone.node)

    def forget_other(self, kind: str, namespace: str, name: str) -> None:
        """A ModelCache, claim or PersistentVolume is gone."""
        key = f"{namespace}/{name}"
        if kind == "ModelCache":
            self._one_node.pop(key, None)
        elif kind == CLAIM:
            self._bound.pop(key, None)
        elif kind == "PersistentVolume":
            self._terms.pop(name, None)
        else:
            return
        self.changed.set()

    def _compose(self, name: str) -> None:
        """The node as the planner sees it, from its Node, its GPUNode and its agent."""
        bare = self._bare.get(name)
        node = replace(bare, report=self._report(name, bare.labels)) if bare is not None else None
        self._sick[name] = sick_gpus(node) if node is not None else {}
        if node == self._nodes.get(name):
            return
        if node is None:
            del self._nodes[name]
        else:
            self._nodes[name] = node
        self.changed.set()

    def _report(self, name: str, labels: Mapping[str, str]) -> GpuReport | None:
        status = self._reports.get(name)
        if status is None:
            return None
        alive = any(ready for node, ready in self._agents.values() if node == name)
        return report_from(status, labels, alive=alive, uid_of=self._uid_of)

    def _uid_of(self, namespace: str, name: str) -> str:
        return self._uids.get((namespace, name), f"{namespace}/{name}")

    def _in_context(self, pod: GpuPod) -> GpuPod:
        """The Pod, with what others say about it."""
        wanted = self._wanted.get(pod.model)
        outdated = wanted is not None and self._hashes.get(pod.uid) != wanted
        cache = pod.cache if self._one_node.get(pod.cache, (True, ""))[0] else ""
        return pod if (pod.outdated, pod.cache) == (outdated, cache) else replace(pod, outdated=outdated, cache=cache)

    # ---- what Models ask for --------------------------------------------------------------------------------

    def expect(self, keys: Iterable[Key]) -> None:
        """Which Models there are at the start."""
        self._expected = {f"{key.namespace}/{key.name}" for key in keys if key.kind == "Model"}
        self._is_expected_no_more("")

    def _is_expected_no_more(self, name: str) -> None:
        self._expected.discard(name)
        if not self._expected:
            self.complete.set()

    def ask(self, key: Key, demand: Demand | None, template_hash: str) -> None:
        """What a Model asks for now; None when nothing. `template_hash` is that of its wanted Pod template."""
        name = f"{key.namespace}/{key.name}"
        if demand is None:
            self._forget_model(name)
            return
        self._is_expected_no_more(name)
        if self._wanted.get(name) != template_hash:
            self._wanted[name] = template_hash
            for uid in self._of_model.get(name, ()):
                self._pods[uid] = self._in_context(self._pods[uid])
            self.changed.set()
        if self._asked.get(name) == demand:
            return
        self._asked[name] = demand
        self._under_way.pop(name, None)
        self.changed.set()

    def forget_model(self, namespace: str, name: str) -> None:
        """A Model is gone; its Pods may not be."""
        self._forget_model(f"{namespace}/{name}")

    def _forget_model(self, name: str) -> None:
        self._wanted.pop(name, None)
        self._under_way.pop(name, None)
        self._decisions.pop(name, None)
        self._is_expected_no_more(name)
        if self._asked.pop(name, None) is not None:
            self.changed.set()

    # ---- decisions ------------------------------------------------------------------------------------------

    def world(self, now: datetime) -> CapacityWorld:
        """The World for the next plan; what has not been carried out for long counts as not done again."""
        self.changed.clear()
        for name, (_, since) in list(self._under_way.items()):
            if not timedelta(0) <= now - since < PATIENCE:
                del self._under_way[name]
        models = {**self._asked, **{name: demand for name, (demand, _) in self._under_way.items()}}
        volumes = {
            cache: self._terms[volume]
            for cache, (one_node, claim) in self._one_node.items()
            if one_node and (volume := self._bound.get(claim, "")) in self._terms
        }
        return CapacityWorld(dict(self._nodes), dict(self._pods), models, volumes)

    def decide(self, plan: CapacityPlan, now: datetime) -> list[Key]:
        """Takes in a plan; returns the Models about which something else is decided than before."""
        leaves: defaultdict[str, set[str]] = defaultdict(set)
        words: dict[str, str] = {}
        for preemption in plan.preemptions:
            leaves[preemption.victim].update(preemption.pods)
            words[preemption.victim] = preemption.message
        changed = []
        for name, capacity in plan.models.items():
            if name in self._under_way or name not in self._asked:
                continue
            known = self._decisions.get(name)
            if known is not None and name not in leaves and self._is_as_before(name, known, capacity):
                continue
            decision = self._decision(name, capacity, frozenset(leaves.get(name, ())), words.get(name, ""))
            if decision == known:
                continue
            self._decisions[name] = decision
            if has_to_be_carried_out(decision):
                self._under_way[name] = (as_carried_out(decision), now)
            changed.append(Key("Model", *name.split("/", 1)))
        return changed

    def _is_as_before(self, name: str, known: Decision, capacity: ModelCapacity) -> bool:
        """Whether a decision is the very same: so it is for most, which are as wanted."""
        same = known.capacity is capacity and known.demand is self._asked[name] and not known.leaves_first
        return same and not capacity.nodes and known.measured_mib == self._measured(name)

    def _decision(self, name: str, capacity: ModelCapacity, leaves: frozenset[str], preempted: str) -> Decision:
        beyond = capacity.new_nodes_only
        resource = self._asked[name].need.resource
        return Decision(
            demand=self._asked[name],
            capacity=capacity,
            hostnames=self._hostnames(capacity.nodes),
            existing=self._hostnames(n for n, one in self._nodes.items() if resource in one.allocatable)
            if beyond
            else (),
            leaves_first=leaves,
            preempted=preempted,
            measured_mib=self._measured(name),
        )

    def _hostnames(self, nodes: Iterable[str]) -> tuple[str, ...]:
        known = (self._nodes.get(name) for name in nodes)
        return tuple(
            sorted(node.labels[HOSTNAME_LABEL] for node in known if node is not None and HOSTNAME_LABEL in node.labels)
        )

    def _measured(self, name: str) -> int | None:
        """Memory that the Pod of a Model which uses most has in use on one GPU."""
        most = 0
        for uid in self._of_model.get(name, ()):
            site = self._nodes.get(self._pods[uid].node)
            if site is not None and site.report is not None:
                most = max(most, *(gpu.measured.get(uid, 0) for gpu in site.report.gpus), 0)
        return most or None

    def sick_gpus(self, key: Key) -> Mapping[str, str]:
        """What is wrong with GPUs that Pods of a Model hold, by uid of the Pod."""
        found = {}
        for uid in self._of_model.get(f"{key.namespace}/{key.name}", ()):
            trouble = self._sick.get(self._pods[uid].node, {}).get(uid)
            if trouble:
                found[uid] = trouble
        return found

    def decision(self, key: Key) -> Decision | None:
        """What was decided last about a Model."""
        return self._decisions.get(f"{key.namespace}/{key.name}")

    def told(self, key: Key) -> None:
        """A Pod of the Model was told its nodes: the next one needs another decision."""
        name = f"{key.namespace}/{key.name}"
        if (decision := self._decisions.get(name)) is not None:
            self._decisions[name] = replace(decision, told=True)
            self.changed.set()


def _is_agent(manifest: Mapping[str, Any]) -> bool:
    """Whether a Pod is a GPU agent."""
    return _AGENT.items() <= (manifest["metadata"].get("labels") or {}).items()
