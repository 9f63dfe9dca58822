"""How much GPU memory a model will need, part by part, each with where the number comes from.

Weights and caches are arithmetic on the model's own figures; what engines need beside them is a rule of thumb and
says so. A part that has no rule is unknown (None), and so is the sum.

- llama.cpp allocates everything when it starts. Rules: src/llama-kv-cache.cpp (no values for latent attention),
  src/llama-kv-cache-iswa.cpp (cells of sliding layers), src/llama-context.cpp (cells in steps of 256), and
  tools/server/README.md (-c is the total of all slots; four slots share one cache without -np). Compared with what
  build 11669 logs by tests/e2e/test_memory_of_llama_server.py.
- vLLM and SGLang take a share of the GPU and fill what weights and activations leave with cache. vLLM does not start
  unless one request of the longest length fits. Rules: vllm/v1/kv_cache_interface.py, vllm/v1/core/kv_cache_utils.py
  and vllm/config/model.py (get_num_kv_heads).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from berth.api.model import BackendName
from berth.planning.gguf_metadata import BLOCKS
from berth.planning.model_figures import AttentionLayer, ModelFigures, Subject

MIB = 2**20
_LLAMACPP_STEP = 256
_LLAMACPP_BATCH = 512
_LLAMACPP_SLOTS = 4
_LLAMACPP_MARGIN = 1024 * MIB
"""What llama.cpp itself leaves free when it fits a model to a GPU (--fit-target)."""
_ENGINE_MARGIN = 2048 * MIB
"""CUDA context, communication, captured graphs: a rule of thumb, not a measurement."""
_ENGINE_BATCH = 8192
"""vLLM's max_num_batched_tokens for a server on a large GPU; SGLang's chunked_prefill_size is 8192 there too."""
_VLLM_BLOCK = 16
_VLLM_EVEN = 1.5
"""Up to this ratio vLLM pads the smaller kind of layers instead of splitting the larger into groups."""

_LLAMACPP_CACHE_TYPES = {
    name.lower(): (block, width)
    for name, block, width in BLOCKS.values()
    if name in ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1")
}
_ENGINE_CACHE_TYPES: Mapping[str, tuple[int, int]] = {
    "auto": (1, 2), "float16": (1, 2), "half": (1, 2), "bfloat16": (1, 2), "bf16": (1, 2),
    "fp8": (1, 1), "fp8_e4m3": (1, 1), "fp8_e5m2": (1, 1),
}  # fmt: skip
"""Elements and bytes of a block. `auto` is the type that the model computes in, which has 16 bits."""


class PartName(StrEnum):
    """What GPU memory is needed for."""

    WEIGHTS = "weights"
    CACHE = "kv cache"
    OVERHEAD = "overhead"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the need of one GPU."""

    name: PartName
    bytes: int | None
    """None: unknown, and `explanation` says why."""
    explanation: str

    @property
    def mib(self) -> int | None:
        """In MiB, rounded up."""
        return None if self.bytes is None else -(-self.bytes // MIB)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What each GPU needs for one replica."""

    required_mib: int | None
    """For as many requests of full length at once as were asked for; None when a part is unknown."""
    minimum_mib: int | None
    """With less than this the server does not start: one request of full length has to fit."""
    parts: tuple[Part, ...]
    unknown: tuple[str, ...]
    """Why parts are unknown; empty when all are known."""
    question: "Question"

    def context_that_fits(self, free_mib: int) -> int | None:
        """The longest serving.contextLength for which this much memory is enough; 0: none is; None: unknown."""
        longest = self.question.figures.context_length or self.question.context_length
        if self.required_mib is None or longest is None:
            return None

        def fits(length: int) -> bool:
            needed = _answer(replace(self.question, context_length=length)).required_mib
            return needed is not None and needed <= free_mib

        if fits(longest):
            return longest
        low, high = 0, -(-longest // _LLAMACPP_STEP)  # in steps, of which `low` fits and `high` does not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle * _LLAMACPP_STEP) else (low, middle)
        return low * _LLAMACPP_STEP


@dataclass(frozen=True, slots=True)
class Question:
    """What an estimate answers."""

    figures: ModelFigures
    backend: BackendName
    context_length: int | None
    concurrency: int | None
    kv_dtype: str | None
    tensor_parallel: int
    quantization: str | None


def estimate(
    figures: ModelFigures,
    *,
    backend: BackendName,
    context_length: int | None = None,
    concurrency: int | None = None,
    kv_dtype: str | None = None,
    tensor_parallel: int = 1,
    quantization: str | None = None,
) -> Estimate:
    """What each of `tensor_parallel` GPUs needs. None everywhere means: as the backend does it by itself."""
    question = Question(figures, backend, context_length, concurrency, kv_dtype, tensor_parallel, quantization)
    return _answer(question)


def _answer(question: Question) -> Estimate:
    rules = _RULES.get(question.backend)
    if rules is None:
        why = f"what backend {question.backend} needs is not known: set gpus.memory"
        return Estimate(None, None, (), (why,), question)
    parts = (rules.weights(question), rules.cache(question, rules.requests(question)), rules.overhead(question))
    required = _sum(parts)
    least = _sum((parts[0], rules.cache(question, rules.least(question)), parts[2]))
    unknown = tuple(part.explanation for part in parts if part.bytes is None)
    return Estimate(required, least, parts, unknown, question)


def _sum(parts: tuple[Part, ...]) -> int | None:
    """MiB of all parts; each is rounded up, as each is an allocation of its own."""
    sizes = [part.mib for part in parts]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _of_row(elements: int, kind: tuple[int, int]) -> int:
    block, width = kind
    return -(-elements // block) * width


def _no_cache(question: Question, kinds: Mapping[str, tuple[int, int]], default: str) -> Part | None:
    """Why the cache is unknown, whatever the backend."""
    figures, kind = question.figures, question.kv_dtype or default
    reasons = list(figures.why_unknown(Subject.CACHE))
    if question.context_length is None and figures.attention:
        reasons += figures.why_unknown(Subject.CONTEXT)
    if kind not in kinds:
        reasons.append(f"the size of cache type {kind} is not known for backend {question.backend}")
    if figures.attention is None and not reasons:
        reasons.append("what the layers keep is not known")
    return Part(PartName.CACHE, None, "; ".join(reasons)) if reasons else None


class _Rules:
    """How one kind of server uses memory."""

    def weights(self, question: Question) -> Part:
        raise NotImplementedError

    def cache(self, question: Question, requests: int | None) -> Part:
        raise NotImplementedError

    def overhead(self, question: Question) -> Part:
        raise NotImplementedError

    def requests(self, question: Question) -> int | None:
        """Requests at once that the cache is sized for."""
        return question.concurrency

    def least(self, question: Question) -> int | None:
        """Requests at once without whose cache the server does not start."""
        return question.concurrency


class _LlamaCpp(_Rules):
    """llama.cpp; Ollama runs models in the same way, but picks a context by itself unless one is set."""

    def weights(self, question: Question) -> Part:
        figures, gpus = question.figures, question.tensor_parallel
        size = figures.weight_bytes
        if question.quantization is not None and question.quantization != figures.quantization:
            return Part(PartName.WEIGHTS, None, "llama.cpp loads weights as they are: remove serving.quantization")
        if size is None:
            return Part(PartName.WEIGHTS, None, "; ".join(figures.why_unknown(Subject.WEIGHTS)))
        output = figures.output_bytes
        on_gpu = size - figures.input_bytes if output is not None else size
        text = "all tensors but the token embeddings, which stay in host memory"
        if output is None:
            text = "all tensors; the token embeddings are the output matrix too, and that is on the GPU"
        if gpus > 1 and figures.layers:
            last = figures.input_bytes if output is None else output
            layer = -(-(on_gpu - last) // figures.layers)
            on_gpu = min(on_gpu, layer * _layers_per_gpu(figures.layers, gpus) + last)
            text += f"; the largest share of {gpus} GPUs, between which llama.cpp splits the layers"
        return Part(PartName.WEIGHTS, on_gpu, text)

    def cache(self, question: Question, requests: int | None) -> Part:
        kind = question.kv_dtype or "f16"
        unknown = _no_cache(question, _LLAMACPP_CACHE_TYPES, "f16")
        if unknown is not None:
            return unknown
        figures = question.figures
        if not figures.attention:
            return Part(PartName.CACHE, 0, "an encoder keeps no cache")
        if question.backend is BackendName.OLLAMA and question.context_length is None:
            why = "Ollama picks a context by the size of the GPU: set serving.contextLength"
            return Part(PartName.CACHE, None, why)
        cells, streams, slots = _cells(question, requests)
        sizes = []
        for layer in figures.attention:
            used = cells
            if layer.window is not None:
                together = slots if streams == 1 else 1
                used = _up(min(cells, layer.window * together + _LLAMACPP_BATCH), _LLAMACPP_STEP)
            sizes.append(used * streams * _row(layer, _LLAMACPP_CACHE_TYPES[kind]))
        share = _layers_per_gpu(len(sizes), question.tensor_parallel)
        size = max(sum(sizes[first : first + share]) for first in range(max(1, len(sizes) - share + 1)))
        text = f"{streams} x {cells} tokens of type {kind} in {len(sizes)} layers{_kinds(figures)}"
        return Part(PartName.CACHE, size, text)

    def overhead(self, question: Question) -> Part:
        figures = question.figures
        embedding, attention = figures.embedding_length, figures.attention
        size, text = _LLAMACPP_MARGIN, "1024 MiB as llama.cpp itself leaves free (CUDA context; a rule of thumb)"
        length = question.context_length or figures.context_length
        if embedding is None or attention is None or length is None:
            return Part(PartName.OVERHEAD, size, text + "; its compute buffer is not known and left out")
        cells = _cells(question, question.concurrency)[0]
        masks = 1 + any(layer.window is not None for layer in attention)
        heads = (figures.heads or 1) * max((layer.key_size for layer in attention), default=0)
        width = 4 * max(heads, embedding) + 3 * embedding + 2 * (figures.feed_forward_length or 4 * embedding) + 512
        size += _LLAMACPP_BATCH * (2 * cells * masks + 4 * width)
        return Part(PartName.OVERHEAD, size, text + f" and a compute buffer for batches of {_LLAMACPP_BATCH} tokens")


def _cells(question: Question, slots: int | None) -> tuple[int, int, int]:
    """Tokens in each cache, how many caches, and how many requests at once."""
    length = question.context_length or question.figures.context_length or 0
    cells = _up(length, _LLAMACPP_STEP)
    if slots is None:
        return cells, 1, _LLAMACPP_SLOTS
    return (cells, slots, slots) if question.context_length is not None else (cells, 1, slots)


def _layers_per_gpu(layers: int, gpus: int) -> int:
    """llama.cpp deals out the layers and, as one more, the output."""
    return min(layers, -(-(layers + 1) // gpus))


def _row(layer: AttentionLayer, kind: tuple[int, int]) -> int:
    """Bytes of one token in one layer."""
    return _of_row(layer.kv_heads * layer.key_size, kind) + _of_row(layer.kv_heads * layer.value_size, kind)


def _kinds(figures: ModelFigures) -> str:
    attention = figures.attention or ()
    sliding = sum(layer.window is not None for layer in attention)
    text = f", {sliding} of which see a window of {figures.sliding_window}" if sliding else ""
    return text + (" (latent attention: one vector for all heads)" if any(one.latent for one in attention) else "")


class _Engine(_Rules):
    """vLLM, SGLang and TGI: weights are divided between GPUs, the cache has a share of them."""

    def requests(self, question: Question) -> int | None:
        return question.concurrency or 1

    def least(self, question: Question) -> int | None:
        return 1

    def weights(self, question: Question) -> Part:
        figures, gpus = question.figures, question.tensor_parallel
        size, wanted = figures.weight_bytes, question.quantization
        if size is None:
            return Part(PartName.WEIGHTS, None, "; ".join(figures.why_unknown(Subject.WEIGHTS)))
        text = "all tensors as stored"
        if wanted is not None and wanted != figures.quantization:
            if wanted != "fp8" or figures.quantization is not None or not _is_16_bit(figures):
                why = f"how large the weights become with quantization {wanted} is not known"
                return Part(PartName.WEIGHTS, None, why)
            ends = figures.input_bytes + (figures.output_bytes or 0)
            size = ends + -(-(size - ends) // 2)
            text = "halved to 8 bits but for embeddings and output; loading needs more for a moment"
        if gpus > 1:
            text += f", divided between {gpus} GPUs"
        return Part(PartName.WEIGHTS, -(-size // gpus), text)

    def cache(self, question: Question, requests: int | None) -> Part:
        unknown = _no_cache(question, _ENGINE_CACHE_TYPES, "auto")
        if unknown is not None:
            return unknown
        figures, requests = question.figures, requests or 1
        if not figures.attention:
            return Part(PartName.CACHE, 0, "an encoder keeps no cache")
        length = question.context_length or figures.context_length or 0
        kind, gpus = _ENGINE_CACHE_TYPES[question.kv_dtype or "auto"], question.tensor_parallel
        full = [_row(_shard(layer, gpus), kind) for layer in figures.attention if layer.window is None]
        sliding = [_row(_shard(layer, gpus), kind) for layer in figures.attention if layer.window is not None]
        tokens = _up(length, _VLLM_BLOCK)
        text = f"{requests} x {length} tokens in {len(full) + len(sliding)} layers{_kinds(figures)}"
        if not sliding or question.backend is not BackendName.VLLM:
            if sliding:
                text += f"; {question.backend} keeps all or nearly all tokens of sliding layers, so all are counted"
            return Part(PartName.CACHE, requests * tokens * (sum(full) + sum(sliding)), text)
        if len({*full, *sliding}) > 1:
            return Part(PartName.CACHE, None, "how vLLM groups layers with caches of different width is not known")
        window = max(layer.window or 0 for layer in figures.attention)
        seen = _up(min(window - 1 + _ENGINE_BATCH, length), _VLLM_BLOCK) + _VLLM_BLOCK
        group = _group(len(full), len(sliding))
        slots = _up(len(full), group) * tokens + _up(len(sliding), group) * min(seen, tokens + _VLLM_BLOCK)
        return Part(PartName.CACHE, requests * slots * sliding[0], text)

    def overhead(self, question: Question) -> Part:
        figures = question.figures
        size, text = _ENGINE_MARGIN, "2048 MiB for CUDA context, graphs and communication (a rule of thumb)"
        if figures.embedding_length is None:
            return Part(PartName.OVERHEAD, size, text + "; activations are not known and left out")
        width = 4 * figures.embedding_length + 2 * (figures.feed_forward_length or 4 * figures.embedding_length)
        size += -(-_ENGINE_BATCH * 2 * width // question.tensor_parallel)
        return Part(PartName.OVERHEAD, size, text + f" and activations of {_ENGINE_BATCH} tokens")


def _shard(layer: AttentionLayer, gpus: int) -> AttentionLayer:
    """What one GPU keeps: its part of the heads, at least one; latent vectors are kept by every GPU."""
    return layer if layer.latent else replace(layer, kv_heads=-(-layer.kv_heads // gpus))


def _group(full: int, sliding: int) -> int:
    """Layers that share a block table; vLLM fills up the last group of each kind."""
    if not full or not sliding:
        return max(full, sliding)
    smaller, larger = sorted((full, sliding))
    return larger if larger < smaller * _VLLM_EVEN else smaller


def _is_16_bit(figures: ModelFigures) -> bool:
    return all(part.dtype in ("F16", "BF16") for part in figures.weights)


_RULES: Mapping[BackendName, _Rules] = {
    BackendName.LLAMACPP: _LlamaCpp(),
    BackendName.OLLAMA: _LlamaCpp(),
    BackendName.VLLM: _Engine(),
    BackendName.SGLANG: _Engine(),
    BackendName.TGI: _Engine(),
}
