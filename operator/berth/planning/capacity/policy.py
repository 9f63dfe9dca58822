"""The settings of the operator that decide about capacity."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CapacityPolicy:
    """Limits in seconds, unless said otherwise."""

    headroom_mib: int = 512
    """Memory of each GPU that is never given away."""
    loads_per_node: int = 1
    """Servers that may load on one node at once."""
    loads_per_cluster: int = 32
    """Servers that may load at once in all."""
    slot_timeout: float = 1800
    """How long a server that does not become ready keeps its load slot."""
    hold_for: float = 600
    """How long nobody may pass a Model that is first in the queue of its nodes."""
    no_node_after: float = 600
    """How long a Model that no node can ever fit waits for one before it counts as stalled."""
    unschedulable_after: float = 60
    """How long the scheduler may fail to place a replica until it is taken back."""
    release_deadline: float = 120
    """How long memory that an ended Pod has left behind is expected to become free by itself."""
    report_stale_after: float = 900
    """Age from which the report of a node's GPU agent is not believed any more; it is refreshed every 5 minutes."""
    retry_first: float = 60
    """Time until a Model that was admitted or preempted in vain tries again; it doubles each time."""
    retry_longest: float = 3600
    candidates: int = 4
    """Nodes that one admitted replica is reserved on, for the scheduler to choose from; 0: every node that fits."""
    pending_pods: int = 10
    """Pods without a node that may be shown to a cluster autoscaler at once."""
    preemptions: int = 16
    """Models for which others are stopped in one plan. A mistake in a priority empties no cluster at once."""
