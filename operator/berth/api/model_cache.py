"""The ModelCache resource: a volume that keeps weights. What Berth reports is in model_cache_status."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from berth.api.base import SET, ApiType, MemoryQuantity, Name, Reason, Rule
from berth.api.model_cache_status import ModelCacheStatus
from berth.api.model_source import ArtifactSource
from berth.api.pod_template import PodTemplate


class AccessMode(StrEnum):
    """From how many nodes a volume is used at once."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_MANY = "ReadWriteMany"


class ReclaimPolicy(StrEnum):
    """What becomes of a claim that Berth made when its ModelCache is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Eviction(StrEnum):
    """What happens when the limit or the volume leaves no room for another artifact."""

    NONE = "None"
    LRU = "LRU"


class ArtifactState(StrEnum):
    """Whether an artifact should be on the volume."""

    PRESENT = "Present"
    ABSENT = "Absent"


class CacheStorage(ApiType):
    """The volume: an existing claim, or what a new one asks for."""

    rules: ClassVar = (
        Rule(
            "has(self.claim) != has(self.size)",
            "name an existing claim in storage.claim, or set storage.size to have one made: exactly one of the two",
            ".claim",
        ),
        Rule(
            "!has(self.claim) || !has(self.storageClassName)",
            "storage.storageClassName is for a claim that Berth makes: remove it beside storage.claim",
            ".storageClassName",
            Reason.FORBIDDEN,
        ),
        Rule(
            "!has(self.claim) || !has(self.accessModes)",
            "storage.accessModes is for a claim that Berth makes: remove it beside storage.claim",
            ".accessModes",
            Reason.FORBIDDEN,
        ),
        Rule(
            "!has(self.claim) || self.reclaim == 'Retain'",
            "storage.reclaim Delete is for a claim that Berth makes: Berth never deletes the one in storage.claim",
            ".reclaim",
            Reason.FORBIDDEN,
        ),
    )

    claim: Name | None = None
    """An existing PersistentVolumeClaim in the same namespace."""
    storage_class_name: Name | None = None
    """StorageClass of a new claim; the cluster's default when omitted."""
    size: MemoryQuantity | None = None
    """Size of a new claim, for example `500Gi`. Raising it enlarges the claim where its StorageClass allows that."""
    access_modes: Annotated[list[AccessMode], Field(min_length=1, max_length=2, json_schema_extra=SET)] | None = None
    """`ReadWriteOnce` (default; all Pods that use it run on one node) or `ReadWriteMany`."""
    reclaim: ReclaimPolicy = ReclaimPolicy.RETAIN
    """Whether a claim that Berth made goes with the ModelCache."""


class CacheArtifact(ArtifactSource):
    """An artifact that is to be on the volume, or not, whether a Model refers to it or not."""

    rules: ClassVar = (
        *ArtifactSource.rules,
        Rule(
            "!self.uri.matches('^(pvc|oci)://')",
            "a ModelCache keeps downloads, and pvc:// and oci:// are no downloads: remove the artifact",
            ".uri",
        ),
    )

    state: ArtifactState = ArtifactState.PRESENT
    """`Present` downloads it and keeps it from eviction; `Absent` removes it once no Model refers to it."""


class ModelCacheSpec(ApiType):
    """What a person declares of a cache."""

    storage: CacheStorage
    """The volume."""
    limit: MemoryQuantity | None = None
    """Most bytes that all artifacts together may take, for example `400Gi`; the volume's size when omitted."""
    artifacts: Annotated[list[CacheArtifact], Field(max_length=256)] | None = None
    """Downloads, pins and removals that need no Model."""
    eviction: Eviction = Eviction.NONE
    """`LRU` removes artifacts that no Model refers to and nobody declared, longest unused first, to make room."""
    max_parallel_downloads: Annotated[int, Field(ge=1, le=32)] = 2
    """Downloads that run at once."""
    pod_template: PodTemplate | None = None
    """Merged into the Pods that download: proxy, certificate authorities, mirror, tolerations, identity."""
    adopt: bool = False
    """Look for models that are on the volume already, and list them as artifacts."""


CACHE_NAME_RULE = Rule(
    "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 52",
    "metadata.name names a volume: start with a letter, use lower-case letters, digits and -, at most 52 characters",
    ".metadata.name",
)


class ModelCache(ApiType):
    """A volume that keeps downloaded weights, with a disk limit, and what should be on it."""

    rules: ClassVar = (CACHE_NAME_RULE,)

    spec: ModelCacheSpec
    """What a person declares."""
    status: ModelCacheStatus = ModelCacheStatus()
    """What Berth reports."""
