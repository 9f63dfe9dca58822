"""`hf://org/repo[@revision]`: a repository of the Hugging Face hub or of a mirror (`HF_ENDPOINT`)."""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from berth.provision.answers import Origin
from berth.provision.client import read_listing
from berth.provision.errors import ProvisionError, Reason
from berth.provision.listing import Listing, RemoteFile, select
from berth.provision.manifest import Request
from berth.provision.sources import SourceSettings
from berth.provision.sources.probing import probed

PUBLIC = "https://huggingface.co"
_REPOSITORY = re.compile(r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
_COMMIT = re.compile(r"^[a-f0-9]{40}([a-f0-9]{24})?$")
_DIGEST = re.compile(r"^[a-f0-9]{64}$")


class HuggingFaceSource:
    """The files of one commit. A branch or tag becomes a commit on the first answer and stays that one."""

    def __init__(self, request: Request, settings: SourceSettings) -> None:
        repository, _, revision = request.uri.removeprefix("hf://").partition("@")
        if not _REPOSITORY.match(repository) or ".." in repository:
            raise ProvisionError(Reason.INVALID_SOURCE, "the uri names no repository: write hf://org/repo[@revision]")
        self._repository, self._revision, self._include = repository, revision or "main", request.include
        self._endpoint = (settings.endpoint or PUBLIC).rstrip("/")
        self._headers = settings.headers()
        self.origin = Origin(
            request.uri,
            has_token=bool(settings.token),
            page=f"{self._endpoint}/{repository}",
            needs="a Hugging Face token that may read it",
        )

    def list(self, client: httpx2.Client, revision: str | None) -> Listing:
        """The commit, the licence and every file with its size and digest, in one request."""
        try:
            return self._list(client, revision or self._revision)
        except ProvisionError as error:
            if revision is None or error.reason not in (Reason.REVISION_NOT_FOUND, Reason.NOT_FOUND):
                raise
            return self._list(client, self._revision)  # the commit was rewritten meanwhile

    def _list(self, client: httpx2.Client, revision: str) -> Listing:
        url = f"{self._endpoint}/api/models/{self._repository}/revision/{quote(revision, safe='')}?blobs=true"
        content, _ = read_listing(client, url, self._headers, self.origin)
        try:
            model = json.loads(content)
            commit = str(model["sha"])
            if not _COMMIT.match(commit):
                raise ValueError("not a commit")
            siblings = {str(sibling["rfilename"]): sibling for sibling in model["siblings"]}
            files = {name: self._file(commit, name, sibling) for name, sibling in siblings.items()}
            licence = _licence(model)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProvisionError(
                Reason.UNEXPECTED_CONTENT,
                f"what came about {self.origin.name} is no listing: a proxy wants a login, or the endpoint is wrong",
            ) from error
        chosen = (files[name] for name in select(list(files), self._include))
        # Some mirrors list names only.
        sized = (file if file.size is not None else probed(client, file, self.origin) for file in chosen)
        return Listing(files=tuple(sized), revision=commit, licence=licence)

    def _file(self, commit: str, name: str, sibling: Mapping[str, Any]) -> RemoteFile:
        lfs = sibling.get("lfs") or {}
        size = lfs.get("size", sibling.get("size"))
        sha256 = str(lfs.get("sha256") or lfs.get("oid") or "").removeprefix("sha256:")
        oid = str(sibling.get("blobId") or "")
        return RemoteFile(
            path=name,
            url=f"{self._endpoint}/{self._repository}/resolve/{commit}/{quote(name)}",
            size=int(size) if size is not None else None,
            sha256=sha256 if _DIGEST.match(sha256) else None,
            git_oid=oid if not lfs and re.match(r"^[a-f0-9]{40}$", oid) else None,
            headers=self._headers,
        )


def _licence(model: Mapping[str, Any]) -> str | None:
    card = model.get("cardData")
    found = card.get("license") if isinstance(card, dict) else None
    if not found:
        tags = [str(tag) for tag in model.get("tags") or []]
        found = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    return ", ".join(map(str, found)) if isinstance(found, list) else (str(found) if found else None)
