"""From an entry of the catalogue to the figures that Berth reads from a model's files, and to Berth's own estimate."""

from dataclasses import dataclass, replace
from typing import Any

from berth.api.model import BackendName
from berth.planning.memory_estimate import Estimate, PartName, estimate
from berth.planning.model_figures import ModelFigures, WeightsFormat
from berth.planning.safetensors_figures import figures_from_safetensors
from berth.planning.safetensors_metadata import SafetensorsHeader
from catalogue.entries import Architecture, Catalogue, Entry, Weights
from catalogue.storage import Stored, stored
from catalogue.tensors import tensors

_GGUF_BACKENDS = frozenset({BackendName.LLAMACPP, BackendName.OLLAMA})
_METHODS = {
    Weights.FP8_BLOCK: "fp8",
    Weights.FP8_CHANNEL: "compressed-tensors",
    Weights.AWQ: "awq",
    Weights.MXFP4: "mxfp4",
}


@dataclass(frozen=True, slots=True)
class Need:
    """What one entry needs."""

    figures: ModelFigures
    estimate: Estimate

    def mib(self, name: PartName) -> int:
        """One part, on each GPU."""
        return next(part.mib or 0 for part in self.estimate.parts if part.name is name)


def further_parameters(architecture: Architecture) -> int:
    """Parameters beside those that handle text: a vision tower."""
    return architecture.parameters - sum(one.elements for one in tensors(architecture.config))


def need(catalogue: Catalogue, key: str) -> Need:
    """The figures and the estimate of one entry, for what its own spec says. Raises ValueError when it has none."""
    entry = catalogue.models[key]
    figures = _figures(entry, catalogue.architectures[entry.architecture])
    serving = entry.spec.serving
    found = estimate(
        figures,
        backend=entry.spec.backend,
        context_length=serving.context_length if serving else None,
        concurrency=serving.max_concurrency if serving else None,
        tensor_parallel=max(1, entry.spec.gpus.count),
        quantization=serving.quantization if serving else None,
    )
    if found.required_mib is None:
        raise ValueError(f"models.{key} has no estimate: {'; '.join(found.unknown)}")
    return Need(figures, found)


def _figures(entry: Entry, architecture: Architecture) -> ModelFigures:
    gguf = entry.spec.backend in _GGUF_BACKENDS
    sums = stored(
        tensors(architecture.config),
        entry.weights,
        gguf=gguf and entry.weights is not Weights.MXFP4,  # Ollama's own gpt-oss keeps 16 bits beside the experts
        further=further_parameters(architecture),
    )
    figures = figures_from_safetensors([_header(sums)], _config(entry, architecture))
    if not gguf:
        return figures
    return replace(figures, format=WeightsFormat.GGUF, quantization=str(entry.weights))


def _header(sums: Stored) -> SafetensorsHeader:
    return SafetensorsHeader(
        tensors=len(sums.weights),
        weights=sums.weights,
        unknown_types=(),
        input_bytes=sums.input_bytes,
        output_bytes=sums.output_bytes,
        size=0,
        data_bytes=sums.size,
    )


def _config(entry: Entry, architecture: Architecture) -> dict[str, Any]:
    method = _METHODS.get(entry.weights)
    quantization = {"quantization_config": {"quant_method": method}} if method else {}
    return {**architecture.config, **quantization}
