"""`https://`: a single file, by itself."""

from urllib.parse import unquote, urlsplit

import httpx2

from berth.provision.answers import Origin, shown_url
from berth.provision.errors import ProvisionError, Reason
from berth.provision.listing import Listing, RemoteFile
from berth.provision.manifest import Request
from berth.provision.sources import SourceSettings
from berth.provision.sources.probing import probed


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

    def list(self, client: httpx2.Client, revision: str | None) -> Listing:
        """The file, with the size that the server tells."""
        file = RemoteFile(self._name, self._url, sha256=self._sha256, headers=self._headers)
        return Listing((probed(client, file, self.origin),))
