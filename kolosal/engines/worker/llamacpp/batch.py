"""LlamaBatch: the tokens of one `llama_decode`, laid out where llama.cpp reads them."""

from __future__ import annotations

import ctypes

import numpy as np

from kolosal.engines.worker.llamacpp.native import native


class LlamaBatch:
    """A `llama_batch` whose arrays are ours, seen through numpy: filling it allocates nothing per token."""

    def __init__(self, capacity: int, *, guard: int = 0) -> None:
        """`guard`: from a sequence id to its guard, to which its tokens belong as well (`cells.py`); 0 for none."""
        self._guard = guard
        n_ids = 2 if guard else 1
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._n_slots = np.full(capacity, n_ids, dtype=np.int32)
        self._slots = np.zeros((capacity, n_ids), dtype=np.int32)
        self._wants = np.zeros(capacity, dtype=np.int8)
        self._counting = np.arange(capacity, dtype=np.int32)
        first = self._slots.ctypes.data
        self._slot_pointers = np.arange(first, first + 4 * n_ids * capacity, 4 * n_ids, dtype=np.uintp)
        self.struct = native.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, native.llama_token),
            embd=None,
            pos=_pointer(self._positions, native.llama_pos),
            n_seq_id=_pointer(self._n_slots, ctypes.c_int32),
            seq_id=_pointer(self._slot_pointers, ctypes.POINTER(native.llama_seq_id)),
            logits=_pointer(self._wants, ctypes.c_int8),
        )
        """What `llama_decode` takes; valid as long as this object."""

    def clear(self) -> None:
        """Take all tokens out."""
        self.struct.n_tokens = 0

    def add(self, slot: int, start: int, tokens: list[int], n_outputs: int) -> None:
        """Append tokens of a sequence id, from position `start`; the last `n_outputs` get a row of logits each."""
        row, count = self.struct.n_tokens, len(tokens)
        end = row + count
        if count == 1:  # most steps are nothing else
            self._tokens[row] = tokens[0]
            self._positions[row] = start
            self._slots[row, 0] = slot
            self._wants[row] = n_outputs
        else:
            self._tokens[row:end] = tokens
            np.add(self._counting[:count], start, out=self._positions[row:end])
            self._slots[row:end, 0] = slot
            self._wants[row:end] = 0
            self._wants[end - n_outputs : end] = 1
        if self._guard:
            self._slots[row:end, 1] = slot + self._guard
        self.struct.n_tokens = end


def _pointer(array: np.ndarray, of: type) -> object:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(of))
