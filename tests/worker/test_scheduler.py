from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kolosal.engines.worker.detokenize import TextStream
from kolosal.engines.worker.fake import FakeSampler
from kolosal.engines.worker.kvcache import KVCache
from kolosal.engines.worker.scheduler import (
    PREFILL_TOKENS_ALONE,
    PREFILL_TOKENS_BESIDE_DECODE,
    Plan,
    Scheduler,
)
from kolosal.engines.worker.sequence import Sequence

TOKEN = 1
"""Every token of these tests: the scheduler never looks at one."""


def make_sequence(request_id: int, n_prompt: int, max_length: int = 10_000) -> Sequence:
    return Sequence(
        request_id, [TOKEN] * n_prompt, max_length=max_length, sampler=FakeSampler(), text=TextStream()
    )


class Bench:
    """A scheduler and the steps of an engine loop that never fails."""

    def __init__(self, n_cells: int = 10_000, n_slots: int = 4, n_batch: int = 2048) -> None:
        self.cache = KVCache(n_cells, n_slots)
        self.scheduler = Scheduler(self.cache, n_batch=n_batch)
        self.added = 0

    def add(self, n_prompt: int) -> Sequence:
        self.added += 1
        sequence = make_sequence(self.added, n_prompt)
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> Plan:
        """One step; every sequence that is asked for output gets a token."""
        plan = self.scheduler.schedule()
        wanting = [chunk.sequence for chunk in plan.chunks if chunk.wants_output]
        self.scheduler.commit(plan)
        for sequence in wanting:
            sequence.tokens.append(TOKEN)
        return plan

    def add_decoding(self, n_prompt: int) -> Sequence:
        """A sequence whose prompt is computed."""
        sequence = self.add(n_prompt)
        while len(sequence.tokens) == n_prompt:
            self.step()
        return sequence


def counts(plan: Plan) -> dict[int, int]:
    """Tokens per request."""
    return {chunk.sequence.request_id: chunk.count for chunk in plan.chunks}


# --- rule 1: every decoding sequence gets its one token ---


def test_decoding_sequences_get_one_token_each() -> None:
    bench = Bench()
    bench.add_decoding(10)
    bench.add_decoding(20)

    assert counts(bench.step()) == {1: 1, 2: 1}


def test_decoding_sequence_does_not_wait_for_a_long_prompt() -> None:
    bench = Bench()
    bench.add_decoding(10)
    bench.add(5000)

    assert [counts(bench.step())[1] for _ in range(10)] == [1] * 10


def test_decoding_goes_before_prompts_where_the_batch_is_small() -> None:
    bench = Bench(n_batch=4)
    for _ in range(3):
        bench.add_decoding(1)
    bench.add(100)

    assert counts(bench.step()) == {1: 1, 2: 1, 3: 1, 4: 1}


# --- rule 2: the youngest is preempted where cells run out ---


def full_bench() -> Bench:
    """Three decoding sequences and no free cell."""
    bench = Bench(n_cells=33)
    for _ in range(3):
        bench.add(10)
    for _ in range(2):  # 30 cells of prompt, then 3 of answers
        bench.step()
    assert bench.cache.free_cells == 0
    return bench


def test_youngest_is_preempted_where_cells_run_out() -> None:
    bench = full_bench()
    bench.step()

    assert [sequence.request_id for sequence in bench.scheduler.running] == [1, 2]


def test_sequence_id_of_the_preempted_is_released() -> None:
    bench = full_bench()
    slot = bench.scheduler.running[-1].slot

    assert bench.step().released == [slot]


def test_preempted_sequence_keeps_its_tokens() -> None:
    bench = full_bench()
    youngest = bench.scheduler.running[-1]
    bench.step()

    assert (len(youngest.tokens), youngest.n_computed, youngest.slot) == (12, 0, None)


def test_preempted_sequence_waits_at_the_head_of_the_queue() -> None:
    bench = full_bench()
    bench.add(1)
    bench.step()

    assert [sequence.request_id for sequence in bench.scheduler.waiting] == [3, 4]


def test_two_preempted_sequences_keep_their_order() -> None:
    bench = full_bench()
    bench.scheduler.preempt_youngest()
    bench.scheduler.preempt_youngest()

    assert [sequence.request_id for sequence in bench.scheduler.waiting] == [2, 3]


def test_preempted_sequence_computes_all_its_tokens_again() -> None:
    bench = full_bench()
    bench.step()
    for sequence in bench.scheduler.running:
        bench.scheduler.remove(sequence)

    assert counts(bench.step()) == {3: 12}


def test_sequence_alone_is_not_preempted() -> None:
    bench = Bench()
    bench.add_decoding(10)

    assert bench.scheduler.preempt_youngest() is None


def test_nobody_is_preempted_where_nobody_runs() -> None:
    assert Bench().scheduler.preempt_youngest() is None


def test_prompts_that_began_together_and_do_not_fit_do_not_block_each_other() -> None:
    bench = Bench(n_cells=100)
    first, second = bench.add(60), bench.add(30)
    bench.step()
    first.tokens += [TOKEN] * 20  # as though they had been admitted with less room than they need
    second.tokens += [TOKEN] * 20
    bench.step()

    assert counts(bench.step()) == {1: 11}


# --- rule 3: prompts get what is left, oldest first, in chunks ---


def test_prompt_alone_is_computed_in_large_chunks() -> None:
    bench = Bench()
    bench.add(PREFILL_TOKENS_ALONE + 100)

    assert [counts(bench.step()) for _ in range(2)] == [{1: PREFILL_TOKENS_ALONE}, {1: 100}]


def test_prompt_beside_decoding_is_computed_in_small_chunks() -> None:
    bench = Bench()
    bench.add_decoding(10)
    bench.add(PREFILL_TOKENS_BESIDE_DECODE + 100)

    assert [counts(bench.step())[2] for _ in range(2)] == [PREFILL_TOKENS_BESIDE_DECODE, 100]


def test_older_prompt_goes_first() -> None:
    bench = Bench()
    bench.add(PREFILL_TOKENS_ALONE - 10)
    bench.add(PREFILL_TOKENS_ALONE)

    assert counts(bench.step()) == {1: PREFILL_TOKENS_ALONE - 10, 2: 10}


def test_step_never_exceeds_the_batch() -> None:
    bench = Bench(n_batch=64)
    bench.add(100)
    bench.add(100)

    assert bench.step().n_tokens == 64


def test_output_is_wanted_at_the_last_token_of_the_prompt_only() -> None:
    bench = Bench()
    bench.add(PREFILL_TOKENS_ALONE + 1)

    assert [bench.scheduler.schedule().chunks[0].wants_output, bench.step().chunks[0].wants_output] == [
        False,
        False,
    ]


def test_last_chunk_of_a_prompt_wants_output() -> None:
    bench = Bench()
    bench.add(PREFILL_TOKENS_ALONE + 1)
    bench.step()

    assert bench.scheduler.schedule().chunks[0].wants_output


# --- rule 4: admission in order, with a sequence id and room ---


def test_sequences_beyond_the_ids_wait() -> None:
    bench = Bench(n_slots=2)
    for _ in range(3):
        bench.add(10)
    bench.step()

    assert [sequence.request_id for sequence in bench.scheduler.waiting] == [3]


def test_waiting_sequence_is_admitted_when_an_id_is_given_back() -> None:
    bench = Bench(n_slots=1)
    first, second = bench.add(10), bench.add(10)
    bench.step()
    bench.scheduler.remove(first)
    bench.step()

    assert bench.scheduler.running == (second,)


def test_prompt_without_room_waits() -> None:
    bench = Bench(n_cells=100)
    bench.add(60)
    bench.add(50)

    assert counts(bench.step()) == {1: 60}


def test_later_prompt_that_would_fit_does_not_overtake() -> None:
    bench = Bench(n_cells=100)
    bench.add(60)
    bench.add(50)
    bench.add(1)

    assert counts(bench.step()) == {1: 60}


def test_room_promised_to_a_half_computed_prompt_is_not_given_away() -> None:
    bench = Bench(n_cells=PREFILL_TOKENS_ALONE + 200)
    bench.add(PREFILL_TOKENS_ALONE + 150)
    bench.add(100)

    assert [counts(bench.step()) for _ in range(2)] == [{1: PREFILL_TOKENS_ALONE}, {1: 150}]


# --- the queue ---


def test_no_work_is_an_empty_plan() -> None:
    assert Bench().scheduler.schedule() == Plan()


def test_waiting_sequence_is_found() -> None:
    bench = Bench()
    sequence = bench.add(10)

    assert bench.scheduler.find(1) is sequence


def test_running_sequence_is_found() -> None:
    bench = Bench()
    sequence = bench.add_decoding(10)

    assert bench.scheduler.find(1) is sequence


def test_ended_sequence_is_not_found() -> None:
    bench = Bench()
    bench.scheduler.remove(bench.add_decoding(10))

    assert bench.scheduler.find(1) is None


def test_removed_running_sequence_gives_its_id_and_cells_back() -> None:
    bench = Bench(n_cells=100)
    sequence = bench.add_decoding(10)
    slot = sequence.slot

    assert (bench.scheduler.remove(sequence), bench.cache.free_cells) == (slot, 100)


def test_removed_waiting_sequence_has_no_id_to_release() -> None:
    bench = Bench()

    assert bench.scheduler.remove(bench.add(10)) is None


def test_there_is_no_work_after_the_last_sequence() -> None:
    bench = Bench()
    bench.scheduler.remove(bench.add_decoding(10))

    assert not bench.scheduler.has_work


@pytest.mark.parametrize(
    "n_prompt", [1, 2, PREFILL_TOKENS_ALONE - 1, PREFILL_TOKENS_ALONE, PREFILL_TOKENS_ALONE + 1]
)
def test_prompt_of_any_length_comes_to_decode(n_prompt: int) -> None:
    assert Bench().add_decoding(n_prompt).n_computed == n_prompt


# --- all together ---


class SchedulerMachine(RuleBasedStateMachine):
    """The engine loop's part played by hand, against a dict of lists for llama.cpp's memory."""

    @initialize(n_cells=st.integers(8, 60), n_slots=st.integers(1, 5), spare=st.integers(0, 30))
    def start(self, n_cells: int, n_slots: int, spare: int) -> None:
        self.n_cells = n_cells
        self.n_batch = n_slots + spare
        self.cache = KVCache(n_cells, n_slots)
        self.scheduler = Scheduler(self.cache, n_batch=self.n_batch)
        self.memory: dict[int, list[int]] = {}
        self.submitted: list[Sequence] = []
        self.endings: Counter[int] = Counter()
        self.steps = 0

    # --- what may happen ---

    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        n_prompt = data.draw(st.integers(1, self.n_cells - 1))
        max_length = data.draw(st.integers(n_prompt + 1, self.n_cells))
        sequence = make_sequence(len(self.submitted) + 1, n_prompt, max_length)
        self.submitted.append(sequence)
        self.scheduler.add(sequence)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        """Of any request, ended or not."""
        sequence = self.scheduler.find(data.draw(st.integers(1, len(self.submitted))))
        if sequence is not None:
            self.end(sequence)

    @rule()
    def step(self) -> None:
        plan = self.plan()
        for chunk in plan.chunks:
            tokens = chunk.sequence.tokens[chunk.start : chunk.start + chunk.count]
            self.memory.setdefault(chunk.slot, []).extend(tokens)
        self.scheduler.commit(plan)
        for chunk in plan.chunks:
            if chunk.wants_output:
                self.extend(chunk.sequence)

    @rule()
    def step_without_room(self) -> None:
        """`llama_decode` returns 1."""
        plan = self.plan()
        if not plan.chunks:
            return
        slot = self.scheduler.preempt_youngest()
        if slot is None:
            self.end(plan.chunks[0].sequence)
        else:
            self.memory.pop(slot, None)

    @rule()
    def step_that_fails(self) -> None:
        """`llama_decode` returns less than 0."""
        for chunk in self.plan().chunks:
            self.memory.setdefault(chunk.slot, []).append(TOKEN)  # what it left is undefined
            self.end(chunk.sequence)

    # --- how ---

    def plan(self) -> Plan:
        had_work = self.scheduler.has_work
        plan = self.scheduler.schedule()
        for slot in plan.released:
            self.memory.pop(slot, None)
        assert bool(plan.chunks) == had_work, "work and nothing to do"
        assert plan.n_tokens == sum(chunk.count for chunk in plan.chunks)
        assert plan.n_tokens <= self.n_batch
        assert plan.n_tokens <= self.n_cells - sum(map(len, self.memory.values()))
        assert max(Counter(chunk.slot for chunk in plan.chunks).values(), default=1) == 1
        for chunk in plan.chunks:
            assert chunk.count > 0
            assert chunk.slot == chunk.sequence.slot
            assert chunk.start == len(self.memory.get(chunk.slot, ()))
        planned = {chunk.sequence.request_id for chunk in plan.chunks}
        assert planned >= {s.request_id for s in self.scheduler.running if s.decoding}
        return plan

    def extend(self, sequence: Sequence) -> None:
        sequence.tokens.append(TOKEN)
        if len(sequence.tokens) >= sequence.max_length:
            self.end(sequence)

    def end(self, sequence: Sequence) -> None:
        self.endings[sequence.request_id] += 1
        slot = self.scheduler.remove(sequence)
        if slot is not None:
            self.memory.pop(slot, None)

    # --- what always holds ---

    @invariant()
    def books_equal_the_memory(self) -> None:
        self.cache.check_integrity(lambda slot: len(self.memory.get(slot, ())))

    @invariant()
    def oldest_run_and_youngest_wait(self) -> None:
        """First come, first served, also after a preemption."""
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
            self.step()
            self.books_equal_the_memory()
        assert not self.scheduler.has_work, "no progress"


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
