"""Which nodes a Pod may go to, as sets of nodes that are whole numbers: bit n stands for node n.

With a thousand nodes, one such number is 125 bytes, and what several thousand Models ask is answered by a few ANDs.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

from berth.planning.capacity.placement import EFFECTS, NODE_NAME, Placement, Requirement, Taint, Terms, Toleration
from berth.planning.capacity.rooms import BOUNDLESS, NOTHING, Static
from berth.planning.capacity.world import Need, Node

CORDONED = Taint("node.kubernetes.io/unschedulable")
_PASSING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Taints that say how a node is at the moment: cordoned, not ready, unreachable, under pressure, not set up yet."""


class AtLeast:
    """Which nodes have at least so much of something."""

    def __init__(self, values: Iterable[tuple[int, int]]) -> None:
        """`values` are an amount and a set of nodes that have it."""
        together: dict[int, int] = {}
        for value, nodes in values:
            together[value] = together.get(value, 0) | nodes
        self._order = [-value for value in sorted(together, reverse=True)]
        self._sets = [0]
        for value in self._order:
            self._sets.append(self._sets[-1] | together[-value])

    def __call__(self, value: int) -> int:
        """The set of nodes with at least this much."""
        return self._sets[bisect_right(self._order, -value)]

    def most(self, among: int) -> tuple[int, int]:
        """The largest amount that any of these nodes has, and the set of those that have it; 0 and none of them."""
        for value, nodes in zip(self._order, self._sets[1:], strict=True):
            if nodes & among:
                return -value, nodes & among
        return 0, 0


def positions(nodes: int) -> Iterator[int]:
    """The numbers of the nodes in a set, lowest first."""
    while nodes:
        lowest = nodes & -nodes
        yield lowest.bit_length() - 1
        nodes ^= lowest


class NodeIndex:
    """The nodes with their labels and taints, and what they could hold if they were empty."""

    def __init__(self, nodes: Mapping[str, Node], statics: Mapping[str, Mapping[str, Static]]) -> None:
        # Small GPUs first: of several nodes that fit, the lowest number is taken.
        self.names: Sequence[str] = sorted(nodes, key=lambda name: (_size(statics[name]), name))
        self.position = {name: number for number, name in enumerate(self.names)}
        self.every = (1 << len(self.names)) - 1
        self._statics = statics
        self._labels: dict[str, dict[str, int]] = {}
        self._taints: dict[Taint, int] = {}
        self._requirements: dict[Requirement, int] = {}
        self._eligible: dict[tuple[Placement, bool], int] = {}
        self._ever: dict[tuple[str, int, str], AtLeast] = {}
        self.offering: dict[str, int] = {}
        """By resource: nodes that have any of it."""
        self.totals: dict[str, list[tuple[int, int]]] = {}
        """By resource: sizes of shared GPUs in MiB, smallest first, and the nodes that have them."""
        for number, name in enumerate(self.names):
            self._add(nodes[name], 1 << number)
        self._total_sizes()

    def _add(self, node: Node, bit: int) -> None:
        for key, value in node.labels.items():
            values = self._labels.setdefault(key, {})
            values[value] = values.get(value, 0) | bit
        taints = {taint for taint in node.taints if taint.effect in EFFECTS}
        for taint in taints | {CORDONED} if node.unschedulable else taints:
            self._taints[taint] = self._taints.get(taint, 0) | bit
        for resource, static in self._statics[node.name].items():
            if static.offered:
                self.offering[resource] = self.offering.get(resource, 0) | bit

    def _total_sizes(self) -> None:
        for resource, nodes in self.offering.items():
            sizes: dict[int, int] = {}
            for number in positions(nodes):
                static = self._statics[self.names[number]][resource]
                if static.shared and static.total:
                    sizes[static.total] = sizes.get(static.total, 0) | 1 << number
            self.totals[resource] = sorted(sizes.items())

    def named(self, names: Iterable[str]) -> int:
        """The nodes of these names that exist."""
        return _union(1 << self.position[name] for name in names if name in self.position)

    def names_of(self, nodes: int) -> tuple[str, ...]:
        """The names of the nodes in a set."""
        return tuple(self.names[number] for number in positions(nodes))

    def eligible(self, placement: Placement, *, ever: bool = False) -> int:
        """Nodes that the placement allows; with `ever` also those that are cordoned or not ready for the moment."""
        key = (placement, ever)
        if key not in self._eligible:
            nodes = self.matching(placement.terms)
            for taint, tainted in self._taints.items():
                passing = ever and taint.key.startswith(_PASSING)
                if not passing and not _tolerated(taint, placement.tolerations):
                    nodes &= ~tainted
            self._eligible[key] = nodes
        return self._eligible[key]

    def matching(self, terms: Terms | None) -> int:
        """Nodes for which one of the terms holds."""
        if terms is None:
            return self.every
        nodes = 0
        for term in terms:
            some = self.every if term else 0
            for requirement in term:
                some &= self._matching(requirement)
            nodes |= some
        return nodes

    def _matching(self, requirement: Requirement) -> int:
        if requirement not in self._requirements:
            self._requirements[requirement] = self._match(requirement)
        return self._requirements[requirement]

    def _match(self, requirement: Requirement) -> int:
        if requirement.key == NODE_NAME:
            values = {name: 1 << number for name, number in self.position.items() if name in requirement.values}
        else:
            values = self._labels.get(requirement.key, {})
        operator = requirement.operator
        if operator in ("In", "NotIn"):
            named = _union(values.get(value, 0) for value in requirement.values)
            return named if operator == "In" else self.every & ~named
        if operator in ("Exists", "DoesNotExist"):
            there = _union(values.values())
            return there if operator == "Exists" else self.every & ~there
        if operator in ("Gt", "Lt") and len(requirement.values) == 1:
            bound = _whole(requirement.values[0])
            numbers = [(_whole(value), nodes) for value, nodes in values.items()]
            return _union(
                nodes
                for number, nodes in numbers
                if number is not None and bound is not None and (number > bound if operator == "Gt" else number < bound)
            )
        return 0

    def could_hold(self, need: Need) -> int:
        """Nodes that could hold one replica if nothing else were there."""
        least = 0 if need.memory_mib is None else need.memory_mib
        return self.capacities(need)(least)

    def capacities(self, need: Need) -> AtLeast:
        """What nodes have on as many GPUs as one replica takes, if nothing else were there."""
        kind = "shared" if need.shared else "exclusive"
        key = (need.resource, need.count, kind)
        if key not in self._ever:
            self._ever[key] = AtLeast(
                (_capacity(self._statics[self.names[number]][need.resource], need), 1 << number)
                for number in positions(self.offering.get(need.resource, 0))
            )
        return self._ever[key]

    def static(self, number: int, resource: str) -> Static:
        """What the node would have of it if nothing were there."""
        return self._statics[self.names[number]][resource]


def _size(statics: Mapping[str, Static]) -> int:
    return max((static.capacities[0] for static in statics.values() if static.capacities), default=0)


def _capacity(static: Static, need: Need) -> int:
    if need.count > static.offered or need.count > len(static.capacities):
        return NOTHING
    if need.shared and (not static.shared or static.capacities[0] >= BOUNDLESS):
        return NOTHING
    if static.shared and need.count > 1:
        return NOTHING  # several shares may be shares of one and the same GPU
    return static.capacities[need.count - 1]


def _tolerated(taint: Taint, tolerations: Sequence[Toleration]) -> bool:
    return any(toleration.covers(taint) for toleration in tolerations)


def _union(sets: Iterable[int]) -> int:
    together = 0
    for one in sets:
        together |= one
    return together


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
