"""The verbs of the Kubernetes API, with plain dicts: what Berth says to the API server goes through here.

Answers other than success come as the exceptions of `berth.cluster.errors`. Conflicts are never resolved
here: the caller decided on something outdated and has to decide anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kubernetes.aio.client.api_client import ApiClient

from berth.cluster import resources
from berth.cluster.errors import ExpiredError, NotFoundError
from berth.cluster.resources import ResourceType
from berth.cluster.transport import Limits, OnRequest, Request, Transport

Json = dict[str, Any]
Items = list[Json]

_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_FRESH_STARTS = 3


class Gateway:
    """Reads and writes objects of the Kubernetes API.

    `concurrency` bounds the requests under way; keep it below the pool size of the client. `fence`, when
    set, is asked right before anything is written: when it says no, FencedError is raised and nothing is
    sent.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        field_manager: str = "berth",
        concurrency: int = 32,
        limits: Limits | None = None,
        on_request: OnRequest | None = None,
    ) -> None:
        self.field_manager = field_manager
        self._transport = Transport(client, limits or Limits(), concurrency, on_request)

    @property
    def limits(self) -> Limits:
        """The time limits of its requests."""
        return self._transport.limits

    @property
    def fence(self) -> Callable[[], bool] | None:
        """The question asked before each write, or None."""
        return self._transport.fence

    @fence.setter
    def fence(self, fence: Callable[[], bool] | None) -> None:
        self._transport.fence = fence

    def apart(self, **limits: float) -> Gateway:
        """One over the same connections that waits for no slot and for no fence, with changed limits."""
        other = object.__new__(Gateway)
        other.field_manager = self.field_manager
        other._transport = self._transport.apart(**limits)
        return other

    async def apply(self, manifest: Json, *, force: bool, subresource: str | None = None) -> Json:
        """Server-side apply. The answer is the object as it is now.

        What was decided on an existing object needs both its uid and its resourceVersion in the metadata.
        With the resourceVersion alone an object that is gone meanwhile is created again. With both it is
        refused: raises ResourceVersionConflictError; without `force` also FieldManagerConflictError.
        """
        resource, namespace, name = _locate(manifest)
        query = {"fieldManager": self.field_manager, "force": "true" if force else "false"}
        return await self._transport.send(
            Request(
                verb="apply",
                plural=resource.plural,
                method="PATCH",
                path=resource.path(namespace, name, subresource),
                query=query,
                body=manifest,
                content_type="application/apply-patch+yaml",
            )
        )

    async def create(self, manifest: Json, *, repeatable: bool = False) -> Json:
        """Create an object; with `generateName` the server completes its name. Raises AlreadyExistsError.

        When the answer is lost the object may exist, so it is not sent again unless that is harmless
        (`repeatable`).
        """
        resource = resources.of(manifest)
        return await self._transport.send(
            Request(
                verb="create",
                plural=resource.plural,
                method="POST",
                path=resource.path(manifest["metadata"].get("namespace")),
                query={"fieldManager": self.field_manager, "fieldValidation": "Strict"},
                body=manifest,
                repeatable=repeatable,
            )
        )

    async def merge_patch(
        self,
        resource: ResourceType,
        namespace: str | None,
        name: str,
        body: Mapping[str, Any],
        *,
        subresource: str | None = None,
    ) -> Json:
        """JSON merge patch: null removes a field, lists are replaced whole.

        With `metadata.resourceVersion` in the body an outdated one raises ResourceVersionConflictError.
        Fields that the schema does not have are refused (InvalidObjectError) instead of dropped in silence.
        """
        return await self._transport.send(
            Request(
                verb="patch",
                plural=resource.plural,
                method="PATCH",
                path=resource.path(namespace, name, subresource),
                query={"fieldManager": self.field_manager, "fieldValidation": "Strict"},
                body=body,
                content_type="application/merge-patch+json",
            )
        )

    async def delete(
        self,
        resource: ResourceType,
        namespace: str | None,
        name: str,
        *,
        uid: str,
        resource_version: str | None,
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> bool:
        """Delete exactly this object; False when it is gone already. `grace_seconds` replaces a Pod's own.

        Raises ResourceVersionConflictError when another object has the name by now, or when it changed
        since `resource_version`. That also happens when the answer was lost and the object lives on behind
        a finalizer.
        """
        preconditions = {"uid": uid}
        if resource_version is not None:
            preconditions["resourceVersion"] = resource_version
        try:
            await self._transport.send(
                Request(
                    verb="delete",
                    plural=resource.plural,
                    method="DELETE",
                    path=resource.path(namespace, name),
                    body={
                        "apiVersion": "v1",
                        "kind": "DeleteOptions",
                        "propagationPolicy": propagation,
                        "preconditions": preconditions,
                        **({} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}),
                    },
                )
            )
        except NotFoundError:
            return False
        return True

    async def get(
        self, resource: ResourceType, namespace: str | None, name: str, *, subresource: str | None = None
    ) -> Json:
        """One object as it is stored now. Raises NotFoundError."""
        path = resource.path(namespace, name, subresource)
        return await self._transport.send(Request("get", resource.plural, "GET", path))

    async def list(
        self,
        resource: ResourceType,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        metadata_only: bool = False,
        page_size: int = 500,
        from_cache: bool = False,
    ) -> tuple[Items, str]:
        """All objects and the resourceVersion of the list, read in pages. Without `namespace`: of all of them.

        `metadata_only` brings no more than names, labels, owners and the like. `from_cache` may be a little
        behind and costs etcd nothing. When the pages expire while they are read, it starts over, at last
        with one big page.
        """
        query: dict[str, str] = {"labelSelector": label_selector} if label_selector else {}
        if from_cache:
            query["resourceVersion"] = "0"
        request = Request(
            verb="list",
            plural=resource.plural,
            method="GET",
            path=resource.path(namespace),
            accept=_METADATA_LIST if metadata_only else "application/json",
        )
        for start in range(_FRESH_STARTS):
            paged = query if start == _FRESH_STARTS - 1 else {**query, "limit": str(page_size)}
            try:
                return await self._read_pages(resource, request, paged)
            except ExpiredError:
                if start == _FRESH_STARTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _read_pages(
        self, resource: ResourceType, request: Request, query: Mapping[str, str]
    ) -> tuple[Items, str]:
        items: Items = []
        query = dict(query)
        while True:
            page = await self._transport.send(replace(request, query=query))
            for item in page.get("items") or ():
                item["apiVersion"], item["kind"] = resource.api_version, resource.kind  # lists leave them out
                items.append(item)
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            query["continue"] = metadata["continue"]
            query.pop("resourceVersion", None)


def _locate(manifest: Mapping[str, Any]) -> tuple[ResourceType, str | None, str]:
    metadata = manifest["metadata"]
    return resources.of(manifest), metadata.get("namespace"), metadata["name"]
