"""KVCache: our books of what llama.cpp's memory holds.

Pure: it makes no native call and owns no memory. The engine loop keeps it equal to the backend, and
`check_integrity` proves it whenever the engine is idle. Cells belong to one sequence id each; when prefixes are shared,
this is the one place that has to learn to count a shared cell once.
"""

from __future__ import annotations

from collections.abc import Callable


class IntegrityError(Exception):
    """The books and the backend disagree: continuing could mix up the text of two users."""


class KVCache:
    """Counts `n_cells` cells over `n_slots` sequence ids."""

    def __init__(self, n_cells: int, n_slots: int) -> None:
        self.n_cells = n_cells
        self._lengths: dict[int, int] = {}
        self._free_slots = list(range(n_slots - 1, -1, -1))
        self._used = 0

    @property
    def free_cells(self) -> int:
        return self.n_cells - self._used

    @property
    def has_free_slot(self) -> bool:
        return bool(self._free_slots)

    def open(self) -> int:
        """Take a sequence id with no cells. The caller has asked `has_free_slot`."""
        slot = self._free_slots.pop()
        self._lengths[slot] = 0
        return slot

    def grow(self, slot: int, n_cells: int) -> None:
        """Note that a decode filled `n_cells` more cells of a sequence id."""
        if n_cells > self.free_cells:
            raise IntegrityError(f"{n_cells} cells filled where {self.free_cells} were free")
        self._lengths[slot] += n_cells
        self._used += n_cells

    def close(self, slot: int) -> None:
        """Give back a sequence id and its cells."""
        self._used -= self._lengths.pop(slot)
        self._free_slots.append(slot)

    def check_integrity(self, cells_of: Callable[[int], int]) -> None:
        """Compare with the backend, sequence id by sequence id.

        Raises:
            IntegrityError: they differ.
        """
        if self._used != sum(self._lengths.values()):
            raise IntegrityError(f"{self._used} cells in use, {sum(self._lengths.values())} accounted for")
        for slot in self._free_slots:
            if slot in self._lengths:
                raise IntegrityError(f"sequence id {slot} is free and in use")
            self._compare(slot, 0, cells_of(slot))
        for slot, length in self._lengths.items():
            self._compare(slot, length, cells_of(slot))

    @staticmethod
    def _compare(slot: int, ours: int, theirs: int) -> None:
        if ours != theirs:
            raise IntegrityError(f"sequence id {slot} has {theirs} cells, the books say {ours}")
