"""Where a Pod may go by its own wishes: node selector, required node affinity and tolerations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NODE_NAME = "metadata.name"
"""The one field of a Node that affinity can ask for."""
EFFECTS = ("NoSchedule", "NoExecute")
"""Effects of taints that keep Pods away; PreferNoSchedule does not."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label of a node, or on its name where the key is `metadata.name`."""

    key: str
    operator: str
    """In, NotIn, Exists, DoesNotExist, Gt or Lt."""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Taint:
    """What a Pod has to tolerate to go to a node."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"


@dataclass(frozen=True, slots=True)
class Toleration:
    """What a Pod tolerates; empty fields match everything."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def covers(self, taint: Taint) -> bool:
        """Whether the taint is tolerated."""
        if self.effect not in ("", taint.effect):
            return False
        if self.operator == "Exists":
            return self.key in ("", taint.key)
        return self.key == taint.key and self.value == taint.value


Terms = tuple[tuple[Requirement, ...], ...]
"""Of a node one term has to hold; of a term every requirement. A term without any holds nowhere."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What decides which nodes a Pod may go to, GPUs apart."""

    terms: Terms | None = None
    """None: every node."""
    tolerations: tuple[Toleration, ...] = ()


ANYWHERE = Placement()
"""Every node without a taint."""


def placement_from(pod: Mapping[str, Any]) -> Placement:
    """The placement that the spec of a Pod, or of a Pod template, asks for."""
    selector = tuple(Requirement(key, "In", (value,)) for key, value in sorted((pod.get("nodeSelector") or {}).items()))
    affinity = ((pod.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms: Terms | None = terms_from(affinity)
    if selector:
        # An empty term stays empty: it holds nowhere, whatever the selector says.
        terms = (selector,) if terms is None else tuple((*selector, *term) for term in terms if term)
    tolerations = tuple(
        Toleration(t.get("key") or "", t.get("operator") or "Equal", t.get("value") or "", t.get("effect") or "")
        for t in pod.get("tolerations") or ()
    )
    return Placement(terms, tolerations)


def terms_from(selector: Mapping[str, Any] | None) -> Terms | None:
    """The terms of a NodeSelector, as Pods and PersistentVolumes have it; None where there is none."""
    if selector is None:
        return None
    return tuple(
        tuple(
            Requirement(r["key"], r["operator"], tuple(r.get("values") or ()))
            for r in (*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ()))
        )
        for term in selector.get("nodeSelectorTerms") or ()
    )


def gpu_requests(pod: Mapping[str, Any]) -> dict[str, int]:
    """The extended resources that a Pod takes, by name: those of its containers, or of a larger init container."""

    def limits(container: Mapping[str, Any]) -> dict[str, int]:
        resources = container.get("resources") or {}
        asked = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
        return {name: int(amount) for name, amount in asked.items() if is_extended(name) and str(amount).isdigit()}

    total: dict[str, int] = {}
    _add(total, map(limits, pod.get("containers") or ()))
    beside: dict[str, int] = {}
    most: dict[str, int] = {}
    for container in pod.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            _add(beside, [limits(container)])  # a sidecar stays, beside what follows
            continue
        for name, amount in limits(container).items():
            most[name] = max(most.get(name, 0), amount + beside.get(name, 0))
    _add(total, [beside])
    wanted = {name: max(total.get(name, 0), most.get(name, 0)) for name in total | most}
    return {name: amount for name, amount in wanted.items() if amount}


def is_extended(resource: str) -> bool:
    """Whether it is a resource that a device plugin offers."""
    return "/" in resource and not resource.startswith("kubernetes.io/") and not resource.startswith("requests.")


def _add(total: dict[str, int], parts: Sequence[Mapping[str, int]] | Any) -> None:
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0) + amount
