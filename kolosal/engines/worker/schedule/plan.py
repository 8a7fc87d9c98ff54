"""Plan: one step, as the scheduler wants it and the engine loop carries it out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from kolosal.engines.worker.schedule.saved_sequences import Saved
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.step_cost import Work, cells_seen


@dataclass(frozen=True, slots=True)
class Release:
    """Free all cells of a sequence id."""

    slot: int


@dataclass(frozen=True, slots=True)
class Copy:
    """Let `slot` see the first `n_cells` cells of `source`."""

    source: int
    slot: int
    n_cells: int


@dataclass(frozen=True, slots=True)
class Trim:
    """Free the cells of a sequence id but for the first `n_cells`."""

    slot: int
    n_cells: int


@dataclass(frozen=True, slots=True)
class Save:
    """Copy the cells of a sequence id to host memory before it gives some up."""

    slot: int
    saved: Saved


MemoryOp: TypeAlias = Release | Copy | Trim | Save


@dataclass(frozen=True, slots=True)
class Restore:
    """First `memory` in order, then cells of its own for `slot`, as they were saved; of them the first `n_cells` stay, which are
    those of a sequence that begins to run with them."""

    sequence: Sequence
    slot: int
    saved: Saved
    state: memoryview
    """What the entry had when this was planned: what is saved by `memory` may take its place."""
    n_cells: int
    memory: list[MemoryOp]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens of one sequence computed in one step, from position `start`. The last `n_outputs` of them get a row of logits,
    from which the token after them is sampled, or reported where it is the prompt's."""

    sequence: Sequence
    slot: int
    start: int
    tokens: list[int]
    n_outputs: int

    @property
    def n_prompt_rows(self) -> int:
        """How many of the rows, the first ones, are about tokens of the prompt."""
        before_first = self.start + len(self.tokens) - self.n_outputs
        return min(max(self.sequence.n_prompt - 1 - before_first, 0), self.n_outputs)


@dataclass(slots=True)
class Plan:
    """One step: first `memory` in order, then `chunks` in one batch."""

    chunks: list[Chunk] = field(default_factory=list)
    memory: list[MemoryOp] = field(default_factory=list)
    n_tokens: int = 0
    n_seen: int = 0
    n_cells: int = 0

    def add(self, chunk: Chunk) -> None:
        """Have the step compute a chunk."""
        count = len(chunk.tokens)
        self.chunks.append(chunk)
        self.n_tokens += count
        self.n_seen += cells_seen(chunk.start, count)
        self.n_cells += chunk.start + count

    @property
    def work(self) -> Work:
        return Work(self.n_tokens, self.n_seen, self.n_cells)
