"""KVCache: our account of what llama.cpp's unified memory holds, shared cells counted once.

Pure: it makes no native call and owns no memory. The engine loop keeps it equal to the backend, and `check_integrity`
proves it whenever the engine is idle.

Sequence ids that share a prefix share its cells. The account is a tree of spans, each span a run of cells held by the same
sequence ids; every sequence id points to the span its last cell is in:

    span(1100) ── span(40)  ← id 0          ids 0 and 1 share 1,100 cells: 1,100 + 40 + 25 are in use
               └─ span(25)  ← id 1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class IntegrityError(Exception):
    """Our account and the backend disagree: continuing could mix up the text of two users."""


class _Span:
    """A run of cells. `refs` counts the sequence ids that end here and the spans that begin here; `reach` is how many cells were in
    use when the last of them was filled."""

    __slots__ = ("length", "parent", "reach", "refs")

    def __init__(self, length: int, parent: _Span | None, reach: int) -> None:
        self.length = length
        self.parent = parent
        self.refs = 1
        self.reach = reach


class KVCache:
    """Counts `n_cells` cells over `n_slots` sequence ids."""

    def __init__(self, n_cells: int, n_slots: int) -> None:
        self.n_cells = n_cells
        self._free_slots = list(range(n_slots - 1, -1, -1))
        self._lengths: dict[int, int] = {}
        self._ends: dict[int, _Span | None] = {}
        self._used = 0
        self._most_reach = 0  # of all spans there were since `reaching_beyond` looked at them

    @property
    def free_cells(self) -> int:
        return self.n_cells - self._used

    @property
    def has_free_slot(self) -> bool:
        return bool(self._free_slots)

    def length(self, slot: int) -> int:
        """Cells a sequence id sees, shared ones included."""
        return self._lengths[slot]

    def open(self) -> int:
        """Take a sequence id with no cells. The caller has asked `has_free_slot`."""
        slot = self._free_slots.pop()
        self._lengths[slot] = 0
        self._ends[slot] = None
        return slot

    def share(self, source: int, slot: int, n_cells: int) -> None:
        """Let `slot`, which is empty, see the first `n_cells` cells of `source`. Takes no cell."""
        span = self._span_ending_at(source, n_cells)
        if span is not None:
            span.refs += 1
        self._ends[slot] = span
        self._lengths[slot] = n_cells

    def grow(self, slot: int, n_cells: int) -> None:
        """Note that a decode filled `n_cells` more cells of a sequence id."""
        if n_cells > self.free_cells:
            raise IntegrityError(f"{n_cells} cells filled where {self.free_cells} were free")
        end = self._ends[slot]
        self._used += n_cells
        if end is not None and end.refs == 1:
            end.length += n_cells
            end.reach = max(end.reach, self._used)
        else:  # what was our reference to `end` is now the new span's
            self._ends[slot] = _Span(n_cells, end, self._used)
        self._lengths[slot] += n_cells
        self._most_reach = max(self._most_reach, self._used)

    def trim(self, slot: int, n_cells: int) -> None:
        """Cut a sequence id to its first `n_cells` cells."""
        span = self._span_ending_at(slot, n_cells)
        if span is not None:
            span.refs += 1
        self._drop(self._ends[slot])
        self._ends[slot] = span
        self._lengths[slot] = n_cells

    def close(self, slot: int) -> None:
        """Give back a sequence id; cells nobody else sees become free."""
        self._drop(self._ends.pop(slot))
        del self._lengths[slot]
        self._free_slots.append(slot)

    def freed_by(self, slots: Iterable[int]) -> int:
        """Cells that would become free if all of these sequence ids were closed."""
        dropped: dict[_Span, int] = {}
        freed = 0
        for slot in slots:
            span = self._ends[slot]
            while span is not None:
                dropped[span] = dropped.get(span, 0) + 1
                if dropped[span] < span.refs:
                    break
                freed += span.length
                span = span.parent
        return freed

    def reaching_beyond(self, n_cells: int) -> list[int]:
        """Sequence ids with cells that lie so far from the first one of all, as far as that can be told: llama.cpp fills the first free
        ones, so none lies further than as many as were in use then."""
        if self._most_reach <= n_cells:
            return []
        reaches = {slot: self.reach(slot) for slot in self._ends}
        self._most_reach = max(reaches.values(), default=0)
        return [slot for slot, reach in reaches.items() if reach > n_cells]

    def reach(self, slot: int) -> int:
        """How far from the first cell of all those of a sequence id lie."""
        reach, span = 0, self._ends[slot]
        while span is not None:
            reach, span = max(reach, span.reach), span.parent
        return reach

    def check_integrity(self, cells_of: Callable[[int], int]) -> None:
        """Compare with the backend, sequence id by sequence id, and the tree with its own totals.

        Raises:
            IntegrityError: they differ.
        """
        spans: set[_Span] = set()
        for slot, end in self._ends.items():
            length, span = 0, end
            while span is not None:
                spans.add(span)
                length += span.length
                span = span.parent
            if length != self._lengths[slot]:
                raise IntegrityError(
                    f"sequence id {slot} has {self._lengths[slot]} cells in spans of {length}"
                )
            self._compare(slot, length, cells_of(slot))
        accounted = sum(span.length for span in spans)
        if self._used != accounted:
            raise IntegrityError(f"{self._used} cells in use, {accounted} accounted for")
        for slot in self._free_slots:
            if slot in self._ends:
                raise IntegrityError(f"sequence id {slot} is free and in use")
            self._compare(slot, 0, cells_of(slot))

    def _span_ending_at(self, slot: int, position: int) -> _Span | None:
        """The span whose last cell is the `position`-th of a sequence id; a longer span is split there."""
        if position == 0:
            return None
        span, end = self._ends[slot], self._lengths[slot]
        while span is not None and end - span.length >= position:
            end -= span.length
            span = span.parent
        if span is None or position > end:
            raise IntegrityError(f"sequence id {slot} has no cell {position}")
        if position < end:
            # its one reference is `span`'s
            upper = _Span(span.length - (end - position), span.parent, span.reach)
            span.length = end - position
            span.parent = upper
            return upper
        return span

    def _drop(self, span: _Span | None) -> None:
        """Take one reference from a span; a span without any frees its cells and its reference to its parent."""
        while span is not None:
            span.refs -= 1
            if span.refs:
                return
            self._used -= span.length
            span = span.parent

    @staticmethod
    def _compare(slot: int, ours: int, theirs: int) -> None:
        if ours != theirs:
            raise IntegrityError(f"sequence id {slot} has {theirs} cells, the books say {ours}")
