"""Everything at once: random requests, drafts, aborts, a prefill context, saved sequences and a backend that has no room or fails, against sets of cells.

What must hold: no cell is counted twice and none is lost, every sequence sees the cells of its own tokens, every request
ends exactly once, and there is always progress.
"""

from __future__ import annotations

from array import array
from collections import Counter
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.schedule.kv_cache import KVCache
from kolosal.engines.worker.schedule.limits import SchedulerLimits
from kolosal.engines.worker.schedule.plan import Chunk, Copy, MemoryOp, Plan, Release, Save, Trim
from kolosal.engines.worker.schedule.prefix_cache import PrefixCache
from kolosal.engines.worker.schedule.saved_sequences import SavedSequences
from kolosal.engines.worker.schedule.scheduler import Scheduler
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
        n_cells=st.integers(40, 400),
        n_parallel=st.integers(1, 5),
        spare_slots=st.integers(0, 6),
        spare_batch=st.integers(0, 60),
        reuse=st.sampled_from(Reuse),
        alike=st.booleans(),
        prefill_cells=st.sampled_from([0, 100, 400]),
        target_step_s=st.sampled_from([0.0, 0.0, 0.1]),
        saved_bytes=st.sampled_from([0, 2_000, 20_000]),
        most_holes=st.sampled_from([0, 50, 1000]),
    )
    def start(
        self,
        n_cells: int,
        n_parallel: int,
        spare_slots: int,
        spare_batch: int,
        reuse: Reuse,
        alike: bool,
        prefill_cells: int,
        target_step_s: float,
        saved_bytes: int,
        most_holes: int,
    ) -> None:
        self.n_cells, self.n_batch, self.reuse, self.alike = n_cells, n_parallel + spare_batch, reuse, alike
        self.cache = KVCache(n_cells, n_parallel + spare_slots)
        self.prefill_cells = prefill_cells = 0 if reuse is Reuse.WHOLE else prefill_cells
        limits = SchedulerLimits(
            n_parallel=n_parallel,
            n_batch=self.n_batch,
            n_prefill=50,
            target_step_s=target_step_s,
            prefill_cells=prefill_cells,
            least_apart=40,
            most_holes=most_holes,
        )
        self.cost = StepCost()
        self.saved, self.saved_bytes = SavedSequences(saved_bytes, reuse, least_tokens=4), saved_bytes
        controls = frozenset(range(0, n_cells, 70)) | {-1, -3}
        self.scheduler = Scheduler(
            self.cache, PrefixCache(reuse), limits, self.cost, StepCost(), self.saved, controls
        )
        self.n_files = 0
        self.files: dict[Path, bytes] = {}
        self.saved.keep_files(self.files.__delitem__)
        self.memory: dict[int, list[Cell]] = {}
        self.chunk: Chunk | None = None  # the prefill context's
        self.submitted: list[Sequence] = []
        self.endings: Counter[int] = Counter()

    # --- what may happen ---

    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        number = len(self.submitted) + 1
        n_prompt = data.draw(st.integers(1, self.n_cells - 1))
        n_common = data.draw(st.integers(0, n_prompt)) if self.alike else 0
        earlier = data.draw(st.sampled_from([None, *self.submitted])) if self.alike else None
        common = earlier.tokens if earlier is not None else [*range(n_common)]  # its next turn
        prompt = [*common[:n_prompt], *[-number] * (n_prompt - len(common))]
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
        self.begin_prefill()

    @rule()
    def step_without_room(self) -> None:
        """`llama_decode` returns 1."""
        plan = self.plan(has_room=False)
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

    @rule(fails=st.booleans())
    def write_a_file(self, fails: bool) -> None:
        """In one go; a disk may be full."""
        saved, state = self.saved.unwritten, None
        if saved is not None:
            state = saved.state
        elif (found := self.scheduler.begin_file()) is not None:
            slot, saved = found
            state = self.state_of(slot)
        if saved is None or state is None:
            return
        assert self.saved_tokens(state) == saved.tokens
        path = None if fails else Path(str(self.n_files))
        if path is not None:
            self.files[path] = state.tobytes()
            self.n_files += 1
        self.saved.written(saved, path)

    @precondition(lambda self: self.files)
    @rule()
    def lose_a_file(self) -> None:
        """Somebody damages it, which is noticed when it is read."""
        self.files[next(iter(self.files))] = b""

    def state_of(self, slot: int) -> memoryview:
        return memoryview(array("i", [cell.token for cell in self.memory[slot]]).tobytes())

    def begin_prefill(self) -> None:
        if self.wanted_chunk is None:
            self.chunk = self.scheduler.begin_prefill()
            if self.chunk is not None:
                assert self.chunk.tokens
                assert self.chunk.start == len(self.memory.get(self.chunk.slot, ()))
                assert self.chunk.start + len(self.chunk.tokens) <= self.prefill_cells

    @rule()
    def end_prefill(self) -> None:
        """The steps meanwhile have left room for its cells."""
        if (chunk := self.wanted_chunk) is not None:
            assert len(chunk.tokens) <= self.n_cells - self.used()
            self.memory.setdefault(chunk.slot, []).extend(Cell(token) for token in chunk.tokens)
            self.scheduler.commit_prefill(chunk)

    @rule()
    def prefill_that_fails(self) -> None:
        if self.wanted_chunk is not None:
            self.scheduler.give_up_prefill()

    # --- how ---

    @property
    def wanted_chunk(self) -> Chunk | None:
        return self.chunk if self.chunk is not None and self.scheduler.is_prefilling(self.chunk) else None

    def take_step(self, n_accepted: object) -> None:
        plan = self.plan()
        for chunk in plan.chunks:
            self.memory.setdefault(chunk.slot, []).extend(Cell(token) for token in chunk.tokens)
        self.scheduler.commit(plan)
        if plan.n_tokens:
            self.cost.observe(plan.work, 0.01 + 0.001 * plan.n_tokens + 1e-6 * plan.n_seen)
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

    def restore(self, *, has_room: bool) -> None:
        """What the loop does before each step. Without room llama.cpp takes no state."""
        restore = self.scheduler.begin_restore()
        while (wanted := self.scheduler.fetching) is not None:
            assert restore is None
            assert wanted.path is not None
            content = self.files[wanted.path]
            self.scheduler.fetched(memoryview(content) if content else None)
            restore = self.scheduler.begin_restore()
        if restore is None:
            return
        self.change(restore.memory)
        assert not self.memory.get(restore.slot), "restored over cells"
        if not has_room:
            self.scheduler.give_up_restore(restore)
            return
        tokens = self.saved_tokens(restore.state)
        assert len(tokens) <= self.n_cells - self.used()
        self.memory[restore.slot] = [Cell(token) for token in tokens][: restore.n_cells]
        assert self.reuse is Reuse.PREFIX or restore.n_cells == len(tokens)
        self.change(self.scheduler.commit_restore(restore))
        assert restore.sequence in self.scheduler.running

    @staticmethod
    def saved_tokens(state: memoryview) -> list[int]:
        return array("i", state.tobytes()).tolist()

    def plan(self, *, has_room: bool = True) -> Plan:
        self.restore(has_room=has_room)
        had_work = self.scheduler.has_work
        plan = self.scheduler.schedule()
        self.change(plan.memory)
        wanted = self.wanted_chunk
        assert bool(plan.chunks) == had_work or (wanted is not None and not plan.chunks), (
            "work and nothing to do"
        )
        n_reserved = 0 if wanted is None else len(wanted.tokens)
        assert plan.n_tokens == sum(len(chunk.tokens) for chunk in plan.chunks)
        assert plan.n_tokens <= self.n_batch
        assert plan.n_tokens <= self.n_cells - self.used() - n_reserved
        assert wanted is None or all(chunk.sequence is not wanted.sequence for chunk in plan.chunks)
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
                    assert self.reuse is not Reuse.WHOLE or n_cells == len(self.memory[source])
                    self.memory[slot] = self.memory[source][:n_cells]
                case Trim(slot=slot, n_cells=n_cells):
                    assert self.reuse is Reuse.PREFIX
                    del self.memory[slot][n_cells:]
                case Save(slot=slot, saved=saved):
                    self.saved.commit(saved, self.state_of(slot), 0.0)

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
    def saved_sequences_are_their_tokens_and_bounded(self) -> None:
        assert self.saved.n_bytes == sum(saved.n_bytes for saved in self.saved)
        assert self.saved.n_bytes <= self.saved_bytes + 12 * self.n_cells  # what was read last
        for saved in self.saved:
            assert saved.state is not None or saved.path is not None
            assert saved.state is None or self.saved_tokens(saved.state) == saved.tokens
        assert {saved.path for saved in self.saved} - {None} == self.files.keys()

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
            self.end_prefill()
            self.take_step(lambda n_drafted: n_drafted // 2)
            self.begin_prefill()
            self.books_equal_the_memory()
        assert not self.scheduler.has_work, "no progress"


TestSchedulerMachine = SchedulerMachine.TestCase
