"""The CustomResourceDefinitions: what the types are called, and what `kubectl get` shows of them.

A new kind is one entry in RESOURCES.
"""

from dataclasses import dataclass
from typing import Any, Literal

from berth.api.base import API_VERSION, GROUP, VERSION, ApiType
from berth.api.gpu_node import GPUNode
from berth.api.model import Model
from berth.api.model_cache import ModelCache
from berth.api.schema import Schema, structural_schema


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; `wide` ones are shown with `-o wide` only."""

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "date"] = "string"
    wide: bool = False

    def to_json(self) -> dict[str, Any]:
        """The column as it stands in a CRD."""
        column = {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.path,
            "description": self.description,
        }
        return {**column, "priority": 1} if self.wide else column


@dataclass(frozen=True)
class Scale:
    """Where the /scale subresource reads and writes."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    label_selector: str = ".status.selector"

    def to_json(self) -> dict[str, str]:
        """The subresource as it stands in a CRD."""
        return {
            "specReplicasPath": self.spec_replicas,
            "statusReplicasPath": self.status_replicas,
            "labelSelectorPath": self.label_selector,
        }


@dataclass(frozen=True)
class Resource:
    """A kind of our group: its type and its names."""

    type: type[ApiType]
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    categories: tuple[str, ...] = ("berth",)
    scope: Literal["Namespaced", "Cluster"] = "Namespaced"
    scale: Scale | None = None

    @property
    def kind(self) -> str:
        """The kind, such as Model."""
        return self.type.__name__

    @property
    def name(self) -> str:
        """The name of the CRD, such as models.berth.dev."""
        return f"{self.plural}.{GROUP}"


_AGE = Column("Age", ".metadata.creationTimestamp", "Time since it was created.", type="date")

RESOURCES: tuple[Resource, ...] = (
    Resource(
        Model,
        plural="models",
        short_names=("mdl",),
        # `kubectl get all` shows the Deployment, Service and Pods of a Model. Without the Model beside them a
        # reader would edit those, and `kubectl delete all --all` would delete what then comes back.
        categories=("berth", "all"),
        scale=Scale(),
        columns=(
            Column("Phase", ".status.phase", "Where the Model is in its life."),
            Column("Ready", ".status.ready", "Replicas that answer, of those wanted."),
            Column("Backend", ".spec.backend", "The inference server."),
            Column("GPUs", ".spec.gpus.count", "GPUs of one replica.", type="integer"),
            Column("Progress", ".status.provisioning.progress", "How far the download is."),
            Column("Queue", ".status.queue.position", "Place in the queue."),
            Column("URL", ".status.url", "Where the server answers within the cluster."),
            _AGE,
            Column("Replicas", ".spec.replicas", "Replicas wanted.", type="integer", wide=True),
            Column("Restarts", ".status.restarts", "Restarts of the servers.", type="integer", wide=True),
            Column("Memory", ".status.gpu.requiredMiB", "MiB on each GPU.", type="integer", wide=True),
            Column("Nodes", ".status.gpu.nodes", "Nodes that replicas run on.", wide=True),
            Column(
                "Reason",
                '.status.conditions[?(@.type=="Ready")].reason',
                "Why it is ready or not, in one word.",
                wide=True,
            ),
            Column(
                "Message",
                '.status.conditions[?(@.type=="Ready")].message',
                "The same as a sentence.",
                wide=True,
            ),
        ),
    ),
    Resource(
        ModelCache,
        plural="modelcaches",
        short_names=("mcache",),
        columns=(
            Column("Phase", ".status.phase", "Where the cache is."),
            Column("Claim", ".status.claim", "The PersistentVolumeClaim."),
            Column("Used", ".status.used", "What all artifacts take, of the limit or the volume."),
            Column("Present", ".status.present", "Artifacts that are there, of those wanted."),
            _AGE,
            Column("Capacity", ".status.capacity", "Size of the volume.", wide=True),
            Column("Access", ".status.accessMode", "From how many nodes it is used.", wide=True),
            Column("Nodes", ".status.nodes", "Nodes whose Pods use it.", wide=True),
            Column(
                "Message",
                '.status.conditions[?(@.type=="Ready")].message',
                "Why it is ready or not.",
                wide=True,
            ),
        ),
    ),
    Resource(
        GPUNode,
        plural="gpunodes",
        short_names=("gpu",),
        scope="Cluster",
        columns=(
            Column("GPUs", ".status.summary.gpus", "Healthy GPUs, of all where some are not."),
            Column("Memory", ".status.summary.memory", "Memory used, of all that the GPUs have."),
            Column("Health", ".status.summary.health", "Healthy, or what is wrong."),
            _AGE,
            Column("Driver", ".status.driverVersion", "Version of the driver.", wide=True),
            Column("CUDA", ".status.cudaVersion", "Newest CUDA version that it serves.", wide=True),
            Column("Written", ".status.lastWrittenAt", "When the agent last wrote.", type="date", wide=True),
            Column(
                "Message",
                '.status.conditions[?(@.type=="Ready")].message',
                "Whether the driver answers, and what to do if not.",
                wide=True,
            ),
        ),
    ),
)
"""Every kind of the group."""


def root_schema(resource: Resource, type_schema: Schema) -> Schema:
    """The schema of a whole object: that of its type, and what Kubernetes puts around it."""
    return {
        **type_schema,
        "properties": {
            "apiVersion": {"description": f"Always `{API_VERSION}`.", "type": "string"},
            "kind": {"description": f"Always `{resource.kind}`.", "type": "string"},
            # The API server knows the rest of metadata by itself; a rule can point at what is named here only.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            **type_schema["properties"],
        },
    }


def custom_resource_definition(resource: Resource) -> dict[str, Any]:
    """The CRD of a kind, as it is applied."""
    subresources: dict[str, Any] = {}
    if "status" in resource.type.model_fields:
        subresources["status"] = {}
    if resource.scale is not None:
        subresources["scale"] = resource.scale.to_json()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.name, "labels": {"app.kubernetes.io/part-of": "berth"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": list(resource.short_names),
                "categories": list(resource.categories),
            },
            "scope": resource.scope,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": root_schema(resource, structural_schema(resource.type))},
                    "subresources": subresources,
                    "additionalPrinterColumns": [column.to_json() for column in resource.columns],
                }
            ],
        },
    }
