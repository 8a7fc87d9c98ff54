"""PrefillContext: a second context on an engine's weights, which reads long prompts and lets others work between its layers.

llama.cpp calls back between the operations of a graph that it is asked to stop at, outside of its parallel regions: there the
engine's own context can compute a step. What was read moves there chunk by chunk, so that its cells are in the books, and can be
shared, preempted and kept as any others. The context is made when it is first needed, as large as the prompt at hand wants it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import psutil

from kolosal.engines.memory.limits import HOST_RESERVE_BYTES, KV_CELL_STEP
from kolosal.engines.worker.backend import PrefillFailed
from kolosal.engines.worker.llamacpp.batch import LlamaBatch
from kolosal.engines.worker.llamacpp.cells import Cells
from kolosal.engines.worker.llamacpp.load import LoadedModel
from kolosal.engines.worker.llamacpp.native import native
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.engines.worker.schedule.sequence import Sequence

_LAYER_OUTPUT = b"l_out-"
"""How llama.cpp's graphs name what a layer hands to the next."""

_NO_LAYERS = "The layers of this model cannot be told apart"

_TENSOR_BYTES = 336
"""Size of a `ggml_tensor`, whose name is looked for in it: the bindings have no struct for it."""

_PROMPT, _SPARE = 0, 1
"""Sequence ids in this context: that of the prompt, and one through which its cells move."""

_NO_CELLS = "llama.cpp found no KV cells to move a prompt to"


class PrefillContext:
    """Used on the engine thread. `close` gives its memory back; it is made again when it is needed again."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self._context: Any = None
        self._memory: Any = None
        self._cells: Cells | None = None  # of the context
        self._capacity = 0
        self._sequence: Sequence | None = None  # whose cells it holds
        self._n_cells = 0
        self._batch = LlamaBatch(loaded.info.n_ubatch)
        self._name_at: int | None = None  # in a tensor; found with the first context
        self._has_layers = True
        self._between_layers: Callable[[], bool] = lambda: True
        self._failure: BaseException | None = None
        self._callback = native.ggml_backend_sched_eval_callback(self._on_node)

    def compute(self, chunk: Chunk, between_layers: Callable[[], bool]) -> bool:
        """See `Backend.prefill`."""
        if not self._has_layers:
            raise PrefillFailed(_NO_LAYERS)
        self._reserve(chunk.start + len(chunk.tokens))
        if self._sequence is not chunk.sequence or self._n_cells != chunk.start:
            self._fetch(chunk)
        go_on = True

        def between() -> bool:
            nonlocal go_on
            go_on = go_on and between_layers()
            return go_on

        self._batch.clear()
        self._batch.add(_PROMPT, chunk.start, chunk.tokens, 0)
        self._decode(between)
        if go_on:
            self._n_cells += len(chunk.tokens)
            self._move(chunk)
        else:
            native.llama_memory_seq_rm(self._memory, _PROMPT, chunk.start, -1)
        return go_on

    def close(self) -> None:
        self._sequence, self._n_cells, self._capacity = None, 0, 0
        if self._context is not None:
            native.llama_free(self._context)
            self._context = None

    # --- cells ---

    def _fetch(self, chunk: Chunk) -> None:
        """Have the cells before a chunk."""
        assert self._cells is not None  # noqa: S101 - there is a context
        self._sequence = None
        native.llama_memory_clear(self._memory, False)
        if chunk.start and not self._cells.append(_PROMPT, self._loaded.cells.save(chunk.slot)):
            raise PrefillFailed(_NO_CELLS)
        self._sequence, self._n_cells = chunk.sequence, chunk.start

    def _move(self, chunk: Chunk) -> None:
        """Put the cells of a chunk into the engine's context, behind those of its sequence."""
        assert self._cells is not None  # noqa: S101 - there is a context
        state = self._cells.save(_PROMPT, chunk.start, chunk.start + len(chunk.tokens))
        if not self._loaded.cells.append(chunk.slot, state, chunk.start):
            raise PrefillFailed(_NO_CELLS)

    # --- computing ---

    def _decode(self, between_layers: Callable[[], bool]) -> None:
        sequence, self._sequence = self._sequence, None  # until it is known that its cells are sound
        self._between_layers, self._failure = between_layers, None
        try:
            result = native.llama_decode(self._context, self._batch.struct)
        finally:
            self._between_layers = lambda: True
        if self._failure is not None:
            raise self._failure
        if result != 0:
            raise PrefillFailed(f"llama_decode failed with {result} in the prefill context")
        self._sequence = sequence

    def _on_node(self, tensor: int, asks: bool, _data: object) -> bool:
        """llama.cpp asks of each operation whether to stop after it, and then whether to go on. Nothing may be raised here."""
        if asks:
            if self._name_at is None:
                found = ctypes.string_at(tensor, _TENSOR_BYTES).find(_LAYER_OUTPUT)
                self._name_at = found if found >= 0 else None
                return False
            return ctypes.string_at(tensor + self._name_at, len(_LAYER_OUTPUT)) == _LAYER_OUTPUT
        try:
            return self._between_layers()
        except BaseException as exc:  # noqa: BLE001 - raised again behind llama.cpp's frames
            self._failure = exc
            return False

    # --- the context ---

    def _reserve(self, n_cells: int) -> None:
        """Have a context for so many cells."""
        if n_cells <= self._capacity:
            return
        self.close()
        capacity = KV_CELL_STEP
        while capacity < n_cells:
            capacity *= 2
        capacity = min(capacity, self._loaded.prefill_cells)
        # twice, as cells move through a buffer
        needed = 2 * capacity * self._loaded.bytes_per_cell + HOST_RESERVE_BYTES
        if needed > psutil.virtual_memory().available:
            raise PrefillFailed(f"There is no memory for a prefill context of {capacity} cells")
        settings = type(self._loaded.settings).from_buffer_copy(self._loaded.settings)
        settings.n_ctx, settings.n_seq_max, settings.n_outputs_max = capacity, 2, 2
        settings.n_batch = settings.n_ubatch
        settings.cb_eval = self._callback
        self._context = native.llama_init_from_model(self._loaded.model, settings)
        if not self._context:
            self._context = None
            raise PrefillFailed(f"llama.cpp made no prefill context of {capacity} cells")
        self._memory, self._capacity = native.llama_get_memory(self._context), capacity
        self._cells = Cells(self._context, window=self._loaded.window, spare=_SPARE)
        if self._name_at is None:
            self._find_layers()
            if self._name_at is None:
                self._has_layers = False
                self.close()
                raise PrefillFailed(_NO_LAYERS)

    def _find_layers(self) -> None:
        """Find where a tensor keeps its name, by looking at those of a first token."""
        self._batch.clear()
        self._batch.add(_PROMPT, 0, [0], 0)
        self._decode(lambda: True)
        native.llama_memory_clear(self._memory, False)
