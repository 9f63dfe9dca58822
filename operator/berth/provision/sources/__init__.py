"""Sources: each turns a uri into a listing of files. They ask for metadata only; `transfer` fetches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import httpx2

from berth.provision.answers import Origin
from berth.provision.listing import Listing


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What a source may know besides the uri."""

    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    """A mirror to ask instead of the public hub or registry."""
    timeout: float = 60.0
    ca_files: tuple[Path, ...] = ()
    """What a source needs that does not ask through our client."""

    def headers(self) -> Mapping[str, str]:
        """The token as a header."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


class Source(Protocol):
    """Somewhere that files come from."""

    origin: Origin

    def list(self, client: httpx2.Client, revision: str | None) -> Listing:
        """What there is. `revision` is the one that an earlier, unfinished run found."""
        ...
