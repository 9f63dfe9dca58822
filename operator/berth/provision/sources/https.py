"""`https://`: a single file, by itself."""

from urllib.parse import unquote, urlsplit

import httpx

from berth.provision.answers import Origin, body, shown_url, strong_validator
from berth.provision.client import ask
from berth.provision.errors import ProvisionError, Reason
from berth.provision.listing import Listing, RemoteFile
from berth.provision.manifest import Request
from berth.provision.sources import SourceSettings


class HttpsSource:
    """One file. Without `sha256` nobody vouches for its content, so it has to come encrypted."""

    def __init__(self, request: Request, settings: SourceSettings) -> None:
        parts = urlsplit(request.uri)
        if parts.username or parts.password:
            raise ProvisionError(
                Reason.INVALID_SOURCE,
                "the uri holds a password: put it into a Secret and name that in source.secretRef",
            )
        if parts.scheme == "http" and not request.sha256:
            raise ProvisionError(Reason.INVALID_SOURCE, "http:// needs a sha256: set it, or use https://")
        self._url, self._sha256 = request.uri, request.sha256
        self._name = unquote(parts.path.rpartition("/")[2])
        if not self._name:
            raise ProvisionError(Reason.INVALID_SOURCE, "the uri names no file: it ends with a slash")
        self._headers = settings.headers()
        self.origin = Origin(shown_url(request.uri), has_token=bool(settings.token))

    def list(self, client: httpx.Client, revision: str | None) -> Listing:
        """Asks for one byte: HEAD is refused by signed URLs, and an answer to a range tells size and validator."""
        headers = {**self._headers, "Range": "bytes=0-0"}
        try:
            with ask(client, self._url, headers, self.origin) as response:
                found = body(response.status_code, response.headers, self._name, (0, 0), None)
                validator = strong_validator(response.headers)
        except ProvisionError as error:
            if not error.message.endswith(" answered 416"):
                raise
            found, validator = None, None  # an empty file has no first byte
        size = found.total if found else 0
        file = RemoteFile(self._name, self._url, size, sha256=self._sha256, validator=validator, headers=self._headers)
        return Listing((file,))
