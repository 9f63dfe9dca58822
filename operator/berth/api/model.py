"""The Model resource: what a person declares. What Berth reports is in model_status."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from berth.api.base import ApiType, Duration, Name, Quantity, Rule
from berth.api.model_status import ModelStatus

GPU_BACKENDS = ("vllm", "sglang", "tgi")


class BackendName(StrEnum):
    """The inference servers that Berth knows how to run."""

    VLLM = "vllm"
    SGLANG = "sglang"
    LLAMACPP = "llamacpp"
    OLLAMA = "ollama"
    TGI = "tgi"
    CUSTOM = "custom"


class GpuSharing(StrEnum):
    """Whether a GPU serves one replica only."""

    EXCLUSIVE = "Exclusive"
    SHARED = "Shared"


class NodePool(StrEnum):
    """Whether nodes may appear because a Pod waits for one."""

    FIXED = "Fixed"
    AUTOSCALED = "Autoscaled"


class DesiredState(StrEnum):
    """What the person wants of the Model."""

    RUNNING = "Running"
    STOPPED = "Stopped"
    ON_DEMAND = "OnDemand"


class RolloutStrategy(StrEnum):
    """How a new generation replaces the old one."""

    AUTO = "Auto"
    SURGE = "Surge"
    IN_PLACE = "InPlace"


class UpgradePolicy(StrEnum):
    """Whether a new version of Berth may restart Pods."""

    MANUAL = "Manual"
    AUTOMATIC = "Automatic"


class SecretReference(ApiType):
    """A Secret in the Model's namespace. Berth never reads it; only Pods do."""

    name: Name
    """Name of the Secret."""


class Source(ApiType):
    """Where the weights come from. They must be in a format that the backend loads; nothing is converted."""

    rules: ClassVar = (
        Rule(
            "!has(self.sha256) || self.uri.startsWith('https://')",
            "source.sha256 is for a single file: use it with an https:// uri, or leave it out (hubs publish their own digests)",
            ".sha256",
        ),
        Rule(
            "!has(self.files) || !(self.uri.startsWith('https://') || self.uri.startsWith('ollama://') || self.uri.startsWith('oci://'))",
            "source.files selects files of an hf://, s3:// or pvc:// source: remove it for this uri",
            ".files",
        ),
    )

    uri: Annotated[
        str,
        Field(
            max_length=1024,
            pattern=r"^(hf://[^/@\s]+/[^/@\s]+(@[^@\s]+)?|ollama://[^\s]+|https://[^\s]+|s3://[^/\s]+(/[^\s]*)?|pvc://[^/\s]+(/[^\s]*)?|oci://[^\s]+)$",
        ),
    ]
    """`hf://org/repo[@revision]`, `ollama://name:tag`, `https://…`, `s3://bucket/prefix`, `pvc://claim/path` or `oci://image`."""
    files: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=32)] | None = None
    """Globs of the files to take, for example `*Q4_K_M.gguf`; all when omitted."""
    sha256: Annotated[str, Field(max_length=64, pattern=r"^[a-f0-9]{64}$")] | None = None
    """Expected digest of a single file, in lower-case hexadecimal digits."""
    secret_ref: SecretReference | None = None
    """Secret with the token or keys of the source."""
    cache: Name | None = None
    """The ModelCache that keeps the weights; the one named `default` when omitted, else an ephemeral volume."""


class Gpus(ApiType):
    """The GPUs of one replica. Kubernetes gives no way to choose GPU indexes; products and memory can be chosen."""

    rules: ClassVar = (
        Rule(
            "self.count > 0 || !has(self.products)",
            "gpus.products needs GPUs: set gpus.count to at least 1 or remove gpus.products",
            ".products",
        ),
        Rule(
            "self.count > 0 || !has(self.memory)",
            "gpus.memory needs GPUs: set gpus.count to at least 1 or remove gpus.memory",
            ".memory",
        ),
        Rule(
            "self.count > 0 || self.sharing == 'Exclusive'",
            "gpus.sharing Shared needs GPUs: set gpus.count to at least 1 or remove gpus.sharing",
            ".sharing",
        ),
    )

    count: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs per replica; 0 runs on CPU."""
    resource: Annotated[str, Field(max_length=128, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")] = "nvidia.com/gpu"
    """The extended resource to ask for: `nvidia.com/gpu`, a MIG resource such as `nvidia.com/mig-3g.40gb`, or another vendor's."""
    products: Annotated[list[Annotated[str, Field(max_length=63)]], Field(min_length=1, max_length=32)] | None = None
    """Allowed values of the node label `nvidia.com/gpu.product`."""
    memory: Quantity | None = None
    """Memory needed on each GPU, for example `24Gi`; estimated when omitted."""
    sharing: GpuSharing = GpuSharing.EXCLUSIVE
    """`Exclusive` takes whole GPUs; `Shared` takes `memory` of a shared one."""
    nodes: NodePool = NodePool.FIXED
    """`Fixed` never asks for what no node can fit; `Autoscaled` leaves a Pending Pod for cluster autoscalers."""


class ComputeResources(ApiType):
    """CPU, memory and local disk of one replica."""

    cpu: Quantity | None = None
    """Cores, for example `4` or `500m`."""
    memory: Quantity | None = None
    """Host memory, for example `16Gi`."""
    ephemeral_storage: Annotated[Quantity | None, Field(alias="ephemeral-storage")] = None
    """Local disk, for example `10Gi`."""


class KeySelector(ApiType):
    """A key of a Secret or ConfigMap in the same namespace."""

    name: Name
    """Name of the object."""
    key: Annotated[str, Field(max_length=253)]
    """Key in the object."""
    optional: bool | None = None
    """Whether the Pod may start without it."""


class FieldSelector(ApiType):
    """A field of the Pod."""

    field_path: Annotated[str, Field(max_length=253)]
    """Path of the field, for example `status.podIP`."""


class EnvironmentSource(ApiType):
    """Where the value of an environment variable comes from."""

    secret_key_ref: KeySelector | None = None
    """A key of a Secret."""
    config_map_key_ref: KeySelector | None = None
    """A key of a ConfigMap."""
    field_ref: FieldSelector | None = None
    """A field of the Pod."""


class EnvironmentVariable(ApiType):
    """One environment variable of the server."""

    rules: ClassVar = (
        Rule(
            "!(has(self.value) && has(self.valueFrom))",
            "an environment variable has either value or valueFrom: remove one of them",
            ".value",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)] | None = None
    """Its value. Put tokens into a Secret and use valueFrom."""
    value_from: EnvironmentSource | None = None
    """Where its value comes from."""


class EnvironmentFromObject(ApiType):
    """A Secret or ConfigMap whose name is known."""

    name: Name
    """Name of the object."""
    optional: bool | None = None
    """Whether the Pod may start without it."""


class EnvironmentFrom(ApiType):
    """All keys of a Secret or ConfigMap as environment variables."""

    prefix: Annotated[str, Field(max_length=253)] | None = None
    """Put before each key."""
    secret_ref: EnvironmentFromObject | None = None
    """The Secret."""
    config_map_ref: EnvironmentFromObject | None = None
    """The ConfigMap."""


class Serving(ApiType):
    """How the server serves. The portable knobs are translated into the backend's own flags."""

    context_length: Annotated[int, Field(ge=1)] | None = None
    """Longest context of one request, in tokens; the model's own when omitted."""
    max_concurrency: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Requests that are worked on at the same time."""
    quantization: Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    """Quantization method in the backend's own words, for example `awq` or `fp8`."""
    dtype: Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    """Data type of the weights in memory, for example `bfloat16`."""
    served_names: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(min_length=1, max_length=16)] | None = None
    """Names that requests use for the model; the Model's name when omitted."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image of the server; the backend's pinned one when omitted."""
    args: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=128)] | None = None
    """Further arguments, put after those that Berth sets (servers take the last of a repeated flag)."""
    env: Annotated[
        list[EnvironmentVariable],
        Field(max_length=128, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] | None = None
    """Further environment variables; they win over those that Berth sets."""
    env_from: Annotated[list[EnvironmentFrom], Field(max_length=32)] | None = None
    """Secrets and ConfigMaps whose keys become environment variables."""


class CustomMetrics(ApiType):
    """How to see whether a custom server is busy: names of gauges in Prometheus format."""

    path: Annotated[str, Field(max_length=256, pattern=r"^/")] = "/metrics"
    """Path of the metrics."""
    running: Annotated[str, Field(max_length=256)]
    """Metric with the number of requests that are worked on."""
    waiting: Annotated[str, Field(max_length=256)] | None = None
    """Metric with the number of requests that wait."""


class Custom(ApiType):
    """Any GPU container, such as ComfyUI or a speech server."""

    command: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=128)] | None = None
    """Command instead of the image's entrypoint."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Port that the server listens on."""
    protocol_path: Annotated[str, Field(max_length=256, pattern=r"^/")] | None = None
    """Path of the API, appended to status.url."""
    metrics: CustomMetrics | None = None
    """How to see whether the server is busy; without it the load is unknown and a stop waits the whole drain time."""


class Idle(ApiType):
    """When a Model that nobody uses is unloaded."""

    after: Duration
    """Unload after this long without requests."""


class Rollout(ApiType):
    """How changes are rolled out."""

    strategy: RolloutStrategy = RolloutStrategy.AUTO
    """`Auto`: surge when a free GPU fits one more replica, otherwise in place."""
    on_upgrade: UpgradePolicy = UpgradePolicy.MANUAL
    """Whether a new version of Berth may restart Pods; status.upgradeAvailable tells when it would."""


class Health(ApiType):
    """When a server counts as started, ready and alive."""

    path: Annotated[str, Field(max_length=256, pattern=r"^/")] | None = None
    """Path that answers 200 when the server is ready; the backend's own when omitted."""
    warm_time: Duration = "0s"
    """How long a replica has to stay ready before it counts as available."""
    startup_timeout: Duration = "30m"
    """Longest time from the start of the server to its first healthy answer, loading included."""
    period: Duration = "10s"
    """Time between checks."""
    timeout: Duration = "5s"
    """Longest time for an answer."""
    failure_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """Failed checks in a row until the server is restarted."""


class HttpMethod(StrEnum):
    """Methods of the request that makes a server free its memory."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    DELETE = "DELETE"


class Unload(ApiType):
    """A request that makes a custom server free its GPU memory."""

    method: HttpMethod = HttpMethod.POST
    """HTTP method."""
    path: Annotated[str, Field(max_length=256, pattern=r"^/")]
    """Path of the request."""
    body: Annotated[str, Field(max_length=4096)] | None = None
    """Body, sent as application/json."""


class Shutdown(ApiType):
    """How a server ends: no new requests, then the running ones finish, then it stops."""

    drain_timeout: Duration = "60s"
    """Longest time for running requests to finish."""
    grace_period: Duration = "30s"
    """Longest time for the server to end after that."""
    unload: Unload | None = None
    """Request to a custom server before it ends."""


class LabelSelectorRequirement(ApiType):
    """One requirement on labels."""

    key: Annotated[str, Field(max_length=317)]
    """Label key."""
    operator: Annotated[str, Field(max_length=16, pattern=r"^(In|NotIn|Exists|DoesNotExist)$")]
    """In, NotIn, Exists or DoesNotExist."""
    values: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=64)] | None = None
    """Values for In and NotIn."""


class LabelSelector(ApiType):
    """Objects whose labels match."""

    match_labels: dict[str, Annotated[str, Field(max_length=63)]] | None = None
    """Labels that an object must have."""
    match_expressions: Annotated[list[LabelSelectorRequirement], Field(max_length=16)] | None = None
    """Requirements on labels."""


class IpBlock(ApiType):
    """A range of addresses."""

    cidr: Annotated[str, Field(max_length=64)]
    """The range, for example `192.0.2.0/24`."""
    except_: Annotated[list[Annotated[str, Field(max_length=64)]] | None, Field(alias="except", max_length=64)] = None
    """Ranges within it that are left out."""


class NetworkPeer(ApiType):
    """Who may reach the server: Pods, namespaces or addresses, as in a NetworkPolicy."""

    rules: ClassVar = (
        Rule(
            "has(self.podSelector) || has(self.namespaceSelector) || has(self.ipBlock)",
            "an entry of network.allowFrom needs podSelector, namespaceSelector or ipBlock",
        ),
        Rule(
            "!has(self.ipBlock) || !(has(self.podSelector) || has(self.namespaceSelector))",
            "ipBlock stands alone: put the selectors into an entry of their own",
            ".ipBlock",
        ),
    )

    pod_selector: LabelSelector | None = None
    """Pods, in this namespace or in those of namespaceSelector."""
    namespace_selector: LabelSelector | None = None
    """Namespaces."""
    ip_block: IpBlock | None = None
    """Addresses."""


class Network(ApiType):
    """Who may reach the server."""

    allow_from: Annotated[list[NetworkPeer], Field(max_length=32)] | None = None
    """Peers that may connect; the Model's own namespace when omitted. Berth and the metrics scraper always may."""


_SCHEMES = {
    BackendName.VLLM: ("hf", "s3", "pvc", "oci"),
    BackendName.SGLANG: ("hf", "s3", "pvc", "oci"),
    BackendName.TGI: ("hf", "s3", "pvc", "oci"),
    BackendName.LLAMACPP: ("hf", "https", "s3", "pvc", "oci"),
    BackendName.OLLAMA: ("ollama", "pvc"),
}


def _scheme_rule(backend: BackendName, schemes: tuple[str, ...]) -> Rule:
    fits = " || ".join(f"self.source.uri.startsWith('{scheme}://')" for scheme in schemes)
    wanted = ", ".join(f"{scheme}://" for scheme in schemes)
    return Rule(
        f"self.backend != '{backend}' || !has(self.source) || {fits}",
        f"backend {backend} loads from {wanted}: change source.uri or choose another backend",
        ".source.uri",
    )


class ModelSpec(ApiType):
    """What a person declares of a model: backend, source, GPUs and limits."""

    rules: ClassVar = (
        Rule(
            "(self.backend == 'custom') == has(self.custom)",
            "spec.custom belongs to backend custom, which needs it: set custom.port, or remove spec.custom",
            ".custom",
        ),
        Rule(
            "self.backend != 'custom' || (has(self.serving) && has(self.serving.image))",
            "backend custom needs serving.image: name the container image of the server",
            ".serving",
        ),
        Rule(
            "self.backend == 'custom' || has(self.source)",
            "spec.source is missing: name the weights, for example source: {uri: hf://org/repo}",
            ".source",
        ),
        *(_scheme_rule(backend, schemes) for backend, schemes in _SCHEMES.items()),
        Rule(
            "!has(self.idle) || self.state == 'OnDemand'",
            "idle.after needs state OnDemand: set state: OnDemand or remove idle",
            ".idle",
        ),
        Rule(
            "!has(self.serving) || !has(self.serving.quantization) || self.backend in ['vllm', 'sglang', 'tgi']",
            "serving.quantization is a choice of vllm, sglang and tgi: other backends take it from the file or tag, choose it in source",
            ".serving.quantization",
        ),
        Rule(
            "!has(self.serving) || !has(self.serving.dtype) || self.backend in ['vllm', 'sglang', 'tgi']",
            "serving.dtype is a choice of vllm, sglang and tgi: remove it",
            ".serving.dtype",
        ),
        Rule(
            "self.backend != 'custom' || !has(self.serving) || !(has(self.serving.contextLength) || has(self.serving.maxConcurrency))",
            "backend custom has no flags that Berth knows: put contextLength and maxConcurrency into serving.args",
            ".serving",
        ),
        Rule(
            "!has(self.shutdown.unload) || self.backend == 'custom'",
            "shutdown.unload is for backend custom: Berth knows how the others free their memory, remove it",
            ".shutdown.unload",
        ),
        Rule(
            "self.gpus.count > 0 || !(self.backend in ['sglang', 'tgi'])",
            "this backend needs a GPU: set gpus.count to at least 1 or choose llamacpp or ollama",
            ".gpus.count",
        ),
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
    """`Running`, `Stopped`, or `OnDemand` (runs while a ModelRoute points at it or someone wakes it)."""
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
    pod_template: Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None = None
    """A partial PodTemplateSpec that is merged last: tolerations, affinity, sidecars, labels."""


NAME_RULE = Rule(
    "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 52",
    "metadata.name names a Service: start with a letter, use lower-case letters, digits and -, at most 52 characters",
)


class Model(ApiType):
    """Run this model, on this backend, with these GPUs and limits."""

    rules: ClassVar = (NAME_RULE,)

    spec: ModelSpec
    """What is wanted."""
    status: ModelStatus = ModelStatus()
    """What is."""
