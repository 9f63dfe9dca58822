"""Several Models on one GPU: only where each can be told how much of it is its own."""

from berth.api.model import BackendName
from berth.planning.capacity.world import Need

_CAPPED = frozenset({BackendName.VLLM, BackendName.SGLANG, BackendName.TGI, BackendName.LLAMACPP})
"""vLLM, SGLang and TGI take a share of the memory; llama.cpp allocates what it needs at its start, and no more."""


def can_be_capped(backend: BackendName) -> bool:
    """Whether the server keeps to the memory that it is given."""
    return backend in _CAPPED


def memory_share(required_mib: int, total_mib: int) -> float:
    """The part of a GPU's memory that a server may use, in thousandths, never more than it needs."""
    return required_mib * 1000 // total_mib / 1000


def refusal(need: Need, offered: bool) -> str:
    """Why a Model cannot be Shared, in a sentence; empty when it can. `offered`: some node has shared GPUs of it."""
    if not need.shared:
        return ""
    if not need.capped:
        return "its server cannot be told how much GPU memory it may use: set gpus.sharing to Exclusive"
    if need.count > 1:
        return "several shares may be of one and the same GPU: set gpus.count to 1, or gpus.sharing to Exclusive"
    if need.memory_mib is None:
        return "its share is not known: set gpus.memory, or gpus.sharing to Exclusive"
    if not offered:
        return (
            f"no node shares its {need.resource} in a way that is known: set up time-slicing or MPS, or set "
            "gpus.sharing to Exclusive"
        )
    return ""
