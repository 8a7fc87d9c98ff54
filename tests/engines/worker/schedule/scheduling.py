"""A scheduler with the engine loop's part played by hand, for its tests."""

from __future__ import annotations

from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.schedule.kv_cache import KVCache
from kolosal.engines.worker.schedule.limits import SchedulerLimits
from kolosal.engines.worker.schedule.plan import Plan
from kolosal.engines.worker.schedule.prefix_cache import PrefixCache
from kolosal.engines.worker.schedule.saved_sequences import SavedSequences
from kolosal.engines.worker.schedule.scheduler import Scheduler
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.speculative import Speculator
from kolosal.engines.worker.schedule.step_cost import StepCost, Work
from tests.fake_worker.backend import FakeSampler

N_PREFILL = 512


class FixedDrafts(Speculator):
    """Always drafts the same, whatever that costs."""

    __slots__ = ("_says",)

    def __init__(self, says: list[int]) -> None:
        super().__init__([], [])
        self._says = says

    def draft(
        self, cost: StepCost, work: Work, start: int, n_expected: float, room: int
    ) -> tuple[list[int], float]:
        return self._says[:room], 0.0


class Bench:
    """A scheduler and the steps of an engine loop that never fails."""

    def __init__(
        self,
        *,
        n_cells: int = 10_000,
        n_parallel: int = 4,
        n_batch: int = 2048,
        reuse: Reuse = Reuse.PREFIX,
        target_step_s: float = 0.15,
        cheap: bool = True,
        prefill_cells: int = 0,
        cell_s: float = 0.0,
        saved: SavedSequences | None = None,
    ) -> None:
        self.cache = KVCache(n_cells, 2 * n_parallel + 2)
        self.cost = StepCost()
        if cheap:
            self.cost.observe(Work(N_PREFILL), 0.001)
        self.slice_cost = StepCost()
        limits = SchedulerLimits(
            n_parallel=n_parallel,
            n_batch=n_batch,
            n_prefill=N_PREFILL,
            target_step_s=target_step_s,
            prefill_cells=prefill_cells,
            cell_s=cell_s,
        )
        self.scheduler = Scheduler(self.cache, PrefixCache(reuse), limits, self.cost, self.slice_cost, saved)
        self.added = 0

    def add(
        self, n_prompt: int, *, first: int = 0, priority: int = 0, max_length: int = 10_000, client: str = ""
    ) -> Sequence:
        """A sequence whose prompt is `first, 1, 2, 3, …`: those with the same `first` have a common prefix."""
        self.added += 1
        prompt = [first, *range(1, n_prompt)]
        sequence = Sequence(
            self.added,
            prompt,
            n_prompt,
            max_length=max_length,
            sampler=FakeSampler(),
            text=Detokenizer(),
            priority=priority,
            client=client,
        )
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> Plan:
        """One step; every sequence that is asked for output gets a token."""
        plan = self.scheduler.schedule()
        self.scheduler.commit(plan)
        for chunk in plan.chunks:
            if chunk.n_outputs:
                chunk.sequence.tokens.append(-chunk.sequence.request_id)
        return plan

    def prefills(self, at_most: int = 1000) -> list[tuple[int, int]]:
        """Chunks in the prefill context until it has no more to do: whose, and of how many tokens."""
        chunks: list[tuple[int, int]] = []
        while len(chunks) < at_most and (chunk := self.scheduler.begin_prefill()) is not None:
            self.scheduler.commit_prefill(chunk)
            chunks.append((chunk.sequence.request_id, len(chunk.tokens)))
        return chunks

    def add_decoding(self, n_prompt: int, *, first: int = 0, max_length: int = 10_000) -> Sequence:
        """A sequence whose prompt is computed."""
        sequence = self.add(n_prompt, first=first, max_length=max_length)
        while len(sequence.tokens) == n_prompt:
            self.step()
        return sequence

    def finish(self, sequence: Sequence, *, keep: bool = True) -> None:
        self.scheduler.finish(sequence, keep=keep)


def counts(plan: Plan) -> dict[int, int]:
    """Tokens per request."""
    return {chunk.sequence.request_id: len(chunk.tokens) for chunk in plan.chunks}


def slot_of(sequence: Sequence) -> int:
    """The sequence id of one that runs."""
    assert sequence.slot is not None
    return sequence.slot
