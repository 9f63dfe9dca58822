"""What docs/backends/ says of each inference server: facts of its description, and the flags that fields become.

The flags are found by rendering: the Pod of a Model without a field is compared with the Pod of the same Model with it.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cel

from berth.api.model import SCHEMES, BackendName, ModelSpec
from berth.backends.base import (
    Backend,
    Check,
    CommandCheck,
    DrainMethod,
    HttpCheck,
    ServerRequest,
    Weights,
    WeightsKind,
)
from berth.backends.registry import all_backends
from berth.planning.capacity.sharing import can_be_capped
from berth.planning.errors import InvalidSpecError
from berth.planning.pod_template import render_pod_template
from berth.planning.render_settings import RenderSettings
from generation.marked import table

Json = dict[str, Any]
SOURCE = "operator/berth/backends/{name}.py"
NAME = "qwen"

_ON_CLAIM: Json = {"source": {"uri": "pvc://weights/qwen3-8b"}}
_SMALLEST: Mapping[BackendName, Json] = {
    BackendName.VLLM: _ON_CLAIM,
    BackendName.SGLANG: _ON_CLAIM,
    BackendName.TGI: _ON_CLAIM,
    BackendName.LLAMACPP: {"source": {"uri": "pvc://weights/qwen3-8b-q4_k_m.gguf"}},
    BackendName.OLLAMA: {"source": {"uri": "pvc://weights/ollama#qwen3:8b"}},
    BackendName.CUSTOM: {"serving": {"image": "registry.example.com/speech:1.0"}, "custom": {"port": 9000}},
}
"""The least that a Model says for each backend."""


@dataclass(frozen=True)
class _Field:
    """A field with an example, and how a person writes it."""

    shown: str
    value: Json
    share: float | None = None


_METRICS = {"path": "/metrics", "running": "requests_running", "waiting": "requests_waiting"}
_FIELDS = (
    _Field("`gpus.count: 0`", {"gpus": {"count": 0}}),
    _Field("`gpus.count: 2`", {"gpus": {"count": 2}}),
    _Field("`gpus: {sharing: Shared, memory: 24Gi}`, on a GPU of 80 GiB", {}, 0.3),
    _Field("`serving.contextLength: 8192`", {"serving": {"contextLength": 8192}}),
    _Field("`serving.maxConcurrency: 16`", {"serving": {"maxConcurrency": 16}}),
    _Field("both of them", {"serving": {"contextLength": 8192, "maxConcurrency": 16}}),
    _Field("`serving.quantization: fp8`", {"serving": {"quantization": "fp8"}}),
    _Field("`serving.dtype: bfloat16`", {"serving": {"dtype": "bfloat16"}}),
    _Field("`serving.servedNames: [chat]`", {"serving": {"servedNames": ["chat"]}}),
    _Field("`serving.servedNames: [chat, qwen3]`", {"serving": {"servedNames": ["chat", "qwen3"]}}),
    _Field("`serving.args: [--seed, \"1\"]`", {"serving": {"args": ["--seed", "1"]}}),
    _Field("`serving.env`, with `{key}`", {"serving": {"env": [{"name": "{key}", "value": "…"}]}}),
    _Field("`custom.command: [serve]`", {"custom": {"command": ["serve"]}}),
    _Field("`custom.metrics`", {"custom": {"metrics": _METRICS}}),
    _Field("`health.path: /up`", {"health": {"path": "/up"}}),
    _Field("`health.startupTimeout: 1h`", {"health": {"startupTimeout": "1h"}}),
    _Field("`shutdown.drainTimeout: 5m`", {"shutdown": {"drainTimeout": "5m"}}),
    _Field("`shutdown.gracePeriod: 2m`", {"shutdown": {"gracePeriod": "2m"}}),
    _Field("`shutdown.unload: {path: /free}`", {"shutdown": {"unload": {"path": "/free"}}}),
)  # fmt: skip
_VENDORS = {"nvidia.com": "NVIDIA", "amd.com": "AMD", "cpu": "CPU"}
_WEIGHTS = {
    WeightsKind.FOLDER: "a folder with everything that belongs to the model",
    WeightsKind.FILE: "one GGUF file (of a split one, the first)",
    WeightsKind.STORE: "a store of Ollama's own layout",
}
_POSITIONAL = "arguments"
_SIDECAR = "sidecar"
_ALWAYS_OF_SIDECAR = ("--port=", "--server-port=", "--routing-time=")


def backend_parts(backend: Backend) -> dict[str, tuple[str, str]]:
    """The generated parts of a backend's page."""
    source = SOURCE.format(name=backend.name.value)
    return {
        "facts": (source, _facts(backend)),
        "command": (source, _command(backend)),
        "fields": (source, table(("field", "what it becomes"), list(_rows(backend)))),
    }


def backend_pages() -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """Path and generated parts of every page."""
    for backend in all_backends():
        yield f"docs/backends/{backend.name.value}.md", backend_parts(backend)


# ---- facts ------------------------------------------------------------------------------------------------------


def _facts(backend: Backend) -> str:
    spec = ModelSpec.model_validate(_spec(backend))
    weights = Weights(path="/models/x.gguf" if backend.loads is WeightsKind.FILE else "/models/x", reference="x")
    server = backend.server(ServerRequest(NAME, spec, weights))
    metrics, security = backend.load(spec), backend.security
    rows = [("image, unless `serving.image` names one", _images(backend))]
    if backend.name in SCHEMES:
        rows.append(("`source.uri`", ", ".join(f"`{scheme}://`" for scheme in SCHEMES[backend.name])))
        rows.append(("weights", _WEIGHTS[backend.loads]))
    port = "`custom.port`" if backend.name is BackendName.CUSTOM else str(server.port)
    rows.append(("port of the container; the Service has 80", port))
    rows.append(("started", _check(server.started)))
    rows.append(("ready", _check(server.ready)))
    rows.append(("alive", _check(server.alive)))
    drain = "the server, after SIGTERM" if backend.drain is DrainMethod.SERVER else "the sidecar `berth drain`"
    rows.append(("finishes running requests", drain))
    names = [name for name in (metrics.running, metrics.waiting) if name] if metrics else []
    busy = f"`{metrics.path}`: {' + '.join(f'`{name}`' for name in names)}" if metrics else "it does not tell"
    rows.append(("how many requests it has", "what `custom.metrics` names" if spec.custom else busy))
    rows.append(("user and group", f"{security.uid}:{security.gid}"))
    rows.append(("Pod Security `restricted`", _yes(security.restricted)))
    rows.append(("read-only root file system", _yes(security.read_only_root)))
    rows.append(("API key", f"variable `{backend.api_key_env}`" if backend.api_key_env else "none that Berth knows"))
    rows.append(("`gpus.sharing: Shared`", "allowed" if can_be_capped(backend.name) else "refused"))
    return table(("", ""), rows)


def _images(backend: Backend) -> str:
    if not backend.images:
        return "none: `serving.image` is required"
    vendors: dict[str, list[str]] = {}
    for vendor in _VENDORS:
        if vendor in backend.images:
            vendors.setdefault(backend.images[vendor], []).append(_VENDORS[vendor])
    return "<br>".join(f"`{image}` ({', '.join(names)})" for image, names in vendors.items())


def _check(check: Check) -> str:
    if isinstance(check, HttpCheck):
        return f"`GET {check.path}` answers 200".replace(f"/{NAME}", "/<name of the Model>")
    if isinstance(check, CommandCheck):
        return "a command in the container that loads the model, and may take all of `health.startupTimeout`"
    return "the port is open; with `health.path`, `GET` of that path answers 200"


def _yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


# ---- the command ------------------------------------------------------------------------------------------------


def _command(backend: Backend) -> str:
    manifest = ["backend: " + backend.name.value, *_lines(_SMALLEST[backend.name])]
    container = _server(_pod(backend, {}))
    words = [*container.get("command", ()), *container.get("args", ())]
    if backend.name is BackendName.OLLAMA:
        words = ["/bin/sh", "-c", "…", *words[3:]]  # the script is explained by the page
    env = [f"{one['name']}={one.get('value', '…')}" for one in container.get("env", ())]
    text = " \\\n  ".join(" ".join(group) for group in _grouped(words)) or "(what the image starts by itself)"
    blocks = (
        ("yaml", "\n".join(manifest), ""),
        ("text", text, f"becomes, for a Model named `{NAME}`,"),
        ("text", "\n".join(env), "with the variables"),
    )
    return "\n\n".join(f"{words}\n\n```{kind}\n{text}\n```".strip() for kind, text, words in blocks)


def _lines(value: Json) -> list[str]:
    return [
        f"{part}: {{{', '.join(f'{name}: {one}' for name, one in fields.items())}}}" for part, fields in value.items()
    ]


def _grouped(words: Sequence[str]) -> list[list[str]]:
    """A flag with its values on one line."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


# ---- what fields become -----------------------------------------------------------------------------------------


def _rows(backend: Backend) -> Iterator[tuple[str, ...]]:
    base = _flat(_pod(backend, {}))
    single: list[str] = []
    for field in _FIELDS:
        value = copy.deepcopy(field.value)
        shown = field.shown
        if "{key}" in shown:
            if not backend.api_key_env:
                continue
            shown = shown.format(key=backend.api_key_env)
            value["serving"]["env"][0]["name"] = backend.api_key_env
        if backend.name is not BackendName.CUSTOM and ("custom" in value or "unload" in value.get("shutdown", ())):
            continue
        if field.share is not None and not can_be_capped(backend.name):
            yield shown, f"refused: Berth cannot cap the GPU memory of {backend.name.value}"
            continue
        said = _refusal(backend, value) or _difference(backend, value, field.share, base)
        if "both" in shown and (said.startswith("refused") or said == "; ".join(single[-2:])):
            continue
        single.append(said)
        yield shown, said


def _difference(backend: Backend, value: Json, share: float | None, base: Mapping[str, str]) -> str:
    try:
        after = _flat(_pod(backend, value, share))
    except InvalidSpecError as error:
        return f"refused: {error.message}"
    changed = [_shown(name, text, base.get(name, "")) for name, text in after.items() if base.get(name) != text]
    gone = [f"without `{name}`" for name in base if name not in after]
    return "; ".join([*changed, *gone]) or "nothing"


def _shown(name: str, text: str, before: str) -> str:
    if name == _POSITIONAL:
        return "; ".join(f"`{word}`" for word in text.split() if word not in before.split())
    if name == _SIDECAR and before:
        return f"`drain: {' '.join(word for word in text.split() if word not in before.split())}`"
    if name == _SIDECAR:
        return f"the sidecar `berth drain {text}`"
    if name.startswith("--"):
        return f"`{name} {text}`".replace(" `", "`")
    return f"`{name}={text}`" if name.isupper() else f"`{name}: {text}`"


def _refusal(backend: Backend, value: Json) -> str:
    """Why the API server would refuse it; empty when it would not."""
    plain = ModelSpec.model_validate(_spec(backend, value)).model_dump(mode="json", by_alias=True, exclude_none=True)
    for rule in ModelSpec.rules:
        if "quantity(" in rule.expression:
            continue  # a function of Kubernetes' own, of no matter here
        if not cel.evaluate(rule.expression, cel.Context(variables={"self": plain})):
            return f"refused: {rule.message}"
    return ""


def _spec(backend: Backend, value: Json | None = None) -> Json:
    spec = {"backend": backend.name.value, **copy.deepcopy(_SMALLEST[backend.name])}
    for part, fields in (value or {}).items():
        spec[part] = {**spec.get(part, {}), **fields}
    return spec


def _pod(backend: Backend, value: Json, share: float | None = None) -> Json:
    spec = ModelSpec.model_validate(_spec(backend, value))
    pod: Json = render_pod_template(NAME, "team-a", spec, RenderSettings(), None, share)["spec"]
    return pod


def _server(pod: Json) -> Json:
    return next(one for one in pod["containers"] if one["name"] == "server")


def _flat(pod: Json) -> dict[str, str]:
    """A Pod as names with texts: flags and variables of the server first, then what else differs between Models."""
    server = _server(pod)
    flat: dict[str, str] = {"image": server["image"], "command": " ".join(server.get("command", ()))}
    for group in _grouped(server.get("args", ())):
        if group[0].startswith("--"):
            flat[group[0]] = " ".join(group[1:])
        else:
            flat[_POSITIONAL] = " ".join(group)
    flat |= {variable["name"]: variable.get("value", "…") for variable in server.get("env", ())}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = server[kind]
        flat[f"{kind}.httpGet.path"] = probe.get("httpGet", {}).get("path", "")
        flat[f"{kind}.failureThreshold"] = str(probe["failureThreshold"])
        flat[f"{kind}.timeoutSeconds"] = str(probe["timeoutSeconds"])
    for resource, amount in server.get("resources", {}).get("limits", {}).items():
        flat[f"resources.limits[{resource}]"] = amount
    for volume in pod["volumes"]:
        if volume["name"] == "shm":
            flat["/dev/shm"] = volume["emptyDir"]["sizeLimit"]
    for sidecar in pod.get("initContainers", ()):
        flat[_SIDECAR] = " ".join(one for one in sidecar["args"][1:] if not one.startswith(_ALWAYS_OF_SIDECAR))
    hook = server["lifecycle"]["preStop"]
    flat["preStop.sleep.seconds"] = str(hook["sleep"]["seconds"]) if "sleep" in hook else ""
    flat["terminationGracePeriodSeconds"] = str(pod["terminationGracePeriodSeconds"])
    return {name: text for name, text in flat.items() if text or name.startswith("--")}
