"""Writes a tiny llama model with random weights, so that fast tests run the real llama.cpp.

Its vocabulary is the 256 bytes and a few control tokens; what it says makes no sense, but is the same every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import gguf
import numpy as np

N_LAYERS, N_EMBD, N_HEADS, N_HEADS_KV, N_FF, N_CTX_TRAIN = 2, 64, 4, 2, 128, 2048

_CONTROLS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")


N_SWA = 16
"""Sliding window of the tiny gemma3: five of six layers see no further back."""

Architecture = Literal["llama", "gemma3", "mamba", "lfm2"]
"""Plain attention, sliding windows, recurrent states, and layers of both attention and states: the kinds of memory llama.cpp has."""


FIM_BYTES = {"PRE": 0xF8, "SUF": 0xF9, "MID": 0xFA, "REP": 0xFB, "SEP": 0xFC}
"""The bytes, of no text, whose tokens stand for the parts of a gap in a model that can fill in the middle."""


def fim_token(part: str) -> int:
    """The token of a part, e.g. `PRE`."""
    return len(_CONTROLS) + FIM_BYTES[part]


def write_tiny_gguf(
    path: Path,
    architecture: Architecture = "llama",
    *,
    chat_template: str | None = None,
    seed: int = 7,
    fim: Sequence[str] = (),
) -> None:
    """Write the model to `path`; `fim` names the parts of a gap that it has tokens for."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(N_CTX_TRAIN)
    writer.add_embedding_length(N_EMBD)
    writer.add_layer_norm_rms_eps(1e-5)
    _add_vocabulary(writer)
    for part in fim:
        writer.add_uint32(getattr(gguf.Keys.Tokenizer, f"FIM_{part}_ID"), fim_token(part))
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    model = _Model(writer, np.random.default_rng(seed))
    match architecture:
        case "llama":
            model.add_llama()
        case "gemma3":
            model.add_gemma3()
        case "mamba":
            model.add_mamba()
        case "lfm2":
            model.add_lfm2()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tiny_embedder(
    path: Path,
    architecture: Literal["bert", "qwen3"],
    pooling: gguf.PoolingType,
    *,
    rerank_template: str | None = None,
) -> None:
    """Write a model that is made for embeddings, or with the pooling `RANK` for ranks."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(N_CTX_TRAIN)
    writer.add_embedding_length(N_EMBD)
    writer.add_pooling_type(pooling)
    _add_vocabulary(writer)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    if rerank_template is not None:
        writer.add_chat_template([{"name": "rerank", "template": rerank_template}])
    model = _Model(writer, np.random.default_rng(7))
    match architecture:
        case "bert":
            model.add_bert()
        case "qwen3":
            model.add_qwen3()
    if pooling is gguf.PoolingType.RANK:
        model.add_classifier(architecture)
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


class _Model:
    """The hyperparameters and tensors of each architecture."""

    def __init__(self, writer: gguf.GGUFWriter, chance: np.random.Generator) -> None:
        self._writer = writer
        self._chance = chance
        self._n_vocab = len(_CONTROLS) + 256

    def add_llama(self) -> None:
        self._add_attention_parameters(N_LAYERS)
        self._writer.add_rope_dimension_count(N_EMBD // N_HEADS)
        for layer in range(N_LAYERS):
            self._add_attention(f"blk.{layer}")
        self._add_ends()
        self._add("output.weight", self._n_vocab, N_EMBD)

    def add_gemma3(self) -> None:
        n_layers, head = 6, N_EMBD // N_HEADS  # the sixth layer is the one that sees everything
        self._add_attention_parameters(n_layers)
        self._writer.add_sliding_window(N_SWA)
        self._writer.add_key_length(head)
        self._writer.add_value_length(head)
        for block in (f"blk.{layer}" for layer in range(n_layers)):
            self._add_attention(block)
            for name, width in (
                ("attn_q", head),
                ("attn_k", head),
                ("post_attention", N_EMBD),
                ("post_ffw", N_EMBD),
            ):
                self._add_norm(f"{block}.{name}_norm.weight", width)
        self._add_ends()

    def add_mamba(self) -> None:
        n_inner, n_state, n_conv, rank = 2 * N_EMBD, 8, 4, 4
        self._writer.add_block_count(N_LAYERS)
        self._writer.add_feed_forward_length(0)
        self._writer.add_head_count(0)
        self._writer.add_ssm_conv_kernel(n_conv)
        self._writer.add_ssm_inner_size(n_inner)
        self._writer.add_ssm_state_size(n_state)
        self._writer.add_ssm_time_step_rank(rank)
        for block in (f"blk.{layer}" for layer in range(N_LAYERS)):
            self._add_norm(f"{block}.attn_norm.weight", N_EMBD)
            self._add(f"{block}.ssm_in.weight", 2 * n_inner, N_EMBD)
            self._add(f"{block}.ssm_conv1d.weight", n_inner, n_conv)
            self._add(f"{block}.ssm_conv1d.bias", n_inner)
            self._add(f"{block}.ssm_x.weight", rank + 2 * n_state, n_inner)
            self._add(f"{block}.ssm_dt.weight", n_inner, rank)
            self._add(f"{block}.ssm_dt.bias", n_inner)
            self._writer.add_tensor(f"{block}.ssm_a", -np.ones((n_inner, n_state), dtype=np.float32))
            self._add(f"{block}.ssm_d", n_inner)
            self._add(f"{block}.ssm_out.weight", N_EMBD, n_inner)
        self._add_ends()

    def add_lfm2(self) -> None:
        """A short convolution, and attention above it."""
        n_conv, head, kv_heads = 3, N_EMBD // N_HEADS, [0, N_HEADS_KV]
        self._writer.add_block_count(len(kv_heads))
        self._writer.add_feed_forward_length(N_FF)
        self._writer.add_head_count(N_HEADS)
        self._writer.add_head_count_kv(kv_heads)
        self._writer.add_shortconv_l_cache(n_conv)
        self._add_attention("blk.1")
        self._add_norm("blk.1.attn_q_norm.weight", head)
        self._add_norm("blk.1.attn_k_norm.weight", head)
        self._add_norm("blk.0.attn_norm.weight", N_EMBD)
        self._add("blk.0.shortconv.conv.weight", N_EMBD, n_conv)
        self._add("blk.0.shortconv.in_proj.weight", 3 * N_EMBD, N_EMBD)
        self._add("blk.0.shortconv.out_proj.weight", N_EMBD, N_EMBD)
        self._add_feed_forward("blk.0")
        self._add("token_embd.weight", self._n_vocab, N_EMBD)
        self._add_norm("token_embd_norm.weight", N_EMBD)  # of the output, whatever it is called

    def add_qwen3(self) -> None:
        self._writer.add_layer_norm_rms_eps(1e-5)
        self._add_attention_parameters(N_LAYERS)
        head = N_EMBD // N_HEADS
        for block in (f"blk.{layer}" for layer in range(N_LAYERS)):
            self._add_attention(block)
            self._add_norm(f"{block}.attn_q_norm.weight", head)
            self._add_norm(f"{block}.attn_k_norm.weight", head)
        self._add_ends()

    def add_classifier(self, architecture: Literal["bert", "qwen3"]) -> None:
        """What makes a score of the last token, or of the first: Qwen's is the first of two chances."""
        if architecture == "bert":
            self._add("cls.weight", N_EMBD, N_EMBD)
            self._add("cls.output.weight", 1, N_EMBD)
        else:
            self._writer.add_classifier_output_labels(["yes", "no"])
            self._add("cls.output.weight", 2, N_EMBD)

    def add_bert(self) -> None:
        self._add_attention_parameters(N_LAYERS)
        self._writer.add_layer_norm_eps(1e-5)
        self._writer.add_causal_attention(False)
        self._writer.add_token_type_count(1)
        self._add("token_embd.weight", self._n_vocab, N_EMBD)
        self._add("token_types.weight", 1, N_EMBD)
        self._add("position_embd.weight", N_CTX_TRAIN, N_EMBD)
        self._add_biased_norm("token_embd_norm")
        kv_width = N_EMBD // N_HEADS * N_HEADS_KV
        for block in (f"blk.{layer}" for layer in range(N_LAYERS)):
            self._add(f"{block}.attn_q.weight", N_EMBD, N_EMBD)
            self._add(f"{block}.attn_k.weight", kv_width, N_EMBD)
            self._add(f"{block}.attn_v.weight", kv_width, N_EMBD)
            self._add(f"{block}.attn_output.weight", N_EMBD, N_EMBD)
            self._add_biased_norm(f"{block}.attn_output_norm")
            self._add(f"{block}.ffn_up.weight", N_FF, N_EMBD)
            self._add(f"{block}.ffn_down.weight", N_EMBD, N_FF)
            self._add_biased_norm(f"{block}.layer_output_norm")

    def _add_attention_parameters(self, n_layers: int) -> None:
        self._writer.add_block_count(n_layers)
        self._writer.add_feed_forward_length(N_FF)
        self._writer.add_head_count(N_HEADS)
        self._writer.add_head_count_kv(N_HEADS_KV)

    def _add_attention(self, block: str) -> None:
        kv_width = N_EMBD // N_HEADS * N_HEADS_KV
        self._add_norm(f"{block}.attn_norm.weight", N_EMBD)
        self._add(f"{block}.attn_q.weight", N_EMBD, N_EMBD)
        self._add(f"{block}.attn_k.weight", kv_width, N_EMBD)
        self._add(f"{block}.attn_v.weight", kv_width, N_EMBD)
        self._add(f"{block}.attn_output.weight", N_EMBD, N_EMBD)
        self._add_feed_forward(block)

    def _add_feed_forward(self, block: str) -> None:
        self._add_norm(f"{block}.ffn_norm.weight", N_EMBD)
        self._add(f"{block}.ffn_gate.weight", N_FF, N_EMBD)
        self._add(f"{block}.ffn_up.weight", N_FF, N_EMBD)
        self._add(f"{block}.ffn_down.weight", N_EMBD, N_FF)

    def _add_ends(self) -> None:
        self._add("token_embd.weight", self._n_vocab, N_EMBD)
        self._add_norm("output_norm.weight", N_EMBD)

    def _add(self, name: str, *shape: int) -> None:
        self._writer.add_tensor(name, self._chance.normal(0, 0.2, shape).astype(np.float32))

    def _add_norm(self, name: str, width: int) -> None:
        self._writer.add_tensor(name, np.ones(width, dtype=np.float32))

    def _add_biased_norm(self, name: str) -> None:
        self._add_norm(f"{name}.weight", N_EMBD)
        self._writer.add_tensor(f"{name}.bias", np.zeros(N_EMBD, dtype=np.float32))
