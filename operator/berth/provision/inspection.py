"""Reads what a model says of itself before any of its weights are fetched: the first bytes of its files, no more.

What cannot be understood is unknown and fails nothing; what cannot be reached fails like the download itself would.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx2

from berth.planning import gguf_metadata, safetensors_metadata
from berth.planning.figures_document import from_document, to_document
from berth.planning.gguf_figures import figures_from_gguf
from berth.planning.gguf_metadata import read_gguf
from berth.planning.model_figures import ModelFigures, NeedMore, UnreadableModelError, WeightsFormat
from berth.planning.safetensors_figures import MAX_CONFIG, figures_from_safetensors, read_config
from berth.planning.safetensors_metadata import MAX_INDEX, read_index, read_safetensors
from berth.provision import answers, choosing
from berth.provision.answers import Origin
from berth.provision.client import ask
from berth.provision.listing import Listing, RemoteFile

_FIRST_GGUF = 1024 * 1024
_FIRST_SAFETENSORS = 64 * 1024
_GROWTH = 4
"""A header that turns out longer is asked for in steps of this factor: it is read anew each time."""
_MOST_FILES = 512
_MOST_BYTES = 128 * 1024 * 1024
"""Of all headers together. The largest models have some dozen MiB."""
_AT_ONCE = 3

log = logging.getLogger("berth.provision")

Header = TypeVar("Header")
Persist = Callable[[Callable[[], None]], None]
"""Does something again until it succeeds or its failure is final."""


class Inspector:
    """The figures of the models in a listing, each format read once."""

    def __init__(self, listing: Listing, http: httpx2.Client, origin: Origin, persist: Persist) -> None:
        self._files: Mapping[str, RemoteFile] = {file.path: file for file in listing.files}
        self._known_gguf = listing.known_gguf
        self._http, self._origin, self._persist = http, origin, persist
        self._found: dict[WeightsFormat, ModelFigures | None] = {}
        self._reading = threading.Lock()
        self._spent = 0

    def figures(self, weights: WeightsFormat) -> ModelFigures | None:
        """What the files of one format say; None when there are none, several models, or nothing that is clear."""
        if weights not in self._found:
            read = self._gguf if weights is WeightsFormat.GGUF else self._safetensors
            try:
                figures = read()
                # What a stranger claims has to be something that a status can hold.
                self._found[weights] = from_document(to_document(figures)) if figures else None
            except UnreadableModelError as error:
                log.warning("the figures of the model stay unknown: %s", error)
                self._found[weights] = None
        return self._found[weights]

    def _gguf(self) -> ModelFigures | None:
        models = choosing.gguf_models(self._files)
        if len(models) > 1 or len(self._known_gguf) > 1:
            return None
        entry = choosing.entry_file(tuple(self._files), self._known_gguf)
        names = models[0].parts if models else ((entry,) if entry else ())
        if not names or len(names) > _MOST_FILES:
            return None
        return figures_from_gguf(
            [self._header(name, _FIRST_GGUF, gguf_metadata.MAX_HEADER, read_gguf) for name in names]
        )

    def _safetensors(self) -> ModelFigures | None:
        index = None
        if choosing.SAFETENSORS_INDEX in self._files:
            index = read_index(self._whole(choosing.SAFETENSORS_INDEX, MAX_INDEX))
        names = choosing.safetensors_of_model(tuple(self._files), index.files if index else None)
        if not names or len(names) > _MOST_FILES:
            return None
        config: dict[str, Any] = {}
        if choosing.CONFIG in self._files:
            config = read_config(self._whole(choosing.CONFIG, MAX_CONFIG))
        with ThreadPoolExecutor(_AT_ONCE, "header") as pool:
            headers = list(pool.map(self._safetensors_header, names))
        return figures_from_safetensors(headers, config, files=len(index.files) if index else None)

    def _safetensors_header(self, name: str) -> safetensors_metadata.SafetensorsHeader:
        def read(prefix: bytearray) -> safetensors_metadata.SafetensorsHeader | NeedMore:
            with self._reading:  # needs a copy: one at a time is enough, and so is the memory
                return read_safetensors(bytes(prefix))

        return self._header(name, _FIRST_SAFETENSORS, safetensors_metadata.MAX_HEADER + 8, read)

    def _header(self, name: str, first: int, longest: int, read: Callable[[bytearray], Header | NeedMore]) -> Header:
        """A header, of which no more is fetched than it turns out to need, and some."""
        prefix, size = bytearray(), first
        while True:
            wanted = min(size, longest)
            self._grow(name, prefix, wanted)
            found = read(prefix)
            if not isinstance(found, NeedMore):
                return found
            if len(prefix) < wanted or wanted == longest:
                raise UnreadableModelError(f"{name} ends within its header")
            size = max(found.size, _GROWTH * size)

    def _whole(self, name: str, longest: int) -> bytes:
        """A small file, or so much of it that its reader sees that it is too long."""
        content = bytearray()
        self._grow(name, content, longest + 1)
        return bytes(content)

    def _grow(self, name: str, prefix: bytearray, size: int) -> None:
        """Fetches what is missing of the first bytes of a file; fewer are there when it ends before."""
        file = self._files[name]
        wanted = size if file.size is None else min(size, file.size)
        before = -1
        while before < len(prefix) < wanted:  # a server may give less than is asked for, but not nothing
            before = len(prefix)
            if self._spent + wanted - before > _MOST_BYTES:
                raise UnreadableModelError(f"all headers together have more than {_MOST_BYTES >> 20} MiB")
            self._persist(lambda: _fetch(self._http, file, self._origin, prefix, wanted))
            self._spent += max(0, len(prefix) - before)


def _fetch(http: httpx2.Client, file: RemoteFile, origin: Origin, prefix: bytearray, size: int) -> None:
    """One request; what arrives before it breaks off is kept."""
    asked = (len(prefix), size - 1)
    headers = {**file.headers, "Range": f"bytes={asked[0]}-{asked[1]}"}
    with ask(http, file.url, headers, origin) as response:
        came = answers.body(response.status_code, response.headers, file.path, asked, file.size)
        del prefix[came.start :]  # a server without ranges begins at the start again
        for chunk in response.iter_raw():
            prefix += chunk[: size - len(prefix)]
            if len(prefix) >= size:
                break
