"""Small models in the formats that servers load: real headers, weights of zeros or none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter

from support.gguf_models import Shape, write

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 2048,
}


def gguf(folder: Path, shape: Shape | None = None) -> bytes:
    """A whole GGUF file."""
    return write(folder / "tiny.gguf", shape or Shape()).read_bytes()


def split_gguf(folder: Path) -> dict[str, bytes]:
    """A model of five tensors in three files."""
    folder.mkdir()
    writer = GGUFWriter(str(folder / "big.gguf"), "llama", split_max_tensors=2)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_embedding_length(64)
    writer.add_context_length(128)
    for number in range(5):
        writer.add_tensor(f"blk.0.{number}.weight", np.zeros((8, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def safetensors(elements: int = 1000, tensors: int = 1, prefix: str = "t") -> bytes:
    """A whole safetensors file of BF16 tensors."""
    size = elements * 2
    entries = {
        f"{prefix}{number}": {
            "dtype": "BF16",
            "shape": [elements],
            "data_offsets": [number * size, (number + 1) * size],
        }
        for number in range(tensors)
    }
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size * tensors)


def sharded(count: int) -> dict[str, bytes]:
    """A model in several safetensors files, with its index and config.json."""
    files = {f"model-{at:05}-of-{count:05}.safetensors": safetensors(prefix=f"s{at}.") for at in range(1, count + 1)}
    index = {
        "metadata": {"total_size": 2000 * count},
        "weight_map": {f"s{at}.0": name for at, name in enumerate(files, 1)},
    }
    return {
        **files,
        "model.safetensors.index.json": json.dumps(index).encode(),
        "config.json": json.dumps(CONFIG).encode(),
    }
