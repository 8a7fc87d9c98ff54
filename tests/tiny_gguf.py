"""Writes a tiny llama model with random weights, so that fast tests run the real llama.cpp.

Its vocabulary is the 256 bytes and a few control tokens; what it says makes no sense, but is the same every time.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

N_LAYERS, N_EMBD, N_HEADS, N_HEADS_KV, N_FF, N_CTX_TRAIN = 2, 64, 4, 2, 128, 2048

_CONTROLS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")


def write_tiny_gguf(path: Path, *, chat_template: str | None = None, seed: int = 7) -> None:
    """Write the model to `path`."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(N_CTX_TRAIN)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_HEADS_KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(N_EMBD // N_HEADS)
    _add_vocabulary(writer)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    _add_tensors(writer, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    tokens = [*_CONTROLS, *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 4, *[gguf.TokenType.BYTE] * 256]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(False)


def _add_tensors(writer: gguf.GGUFWriter, random: np.random.Generator) -> None:
    n_vocab = len(_CONTROLS) + 256
    kv_width = N_EMBD // N_HEADS * N_HEADS_KV

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(0, 0.2, shape).astype(np.float32))

    def add_norm(name: str) -> None:
        writer.add_tensor(name, np.ones(N_EMBD, dtype=np.float32))

    add("token_embd.weight", n_vocab, N_EMBD)
    for layer in range(N_LAYERS):
        block = f"blk.{layer}"
        add_norm(f"{block}.attn_norm.weight")
        add(f"{block}.attn_q.weight", N_EMBD, N_EMBD)
        add(f"{block}.attn_k.weight", kv_width, N_EMBD)
        add(f"{block}.attn_v.weight", kv_width, N_EMBD)
        add(f"{block}.attn_output.weight", N_EMBD, N_EMBD)
        add_norm(f"{block}.ffn_norm.weight")
        add(f"{block}.ffn_gate.weight", N_FF, N_EMBD)
        add(f"{block}.ffn_up.weight", N_FF, N_EMBD)
        add(f"{block}.ffn_down.weight", N_EMBD, N_FF)
    add_norm("output_norm.weight")
    add("output.weight", n_vocab, N_EMBD)
