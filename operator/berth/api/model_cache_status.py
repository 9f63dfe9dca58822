"""The status of a ModelCache: what is on the volume, and what is on its way."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from berth.api.base import ApiType
from berth.api.model_status import Conditions, Timestamp

Bytes = Annotated[int, Field(json_schema_extra={"format": "int64"})]


class CachePhase(StrEnum):
    """Where a ModelCache is; computed from the conditions."""

    PENDING = "Pending"
    PROVISIONING = "Provisioning"
    READY = "Ready"
    FAILED = "Failed"


class StoredState(StrEnum):
    """Where an artifact is in its life."""

    PENDING = "Pending"
    DOWNLOADING = "Downloading"
    PRESENT = "Present"
    FAILED = "Failed"
    REMOVING = "Removing"
    ABSENT = "Absent"


class WeightsOfType(ApiType):
    """The tensors of one type."""

    dtype: str
    """The type, for example BF16 or Q4_K."""
    parameters: Bytes
    """How many parameters have it."""
    bytes: Bytes
    """Bytes that they take."""


class AttentionLayers(ApiType):
    """Layers in a row that keep the same for each token."""

    layers: int
    """How many."""
    kv_heads: int
    """Heads of keys and values."""
    key_size: int
    """Elements of a key."""
    value_size: int
    """Elements of a value."""
    window: int | None = None
    """Tokens that they look back; all when omitted."""
    latent: bool | None = None
    """Whether one compressed vector serves all heads."""


class UnknownFigure(ApiType):
    """Something that a model's files leave open."""

    what: str
    """What is unknown."""
    why: str
    """Why."""


class ArtifactFigures(ApiType):
    """What the model's own files say of it."""

    format: str
    """gguf or safetensors."""
    architecture: str | None = None
    """Name of the architecture."""
    quantization: str | None = None
    """File type of a GGUF file, or quantization method."""
    parameters: Bytes | None = None
    """Parameters in all."""
    weight_bytes: Bytes | None = None
    """Bytes of all weights."""
    dtype: str | None = None
    """Type of most weights."""
    weights: Annotated[list[WeightsOfType], Field(max_length=64)] | None = None
    """Weights by type."""
    layers: int | None = None
    """Layers."""
    heads: int | None = None
    """Attention heads."""
    kv_heads: int | None = None
    """Heads of keys and values in the first layer that keeps them."""
    head_size: int | None = None
    """Elements of a key in that layer."""
    attention: Annotated[list[AttentionLayers], Field(max_length=1024)] | None = None
    """What each layer keeps for each token; empty for encoders."""
    embedding_length: int | None = None
    """Width of the embeddings."""
    feed_forward_length: int | None = None
    """Width of the widest feed-forward step."""
    context_length: int | None = None
    """Tokens that it was made for."""
    sliding_window: int | None = None
    """Tokens that sliding layers look back."""
    input_bytes: Bytes | None = None
    """Bytes of the token embeddings."""
    output_bytes: Bytes | None = None
    """Bytes of the output matrix, where it is one of its own."""
    unknowns: Annotated[list[UnknownFigure], Field(max_length=16)] | None = None
    """What the files leave open."""


class ProposedModel(ApiType):
    """A Model that would serve the artifact."""

    name: str
    """A name for it."""
    backend: str
    """The inference server that loads it."""
    uri: str
    """Its source.uri."""
    files: Annotated[list[str], Field(max_length=32)] | None = None
    """Its source.files; all when omitted."""


class StoredArtifact(ApiType):
    """One artifact of the cache."""

    name: Annotated[str, Field(max_length=253)]
    """Identifies it: the folder that a download is in, or a name made for what was found."""
    uri: str | None = None
    """Where it comes from; missing for files that were found and name no origin."""
    files: Annotated[list[str], Field(max_length=32)] | None = None
    """Globs of the files that were taken; all when omitted."""
    state: StoredState
    """Where it is in its life."""
    reason: str | None = None
    """Why it is not there, in one word."""
    message: str | None = None
    """The same as a sentence."""
    revision: str | None = None
    """The exact revision, for example a commit."""
    bytes: Bytes | None = None
    """Bytes of all its files."""
    bytes_done: Bytes | None = None
    """Bytes that are on the volume, until it is whole."""
    percent: int | None = None
    """Share that is there, 0 to 100, until it is whole."""
    bytes_per_second: Bytes | None = None
    """Speed of late."""
    eta_seconds: int | None = None
    """Seconds that are left at this speed."""
    files_total: int | None = None
    """Files that belong to it."""
    files_done: int | None = None
    """Files that are there and verified, until it is whole."""
    verified: bool | None = None
    """Whether a published digest was compared for every file."""
    licence: str | None = None
    """Licence that the source names."""
    path: str | None = None
    """Where it is on the volume."""
    file: str | None = None
    """The file, below `path`, that a server of single files loads: a GGUF file, the first of a split one."""
    reference: str | None = None
    """Name of the model in a store of Ollama."""
    adopted: bool | None = None
    """Whether it was found on the volume instead of downloaded."""
    declared: bool | None = None
    """Whether spec.artifacts names it, which keeps it from eviction."""
    models: Annotated[list[str], Field(max_length=1000)] | None = None
    """Models that refer to it."""
    last_used_at: Timestamp | None = None
    """When a Model referred to it last; missing while one does."""
    figures: ArtifactFigures | None = None
    """What the model's own files say of it."""
    proposed_model: ProposedModel | None = None
    """A Model that would serve it, for what was found."""
    attempt: int | None = None
    """Failures in a row."""
    failed_at: Timestamp | None = None
    """When the last attempt failed."""
    retry_at: Timestamp | None = None
    """When it is tried again by itself; a change of the spec does not wait for it."""
    inputs: str | None = None
    """Hash of what the last attempt was made from; a change of it starts a new one."""
    job: str | None = None
    """uid of the Job whose end is recorded here."""


class DiscoveryState(StrEnum):
    """Where the search for models on the volume is."""

    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"


class Discovery(ApiType):
    """The search for models that are on the volume already."""

    state: DiscoveryState
    """Running, Done or Failed."""
    found: int = 0
    """Models found so far."""
    after: str | None = None
    """Where the next page of the search goes on."""
    request: str | None = None
    """Value of the annotation berth.dev/discover that this search answers."""
    reason: str | None = None
    """Why it failed, in one word."""
    message: str | None = None
    """The same as a sentence."""
    attempt: int | None = None
    """Failures in a row."""
    retry_at: Timestamp | None = None
    """When it is tried again."""
    job: str | None = None
    """uid of the Job whose end is recorded here."""


class ModelCacheStatus(ApiType):
    """What is: computed by Berth, never by hand."""

    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] = -1
    """Generation of the spec that this status is about; -1 until Berth has seen the ModelCache."""
    phase: CachePhase = CachePhase.PENDING
    """Where the cache is."""
    conditions: Conditions | None = None
    """Ready, Reconciling, Stalled, Accepted."""
    claim: str | None = None
    """The PersistentVolumeClaim."""
    access_mode: str | None = None
    """How the volume is shared: ReadWriteOnce keeps all Pods that use it on one node."""
    nodes: Annotated[list[str], Field(max_length=1000)] | None = None
    """Nodes whose Pods use the volume now."""
    capacity: str | None = None
    """Size of the volume."""
    used_bytes: Bytes | None = None
    """Bytes of all artifacts, unfinished ones included."""
    used: str | None = None
    """The same for the table of kubectl get, with the limit or the capacity."""
    present: str | None = None
    """Artifacts that are there of those wanted, for example `2/3`; for the table of kubectl get."""
    artifacts: (
        Annotated[
            list[StoredArtifact],
            Field(
                max_length=1000,
                json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            ),
        ]
        | None
    ) = None
    """Everything on the volume, and everything on its way."""
    discovery: Discovery | None = None
    """The search for models that are on the volume already."""
