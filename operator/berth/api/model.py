"""The Model resource: what a person declares. What Berth reports is in model_status.

The parts of the spec are in modules of their own; whoever uses them imports them from here.
"""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from berth.api.base import ApiType, Reason, Rule
from berth.api.model_lifecycle import (
    DesiredState,
    Health,
    HttpMethod,
    Idle,
    Rollout,
    RolloutStrategy,
    Shutdown,
    Unload,
    UpgradePolicy,
)
from berth.api.model_network import IpBlock, LabelSelector, LabelSelectorRequirement, Network, NetworkPeer
from berth.api.model_resources import ComputeResources, Gpus, GpuSharing, NodePool
from berth.api.model_serving import (
    Custom,
    CustomMetrics,
    EnvironmentFrom,
    EnvironmentFromObject,
    EnvironmentSource,
    EnvironmentVariable,
    FieldSelector,
    KeySelector,
    Serving,
)
from berth.api.model_source import SecretReference, Source
from berth.api.model_status import ModelStatus
from berth.api.pod_template import PodTemplate

__all__ = [
    "NAME_RULE",
    "SCHEMES",
    "BackendName",
    "ComputeResources",
    "Custom",
    "CustomMetrics",
    "DesiredState",
    "EnvironmentFrom",
    "EnvironmentFromObject",
    "EnvironmentSource",
    "EnvironmentVariable",
    "FieldSelector",
    "GpuSharing",
    "Gpus",
    "Health",
    "HttpMethod",
    "Idle",
    "IpBlock",
    "KeySelector",
    "LabelSelector",
    "LabelSelectorRequirement",
    "Model",
    "ModelSpec",
    "ModelStatus",
    "Network",
    "NetworkPeer",
    "NodePool",
    "Rollout",
    "RolloutStrategy",
    "SecretReference",
    "Serving",
    "Shutdown",
    "Source",
    "Unload",
    "UpgradePolicy",
]


class BackendName(StrEnum):
    """The inference servers that Berth knows how to run."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    OLLAMA = "ollama"
    TGI = "tgi"
    CUSTOM = "custom"


SCHEMES = {
    BackendName.VLLM: ("hf", "s3", "pvc", "oci"),
    BackendName.SGLANG: ("hf", "s3", "pvc", "oci"),
    BackendName.TGI: ("hf", "s3", "pvc", "oci"),
    BackendName.LLAMACPP: ("hf", "https", "s3", "pvc", "oci"),
    BackendName.OLLAMA: ("ollama", "pvc"),
}
"""Where each backend loads its weights from."""
_KNOWN_SCHEMES = ("hf", "ollama", "https", "s3", "pvc", "oci")


def _scheme_rule(backend: BackendName, schemes: tuple[str, ...]) -> Rule:
    fits = " || ".join(f"self.source.uri.startsWith('{scheme}://')" for scheme in schemes)
    wanted = ", ".join(f"{scheme}://" for scheme in schemes)
    return Rule(
        # A uri of no known scheme is the business of the rule on the uri itself.
        f"self.backend != '{backend}' || !has(self.source) || {fits}"
        f" || !self.source.uri.matches('^({'|'.join(_KNOWN_SCHEMES)})://')",
        f"backend {backend} loads from {wanted}: change source.uri or choose another backend",
        ".source.uri",
    )


def _within_limit(name: str) -> Rule:
    """What is promised is not more than what is allowed. CEL spells a dash in a name `__dash__`."""
    member = name.replace("-", "__dash__")
    request, limit = f"self.requests.{member}", f"self.limits.{member}"
    return Rule(
        f"!has(self.requests) || !has({request}) || !has(self.limits) || !has({limit})"
        f" || !isQuantity(string({request})) || !isQuantity(string({limit}))"
        f" || quantity(string({request})).compareTo(quantity(string({limit}))) <= 0",
        f"requests.{name} is more than limits.{name}: lower the request or raise the limit",
        f".requests['{name}']" if "-" in name else f".requests.{name}",
    )


class ModelSpec(ApiType):
    """What a person declares of a model: backend, source, GPUs and limits."""

    rules: ClassVar = (
        Rule(
            "self.backend != 'custom' || has(self.custom)",
            "backend custom needs spec.custom: set at least custom.port, the port that the server listens on",
            ".custom",
            Reason.REQUIRED,
        ),
        Rule(
            "self.backend == 'custom' || !has(self.custom)",
            "spec.custom belongs to backend custom: remove it, or set backend: custom",
            ".custom",
            Reason.FORBIDDEN,
        ),
        Rule(
            "self.backend != 'custom' || (has(self.serving) && has(self.serving.image))",
            "backend custom needs serving.image: name the container image of the server",
            ".serving.image",
            Reason.REQUIRED,
        ),
        Rule(
            "self.backend == 'custom' || has(self.source)",
            "spec.source is missing: name the weights, for example source: {uri: hf://org/repo}",
            ".source",
            Reason.REQUIRED,
        ),
        *(_scheme_rule(backend, schemes) for backend, schemes in SCHEMES.items()),
        Rule(
            "!has(self.idle) || self.state != 'Running'",  # what is stopped may go on OnDemand
            "idle.after needs state OnDemand: set state: OnDemand or remove idle",
            ".idle",
            Reason.FORBIDDEN,
        ),
        Rule(
            "!has(self.serving) || !has(self.serving.quantization) || self.backend in ['vllm', 'sglang', 'tgi']",
            "serving.quantization is a choice of vllm, sglang and tgi: others take it from the file or tag in source",
            ".serving.quantization",
            Reason.FORBIDDEN,
        ),
        Rule(
            "!has(self.serving) || !has(self.serving.dtype) || self.backend in ['vllm', 'sglang', 'tgi']",
            "serving.dtype is a choice of vllm, sglang and tgi: remove it",
            ".serving.dtype",
            Reason.FORBIDDEN,
        ),
        Rule(
            "self.backend != 'custom' || !has(self.serving) || !has(self.serving.contextLength)",
            "backend custom has no flag for serving.contextLength that Berth knows: put it into serving.args",
            ".serving.contextLength",
            Reason.FORBIDDEN,
        ),
        Rule(
            "self.backend != 'custom' || !has(self.serving) || !has(self.serving.maxConcurrency)",
            "backend custom has no flag for serving.maxConcurrency that Berth knows: put it into serving.args",
            ".serving.maxConcurrency",
            Reason.FORBIDDEN,
        ),
        Rule(
            "self.backend == 'custom' || !has(self.shutdown.unload)",
            "shutdown.unload is for backend custom: Berth knows how the others free their memory, remove it",
            ".shutdown.unload",
            Reason.FORBIDDEN,
        ),
        Rule(
            "self.gpus.count > 0 || !(self.backend in ['sglang', 'tgi'])",
            "backends sglang and tgi need a GPU: set gpus.count to at least 1 or choose llamacpp or ollama",
            ".gpus.count",
        ),
        *(_within_limit(name) for name in ("cpu", "memory", "ephemeral-storage")),
    )

    backend: BackendName
    """The inference server."""
    source: Source | None = None
    """Where the weights come from; required except for backend custom."""
    gpus: Gpus = Gpus()
    """GPUs of one replica."""
    limits: ComputeResources | None = None
    """Upper bounds of one replica. Memory without a limit can take a whole node down."""
    requests: ComputeResources | None = None
    """What one replica is promised; Kubernetes takes the limits where omitted."""
    serving: Serving | None = None
    """How the server serves."""
    custom: Custom | None = None
    """The server of backend custom."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Servers that run side by side. Leave it out of Git when an autoscaler owns it. 0 stops the Model."""
    state: DesiredState = DesiredState.RUNNING
    """`Running`, `Stopped`, or `OnDemand`: runs while a ModelRoute points at it, and from a new value of the annotation
    `berth.dev/start` until `idle.after`."""
    priority: Annotated[int, Field(ge=0, le=1000)] = 100
    """Who loads first and who yields to whom; more is more important."""
    idle: Idle | None = None
    """When a Model that nobody uses is unloaded."""
    rollout: Rollout = Rollout()
    """How changes are rolled out."""
    health: Health = Health()
    """When a server counts as started, ready and alive."""
    shutdown: Shutdown = Shutdown()
    """How a server ends."""
    network: Network | None = None
    """Who may reach the server."""
    pod_template: PodTemplate | None = None
    """A partial PodTemplateSpec that is merged last: tolerations, affinity, sidecars, labels."""


NAME_RULE = Rule(
    "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 52",
    "metadata.name names a Service: start with a letter, use lower-case letters, digits and -, at most 52 characters",
    ".metadata.name",
)


class Model(ApiType):
    """Run this model, on this backend, with these GPUs and limits."""

    rules: ClassVar = (NAME_RULE,)

    spec: ModelSpec
    """What a person declares."""
    status: ModelStatus = ModelStatus()
    """What Berth reports."""
