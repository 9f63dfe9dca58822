"""`hf://org/repo[@revision]`: a repository of the Hugging Face hub or of a mirror (`HF_ENDPOINT`).

huggingface_hub asks for the listing; its requests are made by our own client, so that proxies, private certificate
authorities, timeouts, bounds and the meaning of refusals are the same everywhere. Its downloads are not used: it begins
a file anew after its process was killed.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx2

from berth import __version__
from berth.provision.answers import Origin
from berth.provision.client import read_listing
from berth.provision.errors import ProvisionError, Reason
from berth.provision.listing import Listing, RemoteFile, select
from berth.provision.manifest import Request
from berth.provision.sources import SourceSettings
from berth.provision.sources.probing import probed

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

PUBLIC = "https://huggingface.co"
_REPOSITORY = re.compile(r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
_COMMIT = re.compile(r"^[a-f0-9]{40}([a-f0-9]{24})?$")
_DIGEST = re.compile(r"^[a-f0-9]{64}$")
_NO_REPOSITORY = "the uri names no repository: write hf://org/repo[@revision]"


class HuggingFaceSource:
    """The files of one commit. A branch or tag becomes a commit on the first answer and stays that one."""

    def __init__(self, request: Request, settings: SourceSettings) -> None:
        repository, _, revision = request.uri.removeprefix("hf://").partition("@")
        if not _REPOSITORY.match(repository) or ".." in repository:
            raise ProvisionError(Reason.INVALID_SOURCE, _NO_REPOSITORY)
        self._repository, self._revision, self._include = repository, revision or "main", request.include
        self._endpoint = (settings.endpoint or PUBLIC).rstrip("/")
        self._token = settings.token
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
        try:
            model = self._ask(client, revision)
            commit = str(model.sha)
            if not _COMMIT.match(commit) or model.siblings is None:
                raise ValueError("no files of a commit")
            files = {sibling.rfilename: self._file(commit, sibling) for sibling in model.siblings}
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

    def _ask(self, client: httpx2.Client, revision: str) -> "ModelInfo":
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError

        api = HfApi(
            endpoint=self._endpoint,
            token=self._token or False,  # False: it looks for none by itself
            library_name="berth",
            library_version=__version__,
        )
        with _speaking_through(client, self.origin):
            try:
                return api.model_info(self._repository, revision=revision, files_metadata=True)
            except HFValidationError as error:
                raise ProvisionError(Reason.INVALID_SOURCE, _NO_REPOSITORY) from error

    def _file(self, commit: str, sibling: "RepoSibling") -> RemoteFile:
        size = sibling.lfs.size if sibling.lfs else sibling.size
        sha256 = str(sibling.lfs.sha256) if sibling.lfs else ""
        oid = str(sibling.blob_id or "")
        return RemoteFile(
            path=str(sibling.rfilename),
            url=f"{self._endpoint}/{self._repository}/resolve/{commit}/{quote(sibling.rfilename)}",
            size=int(size) if size is not None else None,
            sha256=sha256 if _DIGEST.match(sha256) else None,
            git_oid=oid if not sibling.lfs and re.match(r"^[a-f0-9]{40}$", oid) else None,
            headers=self._headers,
        )


def _licence(model: "ModelInfo") -> str | None:
    found = model.card_data.get("license") if model.card_data else None
    if not found:
        tags = [str(tag) for tag in model.tags or []]
        found = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    return ", ".join(map(str, found)) if isinstance(found, list) else (str(found) if found else None)


class _OurClient(httpx2.BaseTransport):
    """Sends a request through our own client. Whatever is not an answer to go on with is raised as our failure."""

    def __init__(self, client: httpx2.Client, origin: Origin) -> None:
        self._client, self._origin = client, origin

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """One answer, read as far as a listing may be long."""
        names = ("Authorization", "User-Agent")
        headers = {name: request.headers[name] for name in names if name in request.headers}
        content, _ = read_listing(self._client, str(request.url), headers, self._origin)
        return httpx2.Response(200, content=content)


@contextmanager
def _speaking_through(client: httpx2.Client, origin: Origin) -> Iterator[None]:
    """Within this, huggingface_hub sends its requests through the client."""
    from huggingface_hub import close_session, set_client_factory

    logger = logging.getLogger("huggingface_hub")
    logger.handlers.clear()  # ours takes secrets out
    logger.propagate = True
    set_client_factory(lambda: httpx2.Client(transport=_OurClient(client, origin)))
    try:
        yield
    finally:
        close_session()
