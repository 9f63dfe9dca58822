"""The backends by name: the only place that knows them all."""

from berth.api.model import BackendName
from berth.backends.base import Backend
from berth.backends.llamacpp import LlamaCpp

_BACKENDS: dict[BackendName, Backend] = {backend.name: backend for backend in (LlamaCpp(),)}


def backend_for(name: BackendName) -> Backend:
    """The backend of that name."""
    return _BACKENDS[name]


def all_backends() -> tuple[Backend, ...]:
    """Every backend."""
    return tuple(_BACKENDS.values())
