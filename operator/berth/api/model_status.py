"""The status of a Model: what Berth reports. Phases and conditions are decided in planning."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from berth.api.base import ApiType

Timestamp = Annotated[str, Field(max_length=40, json_schema_extra={"format": "date-time"})]
"""A time as the API server writes it: RFC 3339, UTC, whole seconds."""


class Phase(StrEnum):
    """Where a Model is in its life; computed from the conditions."""

    PENDING = "Pending"
    PROVISIONING = "Provisioning"
    QUEUED = "Queued"
    LOADING = "Loading"
    READY = "Ready"
    UPDATING = "Updating"
    DEGRADED = "Degraded"
    DRAINING = "Draining"
    STOPPED = "Stopped"
    FAILED = "Failed"


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiType):
    """One observation, in the shape of metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    """Ready, Reconciling, Stalled, Accepted, Provisioned, Admitted or Available."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, Field(max_length=1024)]
    """One word for programs."""
    message: Annotated[str, Field(max_length=32768)]
    """A sentence for people."""
    last_transition_time: Timestamp
    """When the status last changed."""
    observed_generation: int
    """The generation of the spec that this was seen for."""


Conditions = Annotated[
    list[Condition],
    Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]
"""Conditions that several writers may add to, each type once."""


class Provisioning(ApiType):
    """How the download of the weights goes."""

    uri: str | None = None
    """What is downloaded."""
    cache: str | None = None
    """The ModelCache that keeps it; none for an ephemeral volume."""
    revision: str | None = None
    """The exact revision, for example a commit."""
    bytes_total: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """Bytes to download."""
    bytes_done: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """Bytes downloaded."""
    percent: int | None = None
    """Share that is downloaded, 0 to 100."""
    progress: str | None = None
    """The percent as text while the download goes on; for the table of kubectl get."""
    bytes_per_second: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """Speed of late."""
    eta_seconds: int | None = None
    """Seconds that are left at this speed."""
    files_total: int | None = None
    """Files to download."""
    files_done: int | None = None
    """Files downloaded and verified."""
    verified: bool | None = None
    """Whether every digest was compared."""
    attempt: int | None = None
    """How often it was begun."""
    last_error: str | None = None
    """Why the last attempt ended."""


class MemorySource(StrEnum):
    """Where the figure of needed GPU memory comes from."""

    DECLARED = "Declared"
    ESTIMATED = "Estimated"


class GpuStatus(ApiType):
    """GPU memory of one replica."""

    required_mi_b: Annotated[int | None, Field(alias="requiredMiB")] = None
    """MiB needed on each GPU."""
    source: MemorySource | None = None
    """Whether that was declared or estimated."""
    message: str | None = None
    """Why it is not known, so that whole GPUs are taken."""
    measured_mi_b: Annotated[int | None, Field(alias="measuredMiB")] = None
    """MiB measured on the GPU that uses most."""
    nodes: Annotated[list[str], Field(max_length=1000)] | None = None
    """Nodes that replicas run on."""


class QueueStatus(ApiType):
    """What a Model waits for."""

    position: str | None = None
    """Place in the queue: exact up to 10, then `>10`."""
    reason: str | None = None
    """One word: what it waits for."""
    message: str | None = None
    """The same as a sentence with numbers."""
    since: Timestamp | None = None
    """Since when."""


class LoadState(StrEnum):
    """Whether a server works on requests."""

    IDLE = "Idle"
    BUSY = "Busy"
    UNKNOWN = "Unknown"


class LoadStatus(ApiType):
    """Whether requests are worked on."""

    state: LoadState
    """Idle, Busy or Unknown."""
    since: Timestamp | None = None
    """Since when; of Idle, since the last request that was seen."""
    mark: Annotated[str, Field(max_length=64)] | None = None
    """With idle.after: stands for all that the servers have done. While it stays, no request was missed."""


class StartStatus(ApiType):
    """The latest start that was asked for with the annotation berth.dev/start."""

    value: Annotated[str, Field(max_length=253)] | None = None
    """Value of the annotation that was seen last; another one asks for a start."""
    at: Timestamp | None = None
    """When an OnDemand Model was told to start."""
    unloaded_at: Timestamp | None = None
    """When it was unloaded after that, because nobody used it for idle.after."""


class LastFailure(ApiType):
    """The last thing that went wrong. It stays for reading after recovery."""

    reason: str
    """One word: what it was."""
    message: str
    """The same as a sentence, with the last lines of the server where there are any."""
    exit_code: int | None = None
    """Exit code of the server."""
    at: Timestamp | None = None
    """When it happened."""


class LostPod(ApiType):
    """A Pod that failed as a whole, or that had to go because of its node."""

    pod: Annotated[str, Field(max_length=253)]
    """Its name."""
    node: Annotated[str, Field(max_length=253)] | None = None
    """The node that it was on."""
    reason: str
    """One word: what happened."""
    at: Timestamp
    """When."""


class ExcludedNode(ApiType):
    """A node that is avoided because it failed the Model."""

    node: Annotated[str, Field(max_length=253)]
    """Its name."""
    reason: str
    """One word: what happened there."""
    until: Timestamp
    """When it is allowed again at the latest."""


class RecoveryStatus(ApiType):
    """What is remembered of failures, so that Berth goes on with patience, elsewhere, and not for ever."""

    lost_pods: Annotated[list[LostPod], Field(max_length=100)] | None = None
    """Pods in a row, oldest first, that count as failures; as many as the budget has, and the Model is Failed."""
    next_attempt_at: Timestamp | None = None
    """The place of the last of them stays empty until then."""
    excluded_nodes: Annotated[list[ExcludedNode], Field(max_length=100)] | None = None
    """Nodes that are avoided when a Pod has to go elsewhere and no replica answers."""
    generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """The generation of the spec that these failures count for."""
    since: Timestamp | None = None
    """Failures before this are forgotten: the budget was given back."""
    start_handled: str | None = None
    """The value of the annotation berth.dev/start that was obeyed last."""


class Timeline(ApiType):
    """When the Model reached each step of its latest start."""

    queued_at: Timestamp | None = None
    """Seen, or woken up."""
    provisioned_at: Timestamp | None = None
    """Weights there."""
    admitted_at: Timestamp | None = None
    """Allowed to ask for GPUs."""
    started_at: Timestamp | None = None
    """First server process started."""
    ready_at: Timestamp | None = None
    """First healthy answer."""


class ModelStatus(ApiType):
    """What is: computed by Berth, never by hand."""

    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] = -1
    """Generation of the spec that this status is about; -1 until Berth has seen the Model."""
    phase: Phase = Phase.PENDING
    """Where the Model is in its life."""
    phase_since: Timestamp | None = None
    """Since when it is there."""
    conditions: Conditions | None = None
    """Ready, Reconciling, Stalled, Accepted, Provisioned, Admitted, Available."""
    url: str | None = None
    """Where the server answers within the cluster."""
    selector: str | None = None
    """Labels of the server Pods, for autoscalers."""
    replicas: int | None = None
    """Server Pods that exist."""
    admitted_replicas: int | None = None
    """Replicas that may run."""
    ready_replicas: int | None = None
    """Replicas that answer."""
    ready: str | None = None
    """Replicas that answer of those wanted, for example `1/2`; for the table of kubectl get."""
    provisioning: Provisioning | None = None
    """How the download goes."""
    gpu: GpuStatus | None = None
    """GPU memory."""
    queue: QueueStatus | None = None
    """What it waits for."""
    load: LoadStatus | None = None
    """Whether requests are worked on."""
    start: StartStatus | None = None
    """The latest start that was asked for."""
    restarts: int | None = None
    """Restarts of the servers that exist."""
    last_failure: LastFailure | None = None
    """The last thing that went wrong."""
    recovery: RecoveryStatus | None = None
    """What is remembered of failures."""
    timeline: Timeline | None = None
    """When each step was reached."""
    upgrade_available: bool | None = None
    """Whether this version of Berth would render other Pods; rollout.onUpgrade or a change of the spec allows it."""
