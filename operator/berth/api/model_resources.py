"""What one replica of a Model takes: GPUs, CPU, memory and disk."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from berth.api.base import SET, ApiType, MemoryQuantity, Quantity, Reason, Rule, matching


class GpuSharing(StrEnum):
    """Whether a GPU serves one replica only."""

    EXCLUSIVE = "Exclusive"
    SHARED = "Shared"


class NodePool(StrEnum):
    """Whether nodes may appear because a Pod waits for one."""

    FIXED = "Fixed"
    AUTOSCALED = "Autoscaled"


class Gpus(ApiType):
    """The GPUs of one replica. Kubernetes gives no way to choose GPU indexes; products and memory can be chosen."""

    rules: ClassVar = (
        Rule(
            "self.count > 0 || !has(self.products)",
            "gpus.products needs GPUs: set gpus.count to at least 1 or remove gpus.products",
            ".products",
            Reason.FORBIDDEN,
        ),
        Rule(
            "self.count > 0 || !has(self.memory)",
            "gpus.memory needs GPUs: set gpus.count to at least 1 or remove gpus.memory",
            ".memory",
            Reason.FORBIDDEN,
        ),
        Rule(
            "self.count > 0 || self.sharing == 'Exclusive'",
            "gpus.sharing Shared needs GPUs: set gpus.count to at least 1 or remove gpus.sharing",
            ".sharing",
            Reason.FORBIDDEN,
        ),
    )

    count: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs per replica; 0 runs on CPU."""
    resource: Annotated[
        str,
        matching(
            r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$",
            "gpus.resource is what nodes offer under status.allocatable: write for example nvidia.com/gpu",
            max_length=128,
        ),
    ] = "nvidia.com/gpu"
    """Extended resource to ask for: `nvidia.com/gpu`, one of MIG (`nvidia.com/mig-3g.40gb`) or of another vendor."""
    products: (
        Annotated[
            list[
                Annotated[
                    str,
                    matching(
                        r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
                        "gpus.products are labels of nodes: copy them from kubectl get nodes -L nvidia.com/gpu.product",
                        max_length=63,
                    ),
                ]
            ],
            Field(min_length=1, max_length=32, json_schema_extra=SET),
        ]
        | None
    ) = None
    """Allowed values of the node label `nvidia.com/gpu.product`."""
    memory: MemoryQuantity | None = None
    """Memory needed on each GPU, for example `24Gi`; estimated when omitted."""
    sharing: GpuSharing = GpuSharing.EXCLUSIVE
    """`Exclusive` takes whole GPUs; `Shared` takes `memory` of a shared one."""
    nodes: NodePool = NodePool.FIXED
    """`Fixed` never asks for what no node can fit; `Autoscaled` leaves a Pending Pod for cluster autoscalers."""


class ComputeResources(ApiType):
    """CPU, memory and local disk of one replica."""

    cpu: Quantity | None = None
    """Cores, for example `4` or `500m`; a fraction is text: `"0.5"`."""
    memory: MemoryQuantity | None = None
    """Host memory, for example `16Gi`."""
    ephemeral_storage: Annotated[MemoryQuantity | None, Field(alias="ephemeral-storage")] = None
    """Local disk, for example `10Gi`."""
