"""Why a Pod ended as a whole, and who ended it."""

from datetime import datetime

from berth.planning.pods import Container, Pod
from berth.planning.reasons import Reason

_BY_KUBELET = {
    "Evicted": Reason.EVICTED,
    "Shutdown": Reason.NODE_SHUTDOWN,
    "Terminated": Reason.NODE_SHUTDOWN,
    "NodeLost": Reason.NODE_LOST,
    "Preempting": Reason.PREEMPTED,
    "Preempted": Reason.PREEMPTED,
    "NodeShutdown": Reason.NODE_REJECTED,
    "UnexpectedAdmissionError": Reason.NODE_REJECTED,
    "NodeAffinity": Reason.NODE_REJECTED,
    "NodeName": Reason.NODE_REJECTED,
    "NodePorts": Reason.NODE_REJECTED,
    "TopologyAffinityError": Reason.NODE_REJECTED,
}
"""What the kubelet writes into the reason of a Pod that it has ended or refused; also OutOf<resource>."""
_BY_OTHERS = {
    "DeletionByTaintManager": Reason.DRAINED,
    "EvictionByEvictionAPI": Reason.DRAINED,
    "DeletionByPodGC": Reason.NODE_LOST,
    "PreemptionByScheduler": Reason.PREEMPTED,
}
"""Who is about to end a Pod, by the condition DisruptionTarget. A Pod that a person deletes has none."""


def end_of(pod: Pod, lost_nodes: frozenset[str]) -> tuple[Reason, str] | None:
    """Why the Pod has ended or is about to, reason and sentence; None for one that lives, or that a person deletes."""
    if pod.deleting or pod.disruption == "DeletionByPodGC":
        return _taken_away(pod, lost_nodes)
    if pod.phase != "Failed":
        return None
    reason = _BY_KUBELET.get(pod.reason, Reason.POD_FAILED)
    if pod.reason.startswith("OutOf"):
        reason = Reason.NODE_REJECTED
    return reason, pod.message or f"the Pod was ended: {pod.reason or 'nobody says why'}"


def _taken_away(pod: Pod, lost_nodes: frozenset[str]) -> tuple[Reason, str] | None:
    reason = _BY_OTHERS.get(pod.disruption)
    if reason is None:
        return None
    if pod.disruption == "DeletionByTaintManager" and pod.node in lost_nodes:
        reason = Reason.NODE_LOST
    words = {
        Reason.NODE_LOST: f"node {pod.node} was lost with its Pod. Another one takes its place elsewhere",
        Reason.DRAINED: f"the Pod was evicted from node {pod.node}. Another one takes its place",
        Reason.PREEMPTED: "the scheduler ended the Pod in favour of a more important one",
    }
    return reason, words[reason]


def ended_at(pod: Pod) -> datetime | None:
    """When it ended, as far as anybody has written it down."""
    moments = [pod.created_at, pod.disrupted_since, pod.unready_since, *map(container_end, pod.containers)]
    return max((moment for moment in moments if moment is not None), default=None)


def container_end(container: Container) -> datetime | None:
    """When it ended last."""
    ended = container.terminated or container.last_terminated
    return ended.finished_at if ended else None
