"""`ollama://[host/][namespace/]name[:tag]`: a registry's manifest and blobs, laid out as Ollama's own store."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import httpx2

from berth.provision.answers import Origin
from berth.provision.client import read_listing
from berth.provision.errors import ProvisionError, Reason
from berth.provision.listing import Listing, RemoteFile
from berth.provision.manifest import Request
from berth.provision.sources import SourceSettings

PUBLIC = "registry.ollama.ai"
_PART = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$")
_HOST = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}$")
_DIGEST = re.compile(r"^sha256:([a-f0-9]{64})$")
_MODEL = "application/vnd.ollama.image.model"
"""Media type of a layer that is a GGUF model."""
_ACCEPT = "application/vnd.docker.distribution.manifest.v2+json"


class OllamaSource:
    """One model. The manifest file comes last: a store never names a blob that is not there."""

    def __init__(self, request: Request, settings: SourceSettings) -> None:
        name, _, tag = request.uri.removeprefix("ollama://").rpartition(":")
        if not name or "/" in tag:
            name, tag = request.uri.removeprefix("ollama://"), "latest"
        *before, model = name.split("/")
        host = before[0] if len(before) == 2 else PUBLIC
        namespace = before[-1] if before else "library"
        parts = (namespace, model, tag)
        if len(before) > 2 or not _HOST.match(host) or not all(_PART.match(part) for part in parts):
            raise ProvisionError(
                Reason.INVALID_SOURCE, "the uri names no model: write ollama://[host/][namespace/]name[:tag]"
            )
        endpoint = (settings.endpoint or f"https://{host}").rstrip("/")
        self._base = f"{endpoint}/v2/{namespace}/{model}"
        self._tag = tag
        self._stored_as = f"manifests/{host}/{namespace}/{model}/{tag}"
        self._headers = settings.headers()
        self.origin = Origin(request.uri, has_token=bool(settings.token))

    def list(self, client: httpx2.Client, revision: str | None) -> Listing:
        """The manifest. A tag that moved meanwhile does no harm: blobs are named by their digests."""
        headers = {**self._headers, "Accept": _ACCEPT}
        content, _ = read_listing(client, f"{self._base}/manifests/{self._tag}", headers, self.origin)
        try:
            manifest = json.loads(content)
            layers: list[Mapping[str, Any]] = [manifest["config"], *manifest["layers"]]
            files = {str(layer["digest"]): self._blob(str(layer["digest"]), int(layer["size"])) for layer in layers}
            models = {str(layer["digest"]): None for layer in layers if layer.get("mediaType") == _MODEL}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProvisionError(
                Reason.UNEXPECTED_CONTENT,
                f"what came about {self.origin.name} is no manifest: a proxy wants a login, or the endpoint is wrong",
            ) from error
        return Listing(
            files=tuple(files.values()),
            revision=f"sha256:{hashlib.sha256(content).hexdigest()}",
            licence=None,
            inline={self._stored_as: content},
            known_gguf=tuple(files[digest].path for digest in models),
        )

    def _blob(self, digest: str, size: int) -> RemoteFile:
        found = _DIGEST.match(digest)
        if not found or size < 0:
            raise ValueError("not a digest")
        return RemoteFile(
            path=f"blobs/sha256-{found[1]}",
            url=f"{self._base}/blobs/{digest}",
            size=size,
            sha256=found[1],
            headers=self._headers,
        )
