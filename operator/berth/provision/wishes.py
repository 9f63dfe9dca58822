"""Who wants the artifact, and whether anybody of them could load it. Pure; in doubt a model is allowed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from berth.api.model import BackendName
from berth.planning import compatibility
from berth.planning.model_figures import ModelFigures, WeightsFormat
from berth.provision import choosing
from berth.provision.errors import ProvisionError, Reason

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Wish:
    """One Model that is to be served from the artifact."""

    backend: BackendName
    gpus: int
    model: str = ""
    quantization: str | None = None
    own_image: bool = False
    """Whether its image is the user's own, which may load more than the ones that Berth names."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What is known of an artifact without its weights."""

    names: tuple[str, ...]
    """Its files."""
    known_gguf: tuple[str, ...] = ()
    """Files that the source itself calls GGUF models; their names do not tell."""

    @property
    def untold(self) -> bool:
        """Whether names do not tell what the files are."""
        blobs = any(name.startswith("blobs/") for name in self.names)
        return bool(self.known_gguf) or blobs or (len(self.names) == 1 and choosing.nameless(self.names))

    @property
    def entry(self) -> str | None:
        """The file that a server of single files loads."""
        return choosing.entry_file(self.names, self.known_gguf)


def read_wish(text: str) -> Wish:
    """A Wish from its JSON. Raises ValueError with a sentence."""
    try:
        document: Any = json.loads(text)
        wish = Wish(
            BackendName(document["backend"]),
            document["gpus"],
            document.get("model") or "",
            document.get("quantization"),
            document.get("ownImage") is True,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError("a JSON object with at least backend and gpus") from error
    if type(wish.gpus) is not int or wish.gpus < 0 or not isinstance(wish.model, str):
        raise ValueError("gpus is a whole number, and model a name")
    if wish.quantization is not None and not isinstance(wish.quantization, str):
        raise ValueError("quantization is a name")
    return wish


def formats_of_interest(offer: Offer, wishes: Sequence[Wish]) -> list[WeightsFormat]:
    """The formats whose headers somebody's server would load, the most telling first."""
    there = []
    if choosing.has_safetensors(offer.names):
        there.append(WeightsFormat.SAFETENSORS)
    if offer.known_gguf or choosing.gguf_models(offer.names) or offer.entry:
        there.append(WeightsFormat.GGUF)
    if not wishes:
        return there
    wanted = {_format_for(wish, offer, there) for wish in wishes}
    return [one for one in there if one in wanted]


def judge(offer: Offer, wishes: Sequence[Wish], figures_of: Callable[[WeightsFormat], ModelFigures | None]) -> None:
    """Raises ProvisionError, Incompatible, when there are wishes and none of them can be fulfilled.

    `figures_of` is asked only for what names do not decide.
    """
    refusals: dict[str, str] = {}
    for wish in wishes:
        refusal = _by_names(offer, wish) or _by_figures(offer, wish, figures_of)
        if refusal is None:
            return
        refusals.setdefault(refusal, wish.model)
    if refusals:
        raise ProvisionError(Reason.INCOMPATIBLE, _sentence(refusals))


def link_target(offer: Offer, name: str) -> str:
    """The file that a link of this name leads to. Raises ProvisionError when it cannot be a single one."""
    models = choosing.gguf_models(offer.names)
    if len(models) > 1:
        raise ProvisionError(Reason.INCOMPATIBLE, choosing.ambiguity(models))
    if models and models[0].split:
        raise ProvisionError(
            Reason.INCOMPATIBLE,
            f"{models[0].entry} is the first of {models[0].count} parts, and only a ModelCache keeps split models: "
            "name one in source.cache, or choose a model in one file with source.files",
        )
    entry = offer.entry
    if entry is None:
        raise ProvisionError(
            Reason.INCOMPATIBLE, "there is no GGUF file, and the server loads one: choose another source or backend"
        )
    if name in offer.names and name != entry:
        raise ProvisionError(Reason.INVALID_SOURCE, f"the source has a file {name}, which is the name of the link")
    return entry


def _sentence(refusals: Mapping[str, str]) -> str:
    if len(refusals) == 1:
        return next(iter(refusals))
    shown = [f"{model}: {refusal}" if model else refusal for refusal, model in refusals.items()]
    return "; ".join(shown[:_SHOWN]) + ("; …" if len(shown) > _SHOWN else "")


def _format_for(wish: Wish, offer: Offer, there: Sequence[WeightsFormat]) -> WeightsFormat | None:
    """The format that the server would load of those that are there; None when that has no headers to read."""
    llamacpp = wish.backend in (BackendName.LLAMACPP, BackendName.OLLAMA)
    best = WeightsFormat.GGUF if llamacpp else WeightsFormat.SAFETENSORS
    if best in there:
        return best
    return None if not llamacpp and choosing.has_pickle(offer.names) else next(iter(there), None)


def _by_figures(offer: Offer, wish: Wish, figures_of: Callable[[WeightsFormat], ModelFigures | None]) -> str | None:
    weights = next(iter(formats_of_interest(offer, [wish])), None)
    figures = figures_of(weights) if weights else None
    if figures is None:
        return None
    found = compatibility.check(
        figures, wish.backend, wish.gpus, quantization=wish.quantization, own_image=wish.own_image
    )
    return found.message if found else None


def _by_names(offer: Offer, wish: Wish) -> str | None:
    """Why no file could be loaded, as far as names tell."""
    names, models = offer.names, choosing.gguf_models(offer.names)
    if wish.backend is BackendName.CUSTOM or offer.untold:
        return None
    if wish.backend in (BackendName.LLAMACPP, BackendName.OLLAMA):
        return _for_llamacpp(names, models)
    loads_gguf = wish.backend is BackendName.SGLANG
    if wish.own_image or choosing.has_safetensors(names) or choosing.has_pickle(names) or (models and loads_gguf):
        return None
    if models:
        return (
            f"these files are GGUF, and backend {wish.backend} loads safetensors: use backend llamacpp, "
            "or the safetensors of the model"
        )
    return (
        f"there are no safetensors files, and backend {wish.backend} loads them: "
        "check source.files, or choose another source"
    )


def _for_llamacpp(names: Sequence[str], models: Sequence[choosing.GgufModel]) -> str | None:
    if not models and choosing.has_safetensors(names):
        return "there are only safetensors files: use backend vllm or sglang, or the GGUF files of the model"
    if not models:
        return "there is no GGUF file: check source.files, or choose another source or backend"
    if len(models) > 1:
        return choosing.ambiguity(models)
    return None if models[0].whole else choosing.incompleteness(models[0])
