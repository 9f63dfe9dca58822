"""Why a Model is not admitted: one word for programs, explained for people."""

from collections.abc import Mapping
from enum import StrEnum

from berth.planning.reasons import Explanation


class CapacityReason(StrEnum):
    """The reasons of `status.queue`, and of a Model that cannot be queued."""

    WAITING_FOR_GPU = "WaitingForGPU"
    WAITING_FOR_MEMORY = "WaitingForMemory"
    WAITING_FOR_LOAD_SLOT = "WaitingForLoadSlot"
    WAITING_FOR_RELEASE = "WaitingForRelease"
    WAITING_FOR_NODE = "WaitingForNode"
    PREEMPTED = "Preempted"
    NO_NODE_FITS = "NoNodeFits"
    SHARING_UNAVAILABLE = "SharingUnavailable"


EXPLANATIONS: Mapping[CapacityReason, Explanation] = {
    CapacityReason.WAITING_FOR_GPU: Explanation(
        "Nodes fit the Model, and none has enough GPUs that nobody holds.",
        "Stop something, raise `priority`, or add a node; the message names the node that comes closest.",
    ),
    CapacityReason.WAITING_FOR_MEMORY: Explanation(
        "GPUs are unallocated, and one that the server might be given has too little free memory.",
        "End the processes that use it, declare less in `gpus.memory`, or lower `serving.contextLength`.",
    ),
    CapacityReason.WAITING_FOR_LOAD_SLOT: Explanation(
        "There is room, and as many servers are loading as may load at once.",
        "Wait, or raise the operator's limits of loads per node and per cluster.",
    ),
    CapacityReason.WAITING_FOR_RELEASE: Explanation(
        "There is room once servers that are ending have given their GPU memory back."
    ),
    CapacityReason.WAITING_FOR_NODE: Explanation(
        "The node that it needs is not there: about to be added, cordoned, not ready, or refused by the scheduler.",
        "The message says which; look at the cluster autoscaler or at the node when it stays so.",
    ),
    CapacityReason.PREEMPTED: Explanation(
        "A replica made way for a Model with a higher `priority`, and comes back by itself when there is room.",
        "Raise `priority`, or add GPUs.",
    ),
    CapacityReason.NO_NODE_FITS: Explanation(
        "No node could ever hold a replica, even if it were empty.",
        "Add a node, or correct `gpus` and the placement in `podTemplate`; the message has the numbers.",
    ),
    CapacityReason.SHARING_UNAVAILABLE: Explanation(
        "`gpus.sharing` is Shared, and a GPU cannot be shared safely here.",
        "The message says why: set `gpus.sharing` to Exclusive, or change what it names.",
    ),
}
