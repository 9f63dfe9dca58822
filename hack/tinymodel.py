"""Makes a tiny, random llama model as a GGUF file of about half a megabyte: real enough for a real llama-server.

It answers chat requests with nonsense, which is all that a demonstration without a network needs.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

LAYERS, HEADS, KEY_VALUE_HEADS, EMBEDDING, FEED_FORWARD, CONTEXT = 2, 4, 2, 64, 128, 2048


def _vocabulary() -> tuple[list[bytes], list[float], list[int]]:
    """Tokens, scores and types: specials, one token per byte, then printable characters."""
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    kinds = [
        gguf.TokenType.UNKNOWN,
        gguf.TokenType.CONTROL,
        gguf.TokenType.CONTROL,
        *[gguf.TokenType.BYTE] * 256,
    ]
    letters = ["\u2581", *(chr(code) for code in range(33, 127))]
    tokens += [letter.encode() for letter in letters]
    kinds += [gguf.TokenType.NORMAL] * len(letters)
    scores = [0.0] * 259 + [-float(rank) for rank in range(len(letters))]
    return tokens, scores, [int(kind) for kind in kinds]


def write(
    path: Path, *, layers: int = LAYERS, embedding: int = EMBEDDING, context: int = CONTEXT, seed: int = 7
) -> None:
    """Write the model to `path`. `layers`, `embedding` and `context` set its shape, `seed` its random weights."""
    tokens, scores, kinds = _vocabulary()
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(context)
    writer.add_embedding_length(embedding)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_rope_dimension_count(embedding // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * 0.05).astype(np.float32))

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(embedding, dtype=np.float32))

    key_value = embedding // HEADS * KEY_VALUE_HEADS
    # The first dimension carries a constant through all layers, so that the output can prefer printable tokens.
    specials = 3 + 256
    tokens_in = random.standard_normal((len(tokens), embedding)).astype(np.float32) * 0.05
    tokens_in[:, 0] = 2.0
    tokens_out = random.standard_normal((len(tokens), embedding)).astype(np.float32) * 0.3
    tokens_out[:, 0] = np.where(np.arange(len(tokens)) < specials, -3.0, 3.0)
    writer.add_tensor("token_embd.weight", tokens_in)
    norm("output_norm.weight")
    writer.add_tensor("output.weight", tokens_out)
    for layer in range(layers):
        prefix = f"blk.{layer}."
        norm(prefix + "attn_norm.weight")
        tensor(prefix + "attn_q.weight", embedding, embedding)
        tensor(prefix + "attn_k.weight", key_value, embedding)
        tensor(prefix + "attn_v.weight", key_value, embedding)
        tensor(prefix + "attn_output.weight", embedding, embedding)
        norm(prefix + "ffn_norm.weight")
        tensor(prefix + "ffn_gate.weight", FEED_FORWARD, embedding)
        tensor(prefix + "ffn_up.weight", FEED_FORWARD, embedding)
        tensor(prefix + "ffn_down.weight", embedding, FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: {Path(sys.argv[1]).stat().st_size} bytes")
