"""Everything at once: random requests, drafts, aborts and a backend that has no room or fails, against sets of cells.

What must hold: no cell is counted twice and none is lost, every sequence sees the cells of its own tokens, every request
ends exactly once, and there is always progress.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.schedule.kv_cache import KVCache
from kolosal.engines.worker.schedule.plan import Copy, MemoryOp, Plan, Release
from kolosal.engines.worker.schedule.prefix_cache import PrefixCache
from kolosal.engines.worker.schedule.scheduler import Scheduler, SchedulerLimits
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.step_cost import StepCost
from tests.engines.worker.schedule.scheduling import FixedDrafts
from tests.fake_worker.backend import FakeSampler


class Cell:
    """One cell of the backend: identity counts, as several sequence ids may see it."""

    def __init__(self, token: int) -> None:
        self.token = token


class SchedulerMachine(RuleBasedStateMachine):
    """The engine loop's part played by hand, against a dict of lists for llama.cpp's memory."""

    @initialize(
        n_cells=st.integers(40, 200),
        n_parallel=st.integers(1, 5),
        spare_slots=st.integers(0, 6),
        spare_batch=st.integers(0, 60),
        reuse=st.sampled_from(Reuse),
        alike=st.booleans(),
    )
    def start(
        self, n_cells: int, n_parallel: int, spare_slots: int, spare_batch: int, reuse: Reuse, alike: bool
    ) -> None:
        self.n_cells, self.n_batch, self.reuse, self.alike = n_cells, n_parallel + spare_batch, reuse, alike
        self.cache = KVCache(n_cells, n_parallel + spare_slots)
        limits = SchedulerLimits(n_parallel=n_parallel, n_batch=self.n_batch, n_prefill=50, target_step_s=0.1)
        self.cost = StepCost()
        self.scheduler = Scheduler(self.cache, PrefixCache(reuse), limits, self.cost)
        self.memory: dict[int, list[Cell]] = {}
        self.submitted: list[Sequence] = []
        self.endings: Counter[int] = Counter()

    # --- what may happen ---

    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        number = len(self.submitted) + 1
        n_prompt = data.draw(st.integers(1, self.n_cells - 1))
        n_common = data.draw(st.integers(0, n_prompt)) if self.alike else 0
        prompt = [*range(n_common), *[-number] * (n_prompt - n_common)]
        sequence = Sequence(
            number,
            prompt,
            n_prompt,
            max_length=data.draw(st.integers(n_prompt + 1, self.n_cells)),
            sampler=FakeSampler(),
            text=Detokenizer(),
            priority=data.draw(st.integers(0, 1)) if self.alike else 0,
            use_cache=data.draw(st.integers(0, 4)) > 0,
            speculator=FixedDrafts([7] * data.draw(st.integers(0, 5)))
            if self.reuse is not Reuse.WHOLE
            else None,
        )
        self.submitted.append(sequence)
        self.scheduler.add(sequence)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        """Of any request, ended or not."""
        sequence = self.scheduler.find(data.draw(st.integers(1, len(self.submitted))))
        if sequence is not None:
            self.end(sequence, keep=True)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self.take_step(lambda n_drafted: data.draw(st.integers(0, n_drafted)))

    @rule()
    def step_without_room(self) -> None:
        """`llama_decode` returns 1."""
        plan = self.plan()
        if not plan.chunks:
            return
        if not self.scheduler.make_smaller(plan):
            self.end(plan.chunks[0].sequence, keep=False)
        self.change(plan.memory)

    @rule()
    def step_that_fails(self) -> None:
        """`llama_decode` returns less than 0."""
        for chunk in self.plan().chunks:
            self.end(chunk.sequence, keep=False)

    # --- how ---

    def take_step(self, n_accepted: object) -> None:
        plan = self.plan()
        for chunk in plan.chunks:
            self.memory.setdefault(chunk.slot, []).extend(Cell(token) for token in chunk.tokens)
        self.scheduler.commit(plan)
        if plan.n_tokens:
            self.cost.observe(plan.n_tokens, 0.01 + 0.001 * plan.n_tokens)
        for chunk in plan.chunks:
            if chunk.n_outputs:
                assert callable(n_accepted)
                self.sample(chunk.sequence, n_accepted(chunk.n_outputs - 1))

    def sample(self, sequence: Sequence, n_right: int) -> None:
        """A new token after as many accepted draft tokens; the cells of the others are cut off."""
        n_before = len(sequence.tokens)
        sequence.tokens += [*sequence.draft[:n_right], 1000 + sequence.request_id]
        sequence.n_computed = n_before + n_right
        n_cells = self.scheduler.trim(sequence)
        if n_cells is not None:
            assert sequence.slot is not None
            del self.memory[sequence.slot][n_cells:]
        if len(sequence.tokens) >= sequence.max_length:
            self.end(sequence, keep=True)

    def plan(self) -> Plan:
        had_work = self.scheduler.has_work
        plan = self.scheduler.schedule()
        self.change(plan.memory)
        assert bool(plan.chunks) == had_work, "work and nothing to do"
        assert plan.n_tokens == sum(len(chunk.tokens) for chunk in plan.chunks)
        assert plan.n_tokens <= self.n_batch
        assert plan.n_tokens <= self.n_cells - self.used()
        assert max(Counter(chunk.slot for chunk in plan.chunks).values(), default=1) == 1
        for chunk in plan.chunks:
            assert chunk.tokens
            assert chunk.slot == chunk.sequence.slot
            assert chunk.start == len(self.memory.get(chunk.slot, ()))
        return plan

    def change(self, operations: list[MemoryOp]) -> None:
        for operation in operations:
            match operation:
                case Release(slot=slot):
                    self.memory.pop(slot, None)
                case Copy(source=source, slot=slot, n_cells=n_cells):
                    assert not self.memory.get(slot), "copied over cells"
                    self.memory[slot] = self.memory[source][:n_cells]

    def end(self, sequence: Sequence, *, keep: bool) -> None:
        self.endings[sequence.request_id] += 1
        self.change(self.scheduler.finish(sequence, keep=keep))

    def used(self) -> int:
        return len({cell for cells in self.memory.values() for cell in cells})

    # --- what always holds ---

    @invariant()
    def books_equal_the_memory(self) -> None:
        self.cache.check_integrity(lambda slot: len(self.memory.get(slot, ())))
        assert self.cache.free_cells == self.n_cells - self.used()

    @invariant()
    def every_sequence_sees_the_cells_of_its_own_tokens(self) -> None:
        for sequence in self.scheduler.running:
            assert sequence.slot is not None
            seen = [cell.token for cell in self.memory.get(sequence.slot, ())]
            assert seen == sequence.tokens[: sequence.n_computed]

    @invariant()
    def oldest_run_and_youngest_wait(self) -> None:
        """First come, first served, also after a preemption, where no prefix is worth waiting for."""
        if not self.alike:
            known = [s.request_id for s in (*self.scheduler.running, *self.scheduler.waiting)]
            assert known == sorted(known)

    @invariant()
    def every_request_is_known_or_has_ended_once(self) -> None:
        known = Counter(s.request_id for s in (*self.scheduler.running, *self.scheduler.waiting))
        assert known + self.endings == Counter(range(1, len(self.submitted) + 1))

    @invariant()
    def running_sequences_have_ids_of_their_own(self) -> None:
        slots = [s.slot for s in self.scheduler.running]
        assert None not in slots
        assert len(slots) == len(set(slots))

    def teardown(self) -> None:
        """Without faults everything comes to its end."""
        if not hasattr(self, "scheduler"):
            return
        most = 10 * sum(sequence.max_length for sequence in self.submitted) + 1
        for _ in range(most):
            if not self.scheduler.has_work:
                break
            self.take_step(lambda n_drafted: n_drafted // 2)
            self.books_equal_the_memory()
        assert not self.scheduler.has_work, "no progress"


TestSchedulerMachine = SchedulerMachine.TestCase
