"""Every reason that Berth gives in a status, an Event or a log line: one word for programs, explained for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The reasons of conditions and of `lastFailure`."""

    # as declared
    SERVING = "Serving"
    STOPPED_BY_USER = "StoppedByUser"
    SCALED_TO_ZERO = "ScaledToZero"
    IDLE = "Idle"
    OPERATOR_UNINSTALLING = "OperatorUninstalling"
    VALID = "Valid"
    GPUS_RESERVED = "GpusReserved"
    NOT_PLANNED = "NotPlanned"
    NOT_SERVING = "NotServing"
    # under way
    CREATING = "Creating"
    UNSCHEDULABLE = "Unschedulable"
    CONTAINER_CREATING = "ContainerCreating"
    LOADING_WEIGHTS = "LoadingWeights"
    ROLLING_OUT = "RollingOut"
    REPLACING = "Replacing"
    SCALING = "Scaling"
    ROLLOUT_FAILED = "RolloutFailed"
    # weights on their way
    WEIGHTS_PRESENT = "WeightsPresent"
    WAITING_FOR_DOWNLOAD = "WaitingForDownload"
    DOWNLOADING = "Downloading"
    CACHE_NOT_FOUND = "CacheNotFound"
    CACHE_FAILED = "CacheFailed"
    CACHE_REQUIRED = "CacheRequired"
    # in a ModelCache
    AS_DECLARED = "AsDeclared"
    WAITING_FOR_SLOT = "WaitingForSlot"
    WAITING_FOR_SPACE = "WaitingForSpace"
    WAITING_FOR_NODE = "WaitingForNode"
    CLAIM_NOT_FOUND = "ClaimNotFound"
    CLAIM_LOST = "ClaimLost"
    ACCESS_MODE_UNSUPPORTED = "AccessModeUnsupported"
    NOT_WANTED = "NotWanted"
    IN_USE = "InUse"
    REMOVING = "Removing"
    DISCOVERING = "Discovering"
    RESULT_LOST = "ResultLost"
    PROVISIONER_FAILED = "ProvisionerFailed"
    # refused
    INVALID_SPEC = "InvalidSpec"
    NAME_CONFLICT = "NameConflict"
    QUOTA_EXCEEDED = "QuotaExceeded"
    FORBIDDEN = "Forbidden"
    PODS_REFUSED = "PodsRefused"
    # wrong with a server
    IMAGE_PULL_FAILED = "ImagePullFailed"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - no secret
    CONFIGURATION_ERROR = "ConfigurationError"
    CONTAINER_START_FAILED = "ContainerStartFailed"
    CRASH_LOOP = "CrashLoop"
    OUT_OF_MEMORY = "OutOfMemory"
    STARTUP_TIMEOUT = "StartupTimeout"
    UNRESPONSIVE = "Unresponsive"
    GPU_FAULT = "GpuFault"
    # wrong with a Pod as a whole
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    NODE_SHUTDOWN = "NodeShutdown"
    DRAINED = "Drained"
    PREEMPTED = "Preempted"
    NODE_REJECTED = "NodeRejected"
    POD_FAILED = "PodFailed"
    # left behind
    ORPHANED = "Orphaned"
    ORPHANED_PROCESS = "OrphanedProcess"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a reason means, in a sentence, and what a person can do; empty when there is nothing to do."""

    meaning: str
    remedy: str = ""


EXPLANATIONS: Mapping[Reason, Explanation] = {
    Reason.SERVING: Explanation("Every replica answers."),
    Reason.STOPPED_BY_USER: Explanation(
        "`spec.state` is Stopped, and no server is left.", "Set `spec.state` to Running to start it."
    ),
    Reason.SCALED_TO_ZERO: Explanation("`spec.replicas` is 0, and no server is left.", "Raise `spec.replicas`."),
    Reason.IDLE: Explanation(
        "The Model is OnDemand, and nothing asks for it, or nobody has used it for `idle.after`.",
        "Give the annotation `berth.dev/start` a new value, or point a ModelRoute at it.",
    ),
    Reason.OPERATOR_UNINSTALLING: Explanation(
        "Berth is being uninstalled, or was, with the wish to stop all Models.",
        "Install Berth again, or take the wish back with `berth uninstall --undo`: the Model starts again by itself.",
    ),
    Reason.VALID: Explanation("Berth can carry out the spec."),
    Reason.GPUS_RESERVED: Explanation("Every replica may ask for its GPUs, or has them."),
    Reason.NOT_PLANNED: Explanation("Berth is about to decide when the Model may load.", "It takes moments."),
    Reason.NOT_SERVING: Explanation("No server answers.", "The reason of the condition Ready says why."),
    Reason.CREATING: Explanation(
        "The Deployment is made, and its Pods are about to be.",
        "When it stays so, look at the Events of the Deployment's ReplicaSet.",
    ),
    Reason.UNSCHEDULABLE: Explanation(
        "No node has room for a Pod; the message has the scheduler's own words.",
        "Free GPUs, CPU or memory, add a node, or ask for less in `gpus`, `limits` and `requests`.",
    ),
    Reason.CONTAINER_CREATING: Explanation(
        "A node pulls the image and mounts the volumes.",
        "When it takes longer than the image is large, look at the Events of the Pod.",
    ),
    Reason.LOADING_WEIGHTS: Explanation("The server process runs, and does not answer its health check yet."),
    Reason.ROLLING_OUT: Explanation("New servers start while old ones answer."),
    Reason.REPLACING: Explanation("The old server ends first, because the new one needs its place."),
    Reason.SCALING: Explanation("Some replicas answer, and more are starting."),
    Reason.ROLLOUT_FAILED: Explanation(
        "The servers of the new generation cannot start; those of the last one go on. `lastFailure` has the reason.",
        "Correct the spec, or put the last one back.",
    ),
    Reason.WEIGHTS_PRESENT: Explanation("The weights are where the server finds them."),
    Reason.WAITING_FOR_DOWNLOAD: Explanation(
        "The weights are to be downloaded, and the download has not begun.",
        "`kubectl get modelcache -o yaml` says what it waits for.",
    ),
    Reason.DOWNLOADING: Explanation(
        "The weights are being downloaded; the message says how far that is.",
        "When nothing moves, read the log of the Pod that downloads.",
    ),
    Reason.CACHE_NOT_FOUND: Explanation(
        "The ModelCache that `source.cache` names does not exist.",
        "Create it in the Model's namespace, or remove `source.cache`. The Model goes on by itself.",
    ),
    Reason.CACHE_FAILED: Explanation(
        "The ModelCache that keeps the weights cannot be used; the message has its reason.",
        "Mend the ModelCache. The Model goes on by itself.",
    ),
    Reason.CACHE_REQUIRED: Explanation(
        "The weights are larger than a Pod's own volume may be.",
        "Create a ModelCache named `default` in the namespace, or name one in `source.cache`.",
    ),
    Reason.AS_DECLARED: Explanation("Everything that should be on the volume is there."),
    Reason.WAITING_FOR_SLOT: Explanation(
        "As many downloads run as `maxParallelDownloads` allows.", "Wait, or raise `maxParallelDownloads`."
    ),
    Reason.WAITING_FOR_SPACE: Explanation(
        "Room is being made, or a download that runs has not said its size yet.",
        "Raise `limit`, remove artifacts, or set `eviction: LRU`, when it stays so.",
    ),
    Reason.WAITING_FOR_NODE: Explanation(
        "The volume is made where its first Pod runs, and no node that fits the Model is there yet.",
        "Add a node with the GPUs that the Model asks for, or correct `gpus`.",
    ),
    Reason.CLAIM_NOT_FOUND: Explanation(
        "The PersistentVolumeClaim that `storage.claim` names does not exist.",
        "Create it, or set `storage.size` to have one made.",
    ),
    Reason.CLAIM_LOST: Explanation(
        "The volume behind the claim is gone.", "Restore the volume, or delete the claim to have a new one made."
    ),
    Reason.ACCESS_MODE_UNSUPPORTED: Explanation(
        "Only one Pod at a time may use the volume, and downloads and servers have to share it.",
        "Use a claim with ReadWriteOnce or ReadWriteMany.",
    ),
    Reason.NOT_WANTED: Explanation("A download was ended because nobody asks for it now; what has arrived is kept."),
    Reason.IN_USE: Explanation(
        "`spec.artifacts` says Absent, and Models refer to it still.",
        "Delete those Models, or give them another source.",
    ),
    Reason.REMOVING: Explanation("Its files are being removed from the volume."),
    Reason.DISCOVERING: Explanation("The volume is searched for models that are there already."),
    Reason.RESULT_LOST: Explanation(
        "A download ended, and its Pod was gone before its result was read. It runs again and finds its files."
    ),
    Reason.PROVISIONER_FAILED: Explanation(
        "A download ended without saying why, for example because it was killed.",
        "Read the log of its Pod. It is tried again by itself.",
    ),
    Reason.INVALID_SPEC: Explanation(
        "The spec asks for what cannot be carried out; the message names the field.", "Correct the field."
    ),
    Reason.NAME_CONFLICT: Explanation(
        "An object with the name of the Model exists already and belongs to somebody else. Berth leaves it alone.",
        "Give the Model another `metadata.name`, or remove that object.",
    ),
    Reason.QUOTA_EXCEEDED: Explanation(
        "A ResourceQuota of the namespace does not leave enough.", "Ask for less, or have the quota raised."
    ),
    Reason.FORBIDDEN: Explanation(
        "The API server does not let Berth make an object: its own rights, or an admission policy of the cluster.",
        "The message names the right or the policy. Berth tries again by itself.",
    ),
    Reason.PODS_REFUSED: Explanation(
        "The API server takes the Deployment but not its Pods, for example because of the namespace's Pod Security.",
        "The message says what is refused.",
    ),
    Reason.IMAGE_PULL_FAILED: Explanation(
        "The node cannot pull an image.",
        "Check `serving.image`, and the pull secret of a private registry. A change of the spec starts anew.",
    ),
    Reason.SECRET_NOT_FOUND: Explanation(
        "A Secret, or a key in it, does not exist.", "Create it in the Model's namespace, or correct the reference."
    ),
    Reason.CONFIGURATION_ERROR: Explanation(
        "A container cannot be configured, for example because a ConfigMap does not exist.",
        "The message says what is missing.",
    ),
    Reason.CONTAINER_START_FAILED: Explanation(
        "The container runtime cannot start a container.", "The message has its words; check command and image."
    ),
    Reason.CRASH_LOOP: Explanation(
        "A container keeps ending; the message has its last lines.",
        "Read its log with `kubectl logs --previous`. A change of the spec starts anew.",
    ),
    Reason.OUT_OF_MEMORY: Explanation(
        "A server ran out of host memory or GPU memory; the message says which.",
        "Raise `limits.memory`, lower `serving.contextLength` or `maxConcurrency`, or take more or larger GPUs.",
    ),
    Reason.STARTUP_TIMEOUT: Explanation(
        "A server ran for `health.startupTimeout` without a healthy answer.",
        "Raise `health.startupTimeout` for large weights on slow disks, or read the server's log.",
    ),
    Reason.UNRESPONSIVE: Explanation(
        "A server that has answered before runs, but does not answer its health check; then it is restarted.",
        "Read its log. When it is only busy, raise `health.timeout` or `health.failureThreshold`.",
    ),
    Reason.GPU_FAULT: Explanation(
        "By the last words of a server, a GPU or the driver of its node does not work or is too old.",
        "Look at `nvidia-smi` and the kernel log of the node. Berth tries other nodes when there are any.",
    ),
    Reason.EVICTED: Explanation(
        "The node ended a Pod because it ran short of memory or disk. Another one takes its place.",
        "Set `limits` so that the scheduler knows what a server needs.",
    ),
    Reason.NODE_LOST: Explanation(
        "A node does not answer, or is gone with a Pod on it. Another Pod takes the place once Kubernetes gives the "
        "node up, by default after 5 minutes.",
        "Look at the node. A toleration of `node.kubernetes.io/unreachable` in `podTemplate` sets another time.",
    ),
    Reason.NODE_SHUTDOWN: Explanation("The node was shut down. Another Pod takes the place."),
    Reason.DRAINED: Explanation("A Pod was evicted, most often to empty its node. Another Pod takes the place."),
    Reason.PREEMPTED: Explanation("The scheduler ended a Pod in favour of a more important one."),
    Reason.NODE_REJECTED: Explanation(
        "The node did not take a Pod that was bound to it, often because its GPUs were not registered yet.",
        "Look at the device plugin of the node when it goes on.",
    ),
    Reason.POD_FAILED: Explanation(
        "A Pod ended as a whole; the message says why.",
        "Read the Events of the Pod and of its node; give `berth.dev/start` a new value to try once more.",
    ),
    Reason.ORPHANED: Explanation(
        "An object that Berth made belongs to nobody any more. An Event on that object says so.",
        "Make the Model or ModelCache anew, which takes it over, or delete it.",
    ),
    Reason.ORPHANED_PROCESS: Explanation(
        "A process uses memory of a GPU, and its Pod no longer exists. An Event on the GPUNode says so.",
        "End the process on its node: Berth ends none.",
    ),
}

BREAKER = frozenset(
    {
        Reason.IMAGE_PULL_FAILED,
        Reason.SECRET_NOT_FOUND,
        Reason.CONFIGURATION_ERROR,
        Reason.CONTAINER_START_FAILED,
        Reason.CRASH_LOOP,
        Reason.OUT_OF_MEMORY,
        Reason.STARTUP_TIMEOUT,
        Reason.UNRESPONSIVE,
        Reason.GPU_FAULT,
        Reason.EVICTED,
        Reason.NODE_LOST,
        Reason.NODE_REJECTED,
        Reason.POD_FAILED,
    }
)
"""Failures that a generation is given up for; a change of the spec and an explicit start begin anew."""
