"""LongPrompts: which prompts the prefill context computes beside the steps, in which order and how much at a time.

Pure. One chunk is at work at a time; its cells are spoken for until it is committed, given up or dropped. A sequence whose
prompt is computed here is a running one as any other: after each chunk its cells are where a step would have put them.
"""

from __future__ import annotations

from collections.abc import Iterable

from kolosal.engines.worker.schedule.limits import TILE_TOKENS, SchedulerLimits
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.step_cost import StepCost, Work


class LongPrompts:
    """The chunk in the prefill context, and whose is next: in the order of steps."""

    def __init__(self, limits: SchedulerLimits, slice_cost: StepCost) -> None:
        self._limits = limits
        self._slice_cost = slice_cost
        self._last: Sequence | None = None  # of which a chunk was begun
        self.chunk: Chunk | None = None
        """What is at work."""

    @property
    def n_reserved(self) -> int:
        """Cells that the chunk at work will fill."""
        return 0 if self.chunk is None else len(self.chunk.tokens)

    def admit(self, sequence: Sequence) -> None:
        """Note whether a sequence that begins to run has a long prompt."""
        long = sequence.n_pending >= self._limits.least_apart
        sequence.apart = long and not sequence.wants_prompt_rows

    def among(self, prompts: Iterable[Sequence], room: int) -> list[Sequence]:
        """Those of the long prompts that are left to the prefill context, where a step has room for so many prompt tokens: those that
        would make the step longer, and the one that was begun there, whose last tokens are the dearest."""
        n_cells, n_prefill = self._limits.prefill_cells, self._limits.n_prefill
        return [
            each
            for each in prompts
            if self._is_at_work(each)
            or (
                (each is self._last or room < min(each.n_pending, n_prefill))
                and n_cells - each.n_computed >= TILE_TOKENS
            )
        ]

    def begin(self, prompts: list[Sequence], free_cells: int) -> Chunk | None:
        """The next chunk of the prompt that is due first; None where there is none, or no cell for it.

        The last token of a prompt is left to a step, so that no row of logits is needed here.
        """
        if self.chunk is not None or not prompts:
            return None
        sequence = min(prompts, key=lambda each: each.prefill_order)
        assert sequence.slot is not None  # noqa: S101 - it is running
        start = sequence.n_computed
        n_left = min(sequence.n_pending - 1, self._limits.prefill_cells - start)
        count = min(self._size(start, n_left), free_cells)
        if count > 0:
            tokens = sequence.tokens[start : start + count]
            self.chunk = Chunk(sequence, sequence.slot, start, tokens, n_outputs=0)
            self._last = sequence
        return self.chunk

    def _size(self, start: int, n_left: int) -> int:
        """Tokens of a chunk whose layers take no longer than the target time; as many as those of the chunks after it."""
        limits, cost = self._limits, self._slice_cost
        within = cost.tokens_within(limits.target_step_s, Work(), start=start, at_most=limits.n_prefill)
        n_chunks = -(-n_left // min(max(within, TILE_TOKENS), limits.n_prefill))
        return -(-n_left // n_chunks)

    def commit(self) -> None:
        """Note that the chunk at work was computed."""
        self.chunk = None

    def give_up(self) -> None:
        """Note that the chunk at work could not be computed: its sequence goes on in steps."""
        if self.chunk is not None:
            self.chunk.sequence.apart = False
        self.chunk = self._last = None

    def drop(self, sequence: Sequence) -> None:
        """Note that a sequence has ended or was preempted."""
        if self._is_at_work(sequence):
            self.chunk = None
        if sequence is self._last:
            self._last = None

    def _is_at_work(self, sequence: Sequence) -> bool:
        return self.chunk is not None and self.chunk.sequence is sequence
