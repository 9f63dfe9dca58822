"""The GPUNode resource: what the agent on a node reports of its GPUs. Nobody declares anything in it."""

from typing import Annotated

from pydantic import Field

from berth.api.base import ApiType
from berth.api.model_status import Conditions, Timestamp

MOST_DEVICES = 256
"""GPUs and MIG devices of one node: sixteen GPUs of seven slices are 128 entries."""

MOST_PROCESSES = 16
"""Processes listed for one GPU, the biggest first."""

MOST_XIDS = 8
"""XID errors kept for one GPU, the latest last."""

MOST_HOLDERS = 64
"""Containers that share one GPU."""

MiB = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]


class MemoryOfGPU(ApiType):
    """Memory of a GPU or of a MIG device."""

    total_mi_b: Annotated[MiB, Field(alias="totalMiB")]
    """All of it."""
    used_mi_b: Annotated[MiB, Field(alias="usedMiB")]
    """What processes use; `reservedMiB` comes on top where it is given."""
    reserved_mi_b: Annotated[MiB | None, Field(alias="reservedMiB")] = None
    """What the driver keeps for itself; missing with drivers that count it as used."""


class HostMemory(ApiType):
    """Memory of the node itself."""

    total_mi_b: Annotated[MiB, Field(alias="totalMiB")]
    """All of it."""
    used_mi_b: Annotated[MiB, Field(alias="usedMiB")]
    """What could not be given to a new process without swapping."""


class XidError(ApiType):
    """An error that the driver reported of a GPU."""

    xid: int
    """Its number in NVIDIA's catalogue of Xid errors."""
    at: Timestamp
    """When it came."""


class GPUHealth(ApiType):
    """Whether a GPU can be given work."""

    healthy: bool
    """Whether it can."""
    reason: Annotated[str, Field(max_length=64)] | None = None
    """Why not, in one word."""
    message: Annotated[str, Field(max_length=1024)] | None = None
    """The same as a sentence."""
    xids: Annotated[list[XidError], Field(max_length=MOST_XIDS)] | None = None
    """The latest XID errors since the agent or the driver started."""
    ecc_errors: int | None = None
    """Memory errors since the driver started that could not be corrected."""


class GPUHolder(ApiType):
    """A container that kubelet gave the GPU to."""

    namespace: Annotated[str, Field(max_length=253)]
    """Namespace of its Pod."""
    pod: Annotated[str, Field(max_length=253)]
    """Name of its Pod."""
    container: Annotated[str, Field(max_length=253)]
    """Name of the container."""


class GPUProcess(ApiType):
    """A process that uses memory of the GPU."""

    pid: int
    """Its number on the node."""
    command: Annotated[str, Field(max_length=64)]
    """Name of its command; empty when it ended before it could be looked at."""
    memory_mi_b: Annotated[MiB | None, Field(alias="memoryMiB")] = None
    """GPU memory that it uses; missing where the driver does not tell."""
    foreign: bool = False
    """Whether it belongs to no Pod of this cluster: a program of the host."""
    pod_uid: Annotated[str, Field(max_length=64)] | None = None
    """uid of its Pod, by the process's control group."""
    namespace: Annotated[str, Field(max_length=253)] | None = None
    """Namespace of its Pod; missing where only the uid is certain."""
    pod: Annotated[str, Field(max_length=253)] | None = None
    """Name of its Pod; missing where only the uid is certain."""


class GPU(ApiType):
    """A GPU or a MIG device."""

    uuid: Annotated[str, Field(max_length=96)]
    """Its name for driver and device plugin, such as GPU-… or MIG-…."""
    product: Annotated[str, Field(max_length=128)]
    """What the vendor calls it."""
    index: int | None = None
    """Its number for nvidia-smi; missing for MIG devices."""
    mig: bool = False
    """Whether it is cut into MIG devices, which have entries of their own: nothing is placed on the whole."""
    parent_uuid: Annotated[str, Field(max_length=96)] | None = None
    """The GPU that a MIG device is a part of."""
    profile: Annotated[str, Field(max_length=64)] | None = None
    """Size of a MIG device, such as 1g.10gb."""
    memory: MemoryOfGPU | None = None
    """Its memory; missing where it has none of its own and uses the node's (see hostMemory)."""
    utilisation_percent: int | None = None
    """Share of the last second or so in which it computed."""
    temperature_celsius: int | None = None
    """Temperature of the chip."""
    power_watts: int | None = None
    """Power that it draws."""
    health: GPUHealth
    """Whether it can be given work."""
    holders: Annotated[list[GPUHolder], Field(max_length=MOST_HOLDERS)] | None = None
    """Containers that kubelet gave it to; several share it."""
    foreign_mi_b: Annotated[MiB, Field(alias="foreignMiB")] = 0
    """Memory of all processes on it that belong to no Pod."""
    processes: Annotated[list[GPUProcess], Field(max_length=MOST_PROCESSES)] | None = None
    """The processes that use most of its memory, the biggest first."""


class GPUNodeSummary(ApiType):
    """The node in a few words, for the table of kubectl get."""

    gpus: str
    """Number of GPUs; with unhealthy ones, the healthy ones of all."""
    memory: str
    """Memory used of all GPUs together, or of the node where they have none of their own."""
    health: str
    """Healthy, or what is wrong."""


class GPUNodeStatus(ApiType):
    """What is: written by the agent on the node, never by hand."""

    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] = -1
    """Generation of the object that the agent saw; -1 until it has written for the first time."""
    conditions: Conditions | None = None
    """Ready: the driver answers. HoldersKnown: kubelet says which Pod holds which GPU."""
    summary: GPUNodeSummary | None = None
    """The node in a few words."""
    driver_version: Annotated[str, Field(max_length=80)] | None = None
    """Version of the driver."""
    cuda_version: Annotated[str, Field(max_length=32)] | None = None
    """Newest CUDA version that the driver serves."""
    boot_id: Annotated[str | None, Field(alias="bootID", max_length=64)] = None
    """Which start of the node this is about: a GPU that was there in the same one and is gone fell off the bus."""
    host_memory: HostMemory | None = None
    """Memory of the node itself."""
    gpus: (
        Annotated[
            list[GPU],
            Field(
                max_length=MOST_DEVICES,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uuid"]},
            ),
        ]
        | None
    ) = None
    """GPUs and MIG devices, each GPU followed by its MIG devices."""
    last_written_at: Timestamp | None = None
    """When the agent last wrote: at least every five minutes."""


class GPUNode(ApiType):
    """What the GPUs of a node are, how much of their memory is used, and by whom.

    Berth makes one for each node with GPUs, and removes it with the node; the agent on the node fills it in.
    """

    status: GPUNodeStatus = GPUNodeStatus()
    """What the agent reports."""
