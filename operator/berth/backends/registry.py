"""The backends by name: the only place that knows them all."""

from berth.api.model import BackendName
from berth.backends.base import Backend
from berth.backends.custom import CustomServer
from berth.backends.llamacpp import LlamaCpp
from berth.backends.ollama import Ollama
from berth.backends.sglang import Sglang
from berth.backends.tgi import Tgi
from berth.backends.vllm import Vllm

_BACKENDS: dict[BackendName, Backend] = {
    backend.name: backend for backend in (Vllm(), Sglang(), LlamaCpp(), Ollama(), Tgi(), CustomServer())
}


def backend_for(name: BackendName) -> Backend:
    """The backend of that name."""
    return _BACKENDS[name]


def all_backends() -> tuple[Backend, ...]:
    """Every backend."""
    return tuple(_BACKENDS.values())
