"""LlamaCppBackend: the real backend, over llama.cpp's C API.

The border to native code: every call's result is checked here, every pointer stays here, and native resources are freed
in reverse order of their creation. Loading is in `load`, sampling in `sampler`, vectors in `embedder`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from kolosal.engines.parameters import FittedConfig
from kolosal.engines.worker.backend import (
    BackendError,
    DecodeFailed,
    FimTokens,
    KVCacheFull,
    RestoreFailed,
    Sampler,
    TemplateSource,
)
from kolosal.engines.worker.llamacpp.batch import LlamaBatch
from kolosal.engines.worker.llamacpp.draft import DraftModel, DraftSequence
from kolosal.engines.worker.llamacpp.embedder import LlamaCppEmbedder
from kolosal.engines.worker.llamacpp.load import LoadedModel, load_draft, load_model
from kolosal.engines.worker.llamacpp.logits import StepLogits
from kolosal.engines.worker.llamacpp.logits_row import LogitsRow
from kolosal.engines.worker.llamacpp.native import native
from kolosal.engines.worker.llamacpp.prefill_context import PrefillContext
from kolosal.engines.worker.llamacpp.sampler import GreedySampler, LogitBias, NativeSampler
from kolosal.engines.worker.llamacpp.weights import LoadError, Weights, load_weights
from kolosal.engines.worker.sampler_chain import GREEDY, sampler_chain
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.sampling import SamplingParams

if TYPE_CHECKING:
    from llguidance import LLTokenizer

    from kolosal.engines.worker.constraint import Constraint

_TRIED_TEXT = "Hello, 1 w\u00f6rld \U0001f642\n"
"""A text with characters of one byte and of several, which a tokenizer may write in bytes."""
_SMALL_BYTES = 2 * 1024**3
"""Weights that one thread reads in some tenths of a second: several may wait for each other for longer on a busy machine."""

_PIECE_BYTES = 256
"""Bytes of one token that are tried first; a longer one is asked for again with its true length."""


class LlamaCppBackend:
    """One model and one context with a unified KV cache. See `Backend` for the contract."""

    def __init__(
        self, config: FittedConfig, on_progress: Callable[[float], None], weights: Weights | None = None
    ) -> None:
        """Load the model; `weights`, where the file was read before.

        Raises:
            LoadError: it cannot be loaded, in a sentence for people.
        """
        self._loaded: LoadedModel | None = load_model(config, weights or load_weights(config, on_progress))
        self._model = self._loaded.model
        self._context = self._loaded.context
        self._vocab = native.llama_model_get_vocab(self._model)
        self._memory = native.llama_get_memory(self._context)
        self._cells = self._loaded.cells
        self._reads_in_order = bool(self._memory) and native.llama_get_causal_attn(self._context)
        self._config = config
        self._default_seed = config.parameters.seed
        may_take = self._loaded.prefill_cells * self._loaded.bytes_per_cell
        self.info = replace(self._loaded.info, unused_bytes=self._loaded.info.unused_bytes + may_take)
        self.fim = _fim_tokens(self._vocab)
        self.can_trim = self._loaded.can_trim
        self.n_slots = self._loaded.n_slots
        self.prefill_cells = self._loaded.prefill_cells
        self.cell_s = self._loaded.cell_s
        self._prefill_context = PrefillContext(self._loaded)
        self.template = TemplateSource(
            self._loaded.chat_template, self._text(_bos(self._vocab)), self._text(_eos(self._vocab))
        )
        rank_template = native.llama_model_chat_template(self._model, b"rerank")
        self.rank_template = rank_template.decode(errors="replace") if rank_template else None
        self._batch = LlamaBatch(self.info.n_batch, guard=self._loaded.guard)
        self._logits = StepLogits(self._context, self.info.n_vocab)
        self.token_bytes = cache(
            partial(self._piece, special=False)
        )  # at most an entry for each token there is
        self.is_end = cache(self._is_end)
        self._draft: DraftModel | None = None
        if config.parameters.draft_model_path is not None:
            draft = load_draft(config, self._loaded)
            self._draft = DraftModel(draft)
            both = self.info.unused_bytes + draft.info.unused_bytes
            self.info = replace(self.info, unused_bytes=both)
        self._try()

    # --- vocabulary: any thread ---

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode()
        room = len(data) + 2  # a token covers at least one byte; two more for those the model adds
        buffer = (native.llama_token * room)()
        count = native.llama_tokenize(self._vocab, data, len(data), buffer, room, add_special, parse_special)
        if count < 0:  # the room was too small; it says how much it needs
            room = -count
            buffer = (native.llama_token * room)()
            count = native.llama_tokenize(
                self._vocab, data, len(data), buffer, room, add_special, parse_special
            )
        return buffer[: max(count, 0)]

    def control_tokens(self) -> frozenset[int]:
        control = native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_UNKNOWN
        attribute, vocab = native.llama_vocab_get_attr, self._vocab
        return frozenset(token for token in range(self.info.n_vocab) if attribute(vocab, token) & control)

    def control_texts(self) -> frozenset[str]:
        return frozenset(map(self._text, self.control_tokens()))

    def written(self, token: int) -> bytes:
        return self._piece(token, special=True)

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        count = native.llama_token_to_piece(self._vocab, token, buffer, _PIECE_BYTES, 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = native.llama_token_to_piece(self._vocab, token, buffer, -count, 0, special)
        return buffer.raw[: max(count, 0)]

    def _is_end(self, token: int) -> bool:
        return bool(native.llama_vocab_is_eog(self._vocab, token))

    @cached_property
    def _end_tokens(self) -> tuple[int, ...]:
        return tuple(token for token in range(self.info.n_vocab) if self._is_end(token))

    def _text(self, token: int) -> str:
        if not 0 <= token < self.info.n_vocab:
            return ""
        text = native.llama_vocab_get_text(self._vocab, token)
        return (text or b"").decode(errors="replace")

    def new_sampler(self, params: SamplingParams, prompt: Seq[int]) -> Sampler:
        n_ctx, n_vocab = self.info.n_ctx, self.info.n_vocab
        chain = sampler_chain(params, n_ctx=n_ctx, n_vocab=n_vocab, default_seed=self._default_seed)
        forbidden = self._end_tokens if params.ignore_eos else ()
        bias = LogitBias(params.logit_bias, forbidden) if params.logit_bias or forbidden else None
        if chain == [GREEDY]:
            return GreedySampler(bias)
        return NativeSampler(chain, self._vocab, prompt, bias)

    def tokenize_pair(self, query: str, document: str) -> list[int]:
        vocab = self._vocab
        end = [_eos(vocab)] if _eos(vocab) >= 0 else [int(native.llama_vocab_sep(vocab))]
        ends = end if native.llama_vocab_get_add_eos(vocab) else []
        return [
            *([_bos(vocab)] if native.llama_vocab_get_add_bos(vocab) else []),
            *self.tokenize(query, add_special=False, parse_special=False),
            *ends,
            *([int(native.llama_vocab_sep(vocab))] if native.llama_vocab_get_add_sep(vocab) else []),
            *self.tokenize(document, add_special=False, parse_special=False),
            *ends,
        ]

    def open_embedder(self) -> LlamaCppEmbedder:
        return LlamaCppEmbedder(self._model, self.info, in_pieces=self._reads_in_order)

    def new_draft(self) -> DraftSequence | None:
        return None if self._draft is None else DraftSequence(self._draft)

    def constraint_tokenizer(self) -> LLTokenizer:
        from llguidance.llamacpp import lltokenizer_from_vocab  # noqa: PLC0415 - only constrained requests need it

        return lltokenizer_from_vocab(self._vocab, eos_token=list(self._end_tokens))

    # --- context: engine thread only ---

    def decode(self, chunks: Seq[Chunk]) -> None:
        batch, n_rows, all_greedy = self._batch, 0, True
        batch.clear()
        for chunk in chunks:
            batch.add(chunk.slot, chunk.start, chunk.tokens, chunk.n_outputs)
            n_rows += chunk.n_outputs
            all_greedy = all_greedy and (not chunk.n_outputs or _is_greedy(chunk))
        result = native.llama_decode(self._context, batch.struct)
        if result == 1:
            raise KVCacheFull("llama_decode found no KV cells for the batch")
        if result != 0:
            raise DecodeFailed(f"llama_decode failed with {result}")
        native.llama_synchronize(self._context)  # a GPU may still be at it, and what a step takes is measured
        self._logits.begin(n_rows, all_greedy=all_greedy)

    def prefill(self, chunk: Chunk, between_layers: Callable[[], bool]) -> bool:
        return self._prefill_context.compute(chunk, between_layers)

    def close_prefill_context(self) -> None:
        self._prefill_context.close()

    def sample(self, sampler: Sampler, output: int, constraint: Constraint | None) -> int:
        assert isinstance(sampler, GreedySampler | NativeSampler)  # noqa: S101 - made by new_sampler above
        if constraint is not None:
            self._forbid(output, constraint.mask())
        return sampler.sample(self._logits, output)

    def row_logprobs(self, output: int, n_top: int) -> LogitsRow:
        return LogitsRow(self._logits.row(output), n_top)

    def _forbid(self, output: int, mask: bytes) -> None:
        """Take the probability of all tokens whose bit is 0."""
        bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), count=self.info.n_vocab, bitorder="little")
        self._logits.row(output)[bits == 0] = -np.inf

    def release(self, slot: int) -> None:
        self._cells.release(slot)

    def copy(self, source: int, slot: int, n_cells: int) -> None:
        self._cells.copy(source, slot, 0, n_cells)

    def trim(self, slot: int, n_cells: int) -> None:
        if not self._cells.trim(slot, n_cells):
            raise BackendError(f"llama_memory_seq_rm could not cut sequence {slot} to {n_cells} cells")

    def cells(self, slot: int) -> int:
        return self._cells.count(slot)

    def save(self, slot: int) -> memoryview:
        return self._cells.save(slot)

    def state_key(self) -> bytes:
        from kolosal.engines.worker.llamacpp.state_key import state_key  # noqa: PLC0415 - only files need it

        assert self._loaded is not None  # noqa: S101 - it is not closed
        return state_key(self._config, self._loaded)

    def restore(self, slot: int, state: memoryview) -> None:
        if not self._cells.append(slot, state):
            raise RestoreFailed(f"llama_state_seq_set_data took no state of {len(state)} bytes")

    def _try(self) -> None:
        """Read some text and generate a token: what the file gets wrong ends the load, and not the first request.

        Raises:
            LoadError: the model cannot do that.
        """
        if native.llama_vocab_type(self._vocab) == native.LLAMA_VOCAB_TYPE_NONE:
            raise LoadError("The model has no vocabulary, and cannot read text")
        tokens = self.tokenize(_TRIED_TEXT, add_special=True, parse_special=False)
        if not self.info.can_generate:
            return
        token = tokens[0] if tokens else 0
        self._batch.clear()
        self._batch.add(0, 0, [token], 1)
        small = self.info.size_bytes <= _SMALL_BYTES
        n_threads, n_threads_batch = self.info.n_threads, self.info.n_threads_batch
        native.llama_set_n_threads(self._context, *((1, 1) if small else (n_threads, n_threads_batch)))
        result = native.llama_decode(self._context, self._batch.struct)
        native.llama_set_n_threads(self._context, n_threads, n_threads_batch)
        if result != 0:
            raise LoadError(f"The model cannot be used: llama_decode failed with {result} on a first token")
        self._logits.begin(1, all_greedy=False)
        row = self._logits.row(0)
        if np.isnan(row).any():
            raise LoadError(
                "The model cannot be used: what it computes are no numbers (NaN), so its weights or"
                " parameters are damaged"
            )
        self._piece(int(row.argmax()), special=True)
        native.llama_memory_clear(self._memory, False)  # zeros in every cell would make all of them resident
        if self._draft is not None:
            self._draft.try_out(token)

    def close(self) -> None:
        if self._draft is not None:
            self._draft.close()
        self._prefill_context.close()
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None


def _is_greedy(chunk: Chunk) -> bool:
    """Whether of its rows only the most probable tokens are wanted, and nothing changes them before."""
    sequence = chunk.sequence
    sampler = sequence.sampler
    return sequence.constraint is None and isinstance(sampler, GreedySampler) and sampler.bias is None


def _fim_tokens(vocab: object) -> FimTokens:
    """Found by llama.cpp by their metadata or by how they are written."""
    asked = (
        native.llama_vocab_fim_pre,
        native.llama_vocab_fim_suf,
        native.llama_vocab_fim_mid,
        native.llama_vocab_fim_rep,
        native.llama_vocab_fim_sep,
    )
    found = (int(ask(vocab)) for ask in asked)
    return FimTokens(*(token if token >= 0 else None for token in found))


def _bos(vocab: object) -> int:
    return int(native.llama_vocab_bos(vocab))


def _eos(vocab: object) -> int:
    return int(native.llama_vocab_eos(vocab))
