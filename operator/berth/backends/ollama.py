"""Ollama: models from its own store of manifests and blobs, on CPU and GPU.

Variables: Ollama 0.33, envconfig/config.go. Endpoints: server/routes.go. Names: types/model/name.go.
"""

import json
import re
from typing import ClassVar

from berth.api.model import BackendName, ModelSpec
from berth.backends.base import (
    AMD,
    CPU,
    HOME,
    NVIDIA,
    Backend,
    CommandCheck,
    DrainMethod,
    HttpCheck,
    Server,
    ServerRequest,
    UnloadRequest,
    UnsupportedSpecError,
    WeightsKind,
    whole_seconds,
)

_PORT = 11434
_PART = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$")
_NAMESPACE = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,79}$")

# The store on the volume is read-only and shared; only the manifests, a few hundred bytes each, are copied into a
# store of the server's own, under every name that requests use. $1: the store, $2: the manifest, $3…: its names.
_START = """set -e
store="$1"
manifest="$2"
shift 2
mkdir -p "$OLLAMA_MODELS/manifests"
ln -sfn "$store/blobs" "$OLLAMA_MODELS/blobs"
for name in "$@"; do
  mkdir -p "$OLLAMA_MODELS/manifests/${name%/*}"
  cp "$store/manifests/$manifest" "$OLLAMA_MODELS/manifests/$name"
done
exec ollama serve
"""

# `ollama run` with nothing on its input loads the model and ends (RunHandler in cmd/cmd.go); models for embeddings
# want a text. It runs to the end however long loading takes: a broken connection would end the loading.
_LOAD = """until ollama list >/dev/null 2>&1; do sleep 1; done
ollama run "$0" </dev/null >/dev/null || exec ollama run "$0" hi >/dev/null
"""


class Ollama(Backend):
    """`ollama serve` with one model that stays loaded."""

    name = BackendName.OLLAMA
    images: ClassVar = {
        CPU: "ollama/ollama:0.33.0",
        NVIDIA: "ollama/ollama:0.33.0",
        AMD: "ollama/ollama:0.33.0-rocm",
    }
    loads = WeightsKind.STORE
    drain = DrainMethod.SIDECAR  # on SIGTERM running requests are cut, and nothing tells how many there are

    def server(self, request: ServerRequest) -> Server:
        """The store, then the server; its settings are variables."""
        weights, serving = request.weights, request.serving
        if serving.args:
            raise UnsupportedSpecError("serving.args", "Ollama has no flags: use its variables in serving.env")
        if weights.path.lower().endswith(".gguf"):
            raise UnsupportedSpecError(
                "source.uri", "backend ollama loads from a store of Ollama: for a GGUF file use backend llamacpp"
            )
        original = weights.reference or request.served_names[0]
        # Readiness asks for one path segment, so the Model's own name, which has no slash, is always among them.
        aliases = dict.fromkeys(
            (*(_manifest_path("serving.servedNames", name) for name in request.served_names),
             _manifest_path("metadata.name", request.model))
        )  # fmt: skip
        return Server(
            port=_PORT,
            command=("/bin/sh", "-c", _START, "start"),
            args=(weights.path, _manifest_path("source.uri", original), *aliases),
            env=_environment(request),
            started=CommandCheck(("/bin/sh", "-c", _LOAD, request.model)),
            ready=HttpCheck(f"/v1/models/{request.model}"),  # 404 while the model is not in the store
            alive=HttpCheck("/"),
        )

    def unload(self, model: str, spec: ModelSpec) -> UnloadRequest:
        """No time to keep the model: it goes when its running requests have ended."""
        return UnloadRequest("POST", "/api/generate", json.dumps({"model": model, "keep_alive": 0}))


def _environment(request: ServerRequest) -> dict[str, str]:
    serving, spec = request.serving, request.spec
    env = {
        "OLLAMA_HOST": f"0.0.0.0:{_PORT}",
        "OLLAMA_MODELS": f"{HOME}/models",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_LOAD_TIMEOUT": f"{whole_seconds('health.startupTimeout', spec.health.startup_timeout)}s",
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_NO_CLOUD": "1",
    }
    if serving.context_length:
        env["OLLAMA_CONTEXT_LENGTH"] = str(serving.context_length)
    if serving.max_concurrency:
        env["OLLAMA_NUM_PARALLEL"] = str(serving.max_concurrency)
    return env


def _manifest_path(field: str, name: str) -> str:
    """Where a store keeps the manifest of a model: `[host/][namespace/]model[:tag]` with its defaults filled in."""
    parts = name.split("/")
    model, _, tag = parts[-1].partition(":")
    namespace = parts[-2] if len(parts) > 1 else "library"
    host, _, port = (parts[-3] if len(parts) > 2 else "registry.ollama.ai").partition(":")
    valid = len(parts) <= 3 and _NAMESPACE.match(namespace) and (not port or port.isdecimal())
    if not valid or not all(_PART.match(part) for part in (host, model, tag or "latest")):
        raise UnsupportedSpecError(
            field, f"{name!r} is no name that Ollama takes: write model, model:tag or namespace/model:tag"
        )
    return f"{host}{':' if port else ''}{port}/{namespace}/{model}/{tag or 'latest'}"
