"""Cells: the KV cells of a context by sequence id: shared, cut off, saved, restored, and kept from being overwritten.

llama.cpp lets a new token take the cell of one that a sliding window has left behind, as long as only one sequence id has it
(`llama_kv_cache::find_slot`), even with `swa_full`; then its sequence could neither be shared nor cut off at a place before that.
So with windows every token belongs to two ids: its sequence's, which it is computed by, and that one's guard, which nothing is
computed by. And a state of llama.cpp has only those cells that its window still sees, so one is saved in pieces of a window each.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

from kolosal.engines.worker.backend import BackendError
from kolosal.engines.worker.llamacpp.native import native

_HEAD_BYTES = 8
"""Before each piece of a state, its length: a little-endian integer."""


class Cells:
    """The cells of one context. Used on the engine thread."""

    def __init__(self, context: Any, *, window: int = 0, guard: int = 0, spare: int | None = None) -> None:
        """`window`: tokens that layers with a window see, where their cells are to be kept; `guard`: from a sequence id to its
        guard, 0 for none; `spare`: an id that nobody uses, through which cells are moved."""
        self._context = context
        self._memory = native.llama_get_memory(context)
        self._window, self._guard, self._spare = window, guard, spare

    def count(self, slot: int) -> int:
        """Tokens that the cells of a sequence id are for; fewer where the first of what should be kept are not there."""
        if not self._memory:  # of a model that cannot generate
            return 0
        last = int(native.llama_memory_seq_pos_max(self._memory, slot))
        first = int(native.llama_memory_seq_pos_min(self._memory, slot)) if self._guard else 0
        return last + 1 - max(first, 0)

    def release(self, slot: int) -> None:
        """Forget all cells of a sequence id."""
        self.trim(slot, -1)

    def trim(self, slot: int, n_cells: int) -> bool:
        """Forget the cells of a sequence id but for the first; False where that cannot be done."""
        removed = native.llama_memory_seq_rm(self._memory, slot, n_cells, -1)
        if self._guard:
            native.llama_memory_seq_rm(self._memory, slot + self._guard, n_cells, -1)
        return bool(removed)

    def copy(self, source: int, slot: int, start: int, end: int) -> None:
        """Let a sequence id see some cells of another one, too."""
        native.llama_memory_seq_cp(self._memory, source, slot, start, end)
        if self._guard:
            native.llama_memory_seq_cp(self._memory, source, slot + self._guard, start, end)

    def save(self, slot: int, start: int = 0, end: int = -1) -> memoryview:
        """A copy of the cells of a sequence id from position `start` to before `end`, -1 for the last one, for `append`.

        Raises:
            BackendError: llama.cpp gave another number of bytes than it had said.
        """
        sizes = [
            int(native.llama_state_seq_get_size(self._context, piece))
            for piece in self._pieces(slot, start, end)
        ]
        state = np.empty(sum(sizes) + _HEAD_BYTES * len(sizes), dtype=np.uint8)
        at = 0
        for size, piece in zip(sizes, self._pieces(slot, start, end), strict=True):
            state[at : at + _HEAD_BYTES] = np.frombuffer(size.to_bytes(_HEAD_BYTES, "little"), dtype=np.uint8)
            at += _HEAD_BYTES
            written = native.llama_state_seq_get_data(self._context, _pointer(state[at:]), size, piece)
            if written != size:
                raise BackendError(f"llama_state_seq_get_data gave {written} bytes of {size}")
            at += size
        return state.data

    def append(self, slot: int, state: memoryview, n_cells: int = 0) -> bool:
        """Put cells that were saved in a context of the same model and parameters behind the `n_cells` of a sequence id.

        False where there is no room for them, or they are of another context: it has what it had, then.
        """
        data = np.frombuffer(state, dtype=np.uint8)
        at = 0
        while at < data.size:
            size = int.from_bytes(data[at : at + _HEAD_BYTES].tobytes(), "little")
            piece = data[at + _HEAD_BYTES : at + _HEAD_BYTES + size]
            at += _HEAD_BYTES + size
            if piece.size != size or not self._put(slot, piece):
                self.trim(slot, n_cells or -1)
                return False
        return True

    def _put(self, slot: int, piece: np.ndarray[Any, np.dtype[np.uint8]]) -> bool:
        target = slot if self._spare is None else self._spare
        read = native.llama_state_seq_set_data(self._context, _pointer(piece), piece.size, target)
        if self._spare is not None:
            if read == piece.size:
                self.copy(target, slot, -1, -1)
            native.llama_memory_seq_rm(self._memory, target, -1, -1)
        return bool(read == piece.size)

    def _pieces(self, slot: int, start: int, end: int) -> Iterator[int]:
        """A sequence id for each piece of a range of cells: it has those of the piece until the next one is asked for."""
        if not self._window and (start, end) == (0, -1):
            yield slot
            return
        assert self._spare is not None  # noqa: S101 - parts are saved only where any cell can be shared
        end = self.count(slot) if end < 0 else end
        while start < end:
            until = min(end, (start // self._window + 1) * self._window) if self._window else end
            native.llama_memory_seq_cp(self._memory, slot, self._spare, start, until)
            try:
                yield self._spare
            finally:
                native.llama_memory_seq_rm(self._memory, self._spare, -1, -1)
            start = until


def _pointer(data: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    return ctypes.cast(data.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
