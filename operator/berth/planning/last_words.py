"""What the last words of a container give away: which of them mean GPU memory, which a GPU that does not work."""

import re

_GPU_MEMORY = re.compile(
    r"(?i)cuda[^\n]{0,80}out of memory|hip[^\n]{0,40}out of memory|torch\.OutOfMemoryError|cudaMalloc failed"
    r"|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED"
    r"|no available memory for the cache blocks|free memory on device [^\n]{0,80}is less than"
    r"|larger than the available KV cache memory|not enough memory\. please try to increase --mem-fraction"
)
"""Of CUDA, ROCm and PyTorch, then of vLLM and SGLang, which look before they take."""
_GPU = re.compile(
    r"(?i)no CUDA-capable device|no CUDA GPUs are available|CUDA_ERROR_(NO_DEVICE|DEVICE_UNAVAILABLE|ECC_UNCORRECTABLE"
    r"|SYSTEM_NOT_READY|SYSTEM_DRIVER_MISMATCH|UNKNOWN)|CUDA-capable device\(s\) is/are busy or unavailable"
    r"|CUDA driver version is insufficient|uncorrectable ECC error|hardware stack error|system not yet initialized"
    r"|CUDA unknown error|CUDA driver initialization failed|found no NVIDIA driver|GPU is lost|fallen off the bus"
    r"|driver/library version mismatch|nvml error|failed to initialize NVML|nvidia-container-cli|\bXid\b"
)
_COMMAND = re.compile(r"(?i)executable file not found|no such file or directory|permission denied|not a directory")


def lack_of_gpu_memory(words: str) -> bool:
    """Whether the GPU was too small, or too full, for what the server asked of it."""
    return _GPU_MEMORY.search(words) is not None


def broken_gpu(words: str) -> bool:
    """Whether a GPU or its driver does not work. Another node may do better."""
    return not lack_of_gpu_memory(words) and _GPU.search(words) is not None


def missing_command(words: str) -> bool:
    """Whether the image has no such command: it has it nowhere."""
    return not broken_gpu(words) and _COMMAND.search(words) is not None
