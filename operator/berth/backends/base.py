"""What Berth has to know of an inference server: how it is started, probed, measured, drained and emptied."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from berth.api.base import duration_seconds
from berth.api.model import BackendName, ModelSpec, Serving

HOME = "/home/server"
"""Home of every server: an emptyDir, because the root file system is read-only."""
NVIDIA = "nvidia.com"
AMD = "amd.com"
CPU = "cpu"

_NO_WISHES = Serving()


class UnsupportedSpecError(ValueError):
    """A wish that a backend cannot carry out: the path of the field, and one sentence with the way out."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the server finds its weights. Provisioning decides it, the backend only uses it.

    All of it is empty when there is no source (backend custom).
    """

    path: str = ""
    """File or folder inside the container."""
    reference: str = ""
    """Name of the model inside a store that holds several (Ollama); empty when the source does not say."""
    volume: Mapping[str, Any] | None = None
    """Volume source to mount read-only, without its name; None when there is nothing to mount."""


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """What a backend is asked to start."""

    model: str
    """Name of the Model."""
    spec: ModelSpec
    weights: Weights
    memory_share: float | None = None
    """The part of each GPU's memory that the server may use; None: all that it likes."""

    @property
    def serving(self) -> Serving:
        """The portable knobs; all unset when the person says nothing."""
        return self.spec.serving or _NO_WISHES

    @property
    def served_names(self) -> tuple[str, ...]:
        """Names that requests use."""
        return tuple(self.serving.served_names or (self.model,))

    @property
    def environment_names(self) -> frozenset[str]:
        """Names of the variables that the person sets one by one."""
        return frozenset(variable.name for variable in self.serving.env or ())


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET on the server's port that answers 200."""

    path: str


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """A connection to the server's port."""


@dataclass(frozen=True, slots=True)
class CommandCheck:
    """A command in the server's container that ends with 0, and that may take the whole start-up time.

    It is tried once: when it fails or takes too long, the container starts anew.
    """

    command: tuple[str, ...]


Check = HttpCheck | TcpCheck | CommandCheck


@dataclass(frozen=True, slots=True)
class Server:
    """How to start one inference server: everything that its Pod template depends on."""

    port: int
    args: tuple[str, ...]
    started: Check
    """Holds once the weights are loaded."""
    ready: Check
    """Holds while requests are welcome."""
    alive: Check
    """Fails when only a restart helps."""
    command: tuple[str, ...] = ()
    """Instead of the image's entrypoint; empty keeps it."""
    env: Mapping[str, str] = field(default_factory=dict)
    home: str = HOME
    """Where the writable home is mounted."""
    working_dir: str = ""
    """Instead of the image's; empty keeps it."""
    shared_memory: bool = False
    """Whether /dev/shm must be larger than the 64 MiB of the container runtime, even with one GPU."""


class WeightsKind(StrEnum):
    """What a server loads its weights from."""

    FOLDER = "Folder"
    """A folder with everything that belongs to the model."""
    FILE = "File"
    """One file."""
    STORE = "Store"
    """A store that may hold several models, which are told apart by name."""


class DrainMethod(StrEnum):
    """Who finishes the running requests when a server is told to stop."""

    SERVER = "Server"
    """The server itself, after SIGTERM."""
    SIDECAR = "Sidecar"
    """The server drops them on SIGTERM, so something has to hold SIGTERM back until its load is zero.

    Where the load cannot be known, that is the whole drain time.
    """


@dataclass(frozen=True, slots=True)
class LoadMetrics:
    """Where a server tells how many requests it has: gauges in Prometheus format."""

    path: str
    running: str
    waiting: str = ""
    """Empty when the server does not queue, or does not tell."""
    needs_key: bool = False
    """Whether the API key guards the metrics too."""
    worked: str = ""
    """A counter that grows with every request: it shows those that come and go between two looks."""
    loading_status: int | None = None
    """The status of the answer while weights are loaded, when no request can be running; None when not known."""


@dataclass(frozen=True, slots=True)
class UnloadRequest:
    """A request that makes a running server free its GPU memory."""

    method: str
    path: str
    body: str = ""


@dataclass(frozen=True, slots=True)
class SecurityProfile:
    """The user that a server runs as, and what its image can bear."""

    uid: int = 65532
    gid: int = 65532
    restricted: bool = True
    """Whether it runs under the Pod Security standard `restricted`."""
    read_only_root: bool = True


class Backend(ABC):
    """One inference server."""

    name: ClassVar[BackendName]
    images: ClassVar[Mapping[str, str]] = {}
    """Pinned images by GPU vendor (the domain of the resource) and `cpu`."""
    loads: ClassVar[WeightsKind] = WeightsKind.FOLDER
    """What its weights are."""
    security: ClassVar[SecurityProfile] = SecurityProfile()
    drain: ClassVar[DrainMethod] = DrainMethod.SERVER
    api_key_env: ClassVar[str] = ""
    """Variable that carries the API key; empty when the server knows no keys."""
    shown_metrics: ClassVar[tuple[str, ...]] = ()
    """The server's own metrics that dashboards show, beside those of its load: names of series."""
    notes: ClassVar[tuple[str, ...]] = ()
    """What a person who chooses this backend should be told in the status."""

    @abstractmethod
    def server(self, request: ServerRequest) -> Server:
        """How to start it. Raises UnsupportedSpecError."""

    def load(self, spec: ModelSpec) -> LoadMetrics | None:
        """How its load is measured; None when it cannot be known."""
        return None

    def unload(self, model: str, spec: ModelSpec) -> UnloadRequest | None:
        """How a running server frees its GPU memory; None when only its end does."""
        return None

    def image(self, spec: ModelSpec) -> str:
        """The person's image, or the pinned one for the GPUs asked for."""
        if spec.serving and spec.serving.image:
            return spec.serving.image
        vendor = spec.gpus.resource.partition("/")[0] if spec.gpus.count else CPU
        image = self.images.get(vendor)
        if image is None:
            what = f"{vendor} GPUs" if spec.gpus.count else "CPU"
            raise UnsupportedSpecError(
                "serving.image", f"Berth knows no image of {self.name} for {what}: name one that you trust"
            )
        return image


def whole_seconds(field: str, duration: str) -> str:
    """Whole seconds for a command line, rounded up. Raises UnsupportedSpecError with the field."""
    try:
        return str(math.ceil(duration_seconds(duration)))
    except ValueError as error:
        raise UnsupportedSpecError(field, str(error)) from None


def python_caches(user: str) -> dict[str, str]:
    """Variables with which servers built on PyTorch start as any user on a read-only root.

    `getpass.getuser()` needs a name where /etc/passwd has none (kserve #5666). The caches would follow HOME, but
    images set some of them to folders that are read-only here (list: vLLM PR #38552).
    """
    caches = {
        "HF_HOME": "huggingface",
        "XDG_CACHE_HOME": "",
        "TRITON_CACHE_DIR": "triton",
        "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
        "NUMBA_CACHE_DIR": "numba",
        "OUTLINES_CACHE_DIR": "outlines",
    }
    folders = {name: f"{HOME}/.cache/{folder}".rstrip("/") for name, folder in caches.items()}
    return {"USER": user, "LOGNAME": user, **folders}


def flag(name: str, value: object) -> tuple[str, ...]:
    """The flag with its value, or nothing when there is no value."""
    return () if value in (None, "") else (name, str(value))
