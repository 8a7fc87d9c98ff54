"""LlamaCppEmbedder: vectors by llama.cpp, in a second context on the weights of an engine.

Two kinds of models, two ways. Those that read from left to right take a text in small pieces, of which only the rows are
kept that count; so what llama.cpp reserves for logits, which nobody wants here, stays small. All others see a text only as
a whole and pool it themselves.

A context is made as large as the longest text so far needs, and larger when a longer one comes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any, NamedTuple

import numpy as np
import psutil

from kolosal.engines.ipc.messages import EngineInfo
from kolosal.engines.worker.backend import BackendError, OutOfMemory
from kolosal.engines.worker.llamacpp.batch import LlamaBatch
from kolosal.engines.worker.llamacpp.load import POOLING
from kolosal.engines.worker.llamacpp.native import native

MAX_INPUT_TOKENS = 8192
"""Tokens of one input, whatever the context window."""

_MAX_INPUTS = 16
"""Inputs of one batch: sequence ids of the context. Recurrent models have a state for each."""

_SMALLEST = 512
"""Tokens of the first context."""

_LOGITS = 16 * 1024 * 1024
"""Numbers (64 MiB) that the logits of one batch may take: llama.cpp has one for each token and each of the vocabulary."""


class _Piece(NamedTuple):
    """Consecutive tokens of one input."""

    slot: int
    start: int
    tokens: Seq[int]


class LlamaCppEmbedder:
    """See `Embedder` for the contract."""

    def __init__(self, model: Any, info: EngineInfo, *, in_pieces: bool) -> None:
        """`in_pieces`: the model reads from left to right and has a memory."""
        self._model = model
        self._info = info
        self._has_decoder = bool(native.llama_model_has_decoder(model))
        self._in_pieces = in_pieces and self._has_decoder
        self._ranks = info.pooling == "rank"
        self._context: Any = None
        self._capacity = 0
        self._batch = LlamaBatch(0)
        at_once = _LOGITS // max(info.n_vocab, 1)
        self._piece_tokens = min(max(at_once, 32), 512)
        self.max_tokens = min(info.n_ctx, info.n_ctx_train or info.n_ctx, MAX_INPUT_TOKENS)
        self.batch_tokens = self._piece_tokens if self._in_pieces else min(max(at_once, 64), 1024)
        self.batch_inputs = _MAX_INPUTS

    def pool(self, inputs: Seq[Seq[int]]) -> list[array[float]]:
        self._reserve(sum(map(len, inputs)))
        try:
            if self._in_pieces:
                return self._in_order(inputs)
            self._decode([_Piece(slot, 0, tokens) for slot, tokens in enumerate(inputs)])
            return [self._pooled(slot) for slot in range(len(inputs))]
        finally:
            memory = native.llama_get_memory(self._context)
            if memory:
                native.llama_memory_clear(memory, False)

    def close(self) -> None:
        if self._context is not None:
            native.llama_free(self._context)
            self._context = None
            self._capacity = 0

    def _in_order(self, inputs: Seq[Seq[int]]) -> list[array[float]]:
        sums = np.zeros((len(inputs), self._info.n_embd))
        scores: dict[int, array[float]] = {}
        for pieces in _batches(inputs, self._piece_tokens):
            self._decode(pieces)
            if self._ranks:  # a score is of the last token, so that of the last piece counts
                scores |= {piece.slot: self._pooled(piece.slot) for piece in pieces}
            else:
                self._add_rows(pieces, inputs, sums)
        if self._ranks:
            return [scores[slot] for slot in range(len(inputs))]
        return [array("f", row.astype(np.float32).tobytes()) for row in sums]

    def _add_rows(self, pieces: Seq[_Piece], inputs: Seq[Seq[int]], sums: np.ndarray) -> None:
        """Add what counts of the rows of the last batch to the sums of their inputs."""
        n_rows = sum(len(piece.tokens) for piece in pieces)
        rows = _numbers(native.llama_get_embeddings(self._context), n_rows * self._info.n_embd)
        rows = rows.reshape(n_rows, self._info.n_embd)
        at = 0
        for slot, start, tokens in pieces:
            mine = rows[at : at + len(tokens)]
            at += len(tokens)
            match self._info.pooling:
                case "mean":
                    sums[slot] += mine.sum(axis=0, dtype=np.float64) / len(inputs[slot])
                case "cls" if start == 0:
                    sums[slot] = mine[0]
                case "last" if start + len(tokens) == len(inputs[slot]):
                    sums[slot] = mine[-1]

    # --- the context ---

    def _decode(self, pieces: Seq[_Piece]) -> None:
        self._batch.clear()
        for slot, start, tokens in pieces:
            self._batch.add(slot, start, list(tokens), len(tokens))
        compute = native.llama_decode if self._has_decoder else native.llama_encode
        result = compute(self._context, self._batch.struct)
        if result == -2:  # it did not get memory
            raise OutOfMemory(f"There is no memory to compute {self._batch.struct.n_tokens} tokens at once")
        if result != 0:
            raise BackendError(f"llama.cpp's computation failed with {result}")

    def _pooled(self, slot: int) -> array[float]:
        pointer = native.llama_get_embeddings_seq(self._context, slot)
        count = 1 if self._ranks else self._info.n_embd
        return array("f", _numbers(pointer, count).tobytes())

    def _reserve(self, n_tokens: int) -> None:
        """Have a context for so many tokens at once."""
        if n_tokens <= self._capacity:
            return
        capacity = max(_SMALLEST, 1 << (n_tokens - 1).bit_length())
        self.close()
        settings = self._settings(capacity)
        # Linux hands out memory that it does not have for the logits, and then ends the process
        needed = 4 * settings.n_ubatch * (self._info.n_vocab + self._info.n_embd)
        if needed > _free_bytes():
            raise OutOfMemory(
                f"{settings.n_ubatch} tokens at once need {needed >> 20} MiB of memory, more than is free"
            )
        context = native.llama_init_from_model(self._model, settings)
        if not context:
            raise OutOfMemory(
                f"There is no memory for a context of {capacity} tokens beside that of the engine"
            )
        self._context, self._capacity = context, capacity
        self._batch = LlamaBatch(settings.n_batch)

    def _settings(self, capacity: int) -> native.llama_context_params:
        settings: native.llama_context_params = native.llama_context_default_params()
        settings.n_ctx = capacity
        settings.n_batch = settings.n_ubatch = self._piece_tokens if self._in_pieces else capacity
        settings.n_seq_max = _MAX_INPUTS
        settings.kv_unified = True
        settings.embeddings = True
        settings.pooling_type = (
            native.LLAMA_POOLING_TYPE_NONE
            if self._in_pieces and not self._ranks
            else POOLING[self._info.pooling]
        )
        # Half of the cores at most: the streams that run need theirs.
        settings.n_threads = settings.n_threads_batch = max(1, self._info.n_threads // 2)
        settings.no_perf = True
        return settings


def _batches(inputs: Seq[Seq[int]], size: int) -> Iterator[list[_Piece]]:
    """All tokens in their order, `size` at a time."""
    pieces: list[_Piece] = []
    room = size
    for slot, tokens in enumerate(inputs):
        start = 0
        while start < len(tokens):
            piece = tokens[start : start + room]
            pieces.append(_Piece(slot, start, piece))
            start += len(piece)
            room -= len(piece)
            if not room:
                yield pieces
                pieces, room = [], size
    if pieces:
        yield pieces


def _free_bytes() -> int:
    return int(psutil.virtual_memory().available)


def _numbers(pointer: Any, count: int) -> np.ndarray:
    """What llama.cpp computed; valid until the next call.

    Raises:
        BackendError: it computed nothing.
    """
    if not pointer:
        raise BackendError("llama.cpp gave no embeddings")
    return np.ctypeslib.as_array(pointer, shape=(count,))
