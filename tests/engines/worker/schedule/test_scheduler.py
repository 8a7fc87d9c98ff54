"""The rules of the scheduler, one by one; `test_scheduler_machine` has them all at once."""

from __future__ import annotations

import pytest

from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.schedule.eviction import UNCOUNTED_SHARE
from kolosal.engines.worker.schedule.limits import LEAST_APART_TOKENS, TILE_TOKENS
from kolosal.engines.worker.schedule.plan import Copy, Plan, Release, Save, Trim
from kolosal.engines.worker.schedule.saved_sequences import Saved, SavedSequences
from kolosal.engines.worker.schedule.scheduler import (
    LONE_STEP_S,
    MAX_DECODE_TOKENS,
    MIN_PREFILL_TOKENS,
    WORTH_WAITING_TOKENS,
)
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.step_cost import Work
from kolosal.engines.worker.schedule.waiting import MAX_CLIENTS
from tests.engines.worker.schedule.scheduling import N_PREFILL, Bench, FixedDrafts, counts, slot_of

# --- rule 1: every decoding sequence gets its token ---


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


def test_forced_tokens_are_computed_in_one_step() -> None:
    bench = Bench()
    sequence = bench.add_decoding(10)
    sequence.tokens += [1] * 5
    assert counts(bench.step()) == {1: 6}


def test_draft_tokens_are_computed_along() -> None:
    bench = Bench()
    sequence = bench.add_decoding(10)
    sequence.speculator = FixedDrafts([5, 6, 7])
    chunk = bench.scheduler.schedule().chunks[0]
    assert (chunk.tokens[1:], chunk.n_outputs) == ([5, 6, 7], 4)


def test_draft_tokens_take_only_free_cells() -> None:
    bench = Bench(n_cells=13)
    sequence = bench.add_decoding(10)
    sequence.speculator = FixedDrafts([5, 6, 7])
    assert len(bench.scheduler.schedule().chunks[0].tokens) == 3


def test_nothing_is_drafted_while_a_prompt_is_read() -> None:
    bench = Bench()
    sequence = bench.add_decoding(10)
    sequence.speculator = FixedDrafts([5, 6, 7])
    bench.add(2000, first=9)
    bench.step()
    assert counts(bench.step())[1] == 1


def test_drafts_end_before_the_longest_length() -> None:
    bench = Bench()
    sequence = bench.add_decoding(10, max_length=13)
    sequence.speculator = FixedDrafts([5, 6, 7])
    assert len(bench.scheduler.schedule().chunks[0].tokens) == 2


# --- rule 2: prompts get what is left ---


def test_prompt_alone_is_computed_in_large_chunks() -> None:
    bench = Bench()
    bench.add(N_PREFILL + 100)
    assert [counts(bench.step()) for _ in range(2)] == [{1: N_PREFILL}, {1: 100}]


def test_prompt_beside_decoding_keeps_the_step_near_its_target() -> None:
    bench = Bench(target_step_s=0.15, cheap=False)
    bench.cost.observe(Work(1), 0.010)
    bench.cost.observe(Work(201), 0.210)
    bench.add_decoding(10)
    bench.add(1000)
    assert counts(bench.step())[2] == pytest.approx(140, abs=2)


def test_prompt_alone_takes_no_longer_than_one_may_wait() -> None:
    bench = Bench(cheap=False)
    bench.cost.observe(Work(100), 0.5 * LONE_STEP_S)
    bench.add(1000)
    assert counts(bench.step()) == {1: 200}


def test_first_prompt_of_all_begins_with_a_small_step() -> None:
    bench = Bench(cheap=False)
    bench.add(1000)
    assert counts(bench.step()) == {1: TILE_TOKENS}


def test_prompt_goes_on_a_little_where_nothing_is_known_of_the_cost() -> None:
    bench = Bench(cheap=False)
    bench.add_decoding(10)
    bench.add(1000)
    assert counts(bench.step())[2] == MIN_PREFILL_TOKENS


def test_prompts_are_read_one_after_the_other_short_ones_first() -> None:
    bench = Bench()
    bench.add(700, first=1)
    bench.add(100, first=2)
    bench.add(600, first=3)
    steps = [counts(bench.step()) for _ in range(3)]
    assert steps[0] == {2: 100, 3: N_PREFILL - 100}
    assert steps[1] == {2: 1, 3: 188, 1: N_PREFILL - 188}
    assert steps[2] == {2: 1, 3: 1, 1: 700 - (N_PREFILL - 188)}


def test_prompt_waits_for_no_more_tokens_of_later_ones_than_it_has() -> None:
    bench = Bench(n_parallel=30)
    long = bench.add(2000, first=1)
    n_others = 0
    while long.n_pending > 1:
        bench.add(400, first=2 + n_others)
        n_others += 1
        bench.step()
    assert n_others <= (2000 + 2000) // N_PREFILL + 2


def test_step_never_exceeds_the_batch() -> None:
    bench = Bench(n_batch=64)
    bench.add(100, first=1)
    bench.add(100, first=2)
    assert bench.step().n_tokens == 64


def test_output_is_wanted_at_the_last_token_of_the_prompt_only() -> None:
    bench = Bench()
    bench.add(N_PREFILL + 1)
    assert [bench.step().chunks[0].n_outputs for _ in range(2)] == [0, 1]


# --- rule 3: admission ---


def test_sequences_beyond_the_parallel_ones_wait() -> None:
    bench = Bench(n_parallel=2)
    for first in (1, 2, 3):
        bench.add(10, first=first)
    bench.step()
    assert [sequence.request_id for sequence in bench.scheduler.waiting] == [3]


def test_higher_priority_starts_first() -> None:
    bench = Bench(n_parallel=1)
    bench.add(10, first=1)
    bench.add(10, first=2)
    urgent = bench.add(10, first=3, priority=1)
    bench.step()
    assert bench.scheduler.running == [urgent]


def test_later_prompt_that_would_fit_does_not_overtake() -> None:
    bench = Bench(n_cells=100)
    bench.add(60, first=1)
    bench.add(50, first=2)
    bench.add(1, first=3)
    assert counts(bench.step()) == {1: 60}


def nearly_done(bench: Bench, *left: int) -> None:
    """Streams that may have so many tokens more. A step of one to three takes 10 ms, with 32 prompt tokens 100 ms more."""
    for first, n_left in enumerate(left):
        bench.add_decoding(10, first=first, max_length=11 + n_left)
    for sequence in bench.scheduler.running:
        while len(sequence.tokens) < 11:
            bench.step()
        sequence.max_length = len(sequence.tokens) + left[sequence.request_id - 1]
    bench.cost.observe(Work(len(left)), 0.01)
    bench.cost.observe(Work(len(left) + 32), 0.11)


@pytest.mark.parametrize(
    ("left", "waits"),
    [
        ((5, 5), True),
        ((10,), True),  # as long as reading it would hold up the stream
        ((12,), False),
        ((12, 3), True),  # two would be held up for 0.1 s each
        ((16, 16), False),  # longer than a step should be
        ((3, 1000), False),  # one goes on
    ],
)
def test_prompt_waits_for_answers_that_end_sooner_than_it_would_hold_them_up(
    left: tuple[int, ...], *, waits: bool
) -> None:
    bench = Bench(target_step_s=0.15, cheap=False)
    nearly_done(bench, *left)
    prompt = bench.add(33, first=9)

    assert (prompt.request_id in counts(bench.step())) is not waits


def test_prompt_that_waited_is_read_with_those_that_came_meanwhile() -> None:
    bench = Bench(cheap=False)
    nearly_done(bench, 2)
    (stream,) = bench.scheduler.running
    bench.add(33, first=8)
    bench.step()
    bench.add(33, first=9)
    bench.finish(stream)

    assert counts(bench.step()) == {2: 33, 3: 33}


def test_room_promised_to_a_half_computed_prompt_is_not_given_away() -> None:
    bench = Bench(n_cells=N_PREFILL + 200)
    bench.add(N_PREFILL + 150, first=1)
    bench.add(100, first=2)
    assert [counts(bench.step()) for _ in range(2)] == [{1: N_PREFILL}, {1: 150}]


def test_a_running_sequences_cells_are_shared() -> None:
    bench = Bench()
    running = bench.add_decoding(100)
    bench.add(120)
    plan = bench.step()
    sharing = bench.scheduler.running[1]
    assert plan.memory == [Copy(slot_of(running), slot_of(sharing), 100)]
    assert counts(plan) == {1: 1, 2: 20}
    assert sharing.n_cached == 100


def test_requests_that_arrive_together_wait_for_the_first_to_compute_their_prefix() -> None:
    bench = Bench()
    for _ in range(3):
        bench.add(WORTH_WAITING_TOKENS + 10)
    assert counts(bench.step()) == {1: WORTH_WAITING_TOKENS + 10}
    assert counts(bench.step()) == {1: 1, 2: 1, 3: 1}


def test_one_with_another_prompt_overtakes_those_who_wait_for_a_prefix() -> None:
    bench = Bench()
    bench.add(100)
    bench.add(100)
    bench.add(50, first=7)
    assert counts(bench.step()) == {1: 100, 3: 50}


def test_a_finished_sequence_is_continued_where_it_ended() -> None:
    bench = Bench()
    finished = bench.add_decoding(50)
    slot = finished.slot
    bench.finish(finished)
    bench.add(80)
    plan = bench.step()
    assert (plan.memory, counts(plan)) == ([], {2: 30})
    assert bench.scheduler.running[0].slot == slot


def test_nothing_is_shared_where_the_memory_does_not_allow_it() -> None:
    bench = Bench(reuse=Reuse.NONE)
    bench.finish(bench.add_decoding(50))
    bench.add(80)
    plan = bench.step()
    assert counts(plan) == {2: 80}


# --- rule 4: pressure ---


def full_bench() -> Bench:
    """Three decoding sequences and no free cell."""
    bench = Bench(n_cells=33)
    for first in (1, 2, 3):
        bench.add(10, first=first)
    for _ in range(2):  # 30 cells of prompt, then 3 of answers
        bench.step()
    assert bench.cache.free_cells == 0
    return bench


def test_finished_sequences_go_before_running_ones() -> None:
    bench = Bench(n_cells=40)
    finished = bench.add_decoding(20, first=1)
    slot = slot_of(finished)
    bench.finish(finished)
    bench.add(39, first=2)
    plan = bench.step()
    assert plan.memory == [Release(slot)]
    assert counts(plan) == {2: 39}


def test_the_youngest_is_preempted_where_nothing_else_is_left() -> None:
    bench = full_bench()
    youngest = bench.scheduler.running[-1]
    slot = slot_of(youngest)
    plan = bench.step()
    assert plan.memory == [Release(slot)]
    assert list(bench.scheduler.waiting) == [youngest]
    assert (len(youngest.tokens), youngest.n_computed, youngest.slot) == (12, 0, None)


def test_the_lowest_priority_is_preempted_first() -> None:
    bench = Bench(n_cells=33)
    low = bench.add(10, first=1, priority=-1)
    bench.add(10, first=2)
    bench.add(10, first=3)
    for _ in range(3):
        bench.step()
    assert list(bench.scheduler.waiting) == [low]


def test_preempted_sequence_waits_before_those_that_never_ran() -> None:
    bench = full_bench()
    bench.add(1, first=4)
    bench.step()
    assert [sequence.request_id for sequence in bench.scheduler.waiting] == [3, 4]


def test_preempted_sequence_computes_all_its_tokens_again() -> None:
    bench = full_bench()
    bench.step()
    for sequence in list(bench.scheduler.running):
        bench.finish(sequence, keep=False)
    assert counts(bench.step()) == {3: 12}


def test_a_backend_with_less_room_than_the_books_gets_smaller_prompts() -> None:
    bench = Bench()
    bench.add(400)
    sizes = []
    for _ in range(3):
        plan = bench.scheduler.schedule()
        sizes.append(plan.n_tokens)
        assert bench.scheduler.make_smaller(plan)
    assert sizes == [400, 256, 128]


def test_a_sequence_alone_is_tried_again_a_few_times() -> None:
    bench = Bench()
    bench.add_decoding(10)
    tries = 0
    while bench.scheduler.make_smaller(bench.scheduler.schedule()):
        tries += 1
        assert tries < 20


# --- the queue ---


def test_no_work_is_an_empty_plan() -> None:
    assert Bench().scheduler.schedule() == Plan()


def test_finished_sequences_are_kept_where_there_is_no_work() -> None:
    """The engine loop asks for a step after every command, such as the abort of a request that has just ended."""
    bench = Bench()
    bench.finish(bench.add_decoding(100))
    assert bench.scheduler.schedule() == Plan()
    assert bench.cache.free_cells == bench.cache.n_cells - 100


def test_waiting_and_running_sequences_are_found_and_ended_ones_are_not() -> None:
    bench = Bench(n_parallel=1)
    running = bench.add_decoding(10, first=1)
    waiting = bench.add(10, first=2)
    assert (bench.scheduler.find(1), bench.scheduler.find(2)) == (running, waiting)
    bench.finish(running)
    assert bench.scheduler.find(1) is None


def test_finished_waiting_sequence_has_nothing_to_release() -> None:
    bench = Bench()
    assert bench.scheduler.finish(bench.add(10), keep=True) == []


def test_sequence_that_may_not_be_kept_gives_its_cells_back() -> None:
    bench = Bench(n_cells=100)
    bench.finish(bench.add_decoding(10), keep=False)
    assert bench.cache.free_cells == 100


@pytest.mark.parametrize(
    "n_prompt", [1, 2, MAX_DECODE_TOKENS, MAX_DECODE_TOKENS + 1, N_PREFILL - 1, N_PREFILL, N_PREFILL + 1]
)
def test_prompt_of_any_length_comes_to_decode(n_prompt: int) -> None:
    assert Bench().add_decoding(n_prompt).n_computed == n_prompt


# --- clients take turns ---


def started(bench: Bench) -> list[str]:
    """The clients in the order in which their sequences start, one at a time."""
    order = []
    while bench.scheduler.waiting:
        bench.step()
        [running] = bench.scheduler.running
        order.append(running.client)
        bench.scheduler.finish(running, keep=False)
    return order


def test_a_client_with_many_requests_does_not_hold_up_others() -> None:
    bench = Bench(n_parallel=1)
    for number in range(5):
        bench.add(10, first=number, client="a")
    bench.add(10, first=10, client="b")
    bench.add(10, first=11, client="b")
    assert started(bench) == ["a", "b", "a", "b", "a", "a", "a"]


def test_one_who_was_idle_has_saved_up_no_turns() -> None:
    bench = Bench(n_parallel=1)
    for number in range(20):
        bench.add(10, first=number, client="a")
    assert started(bench) == ["a"] * 20
    for number in range(3):
        bench.add(10, first=number, client="b")
        bench.add(10, first=number, client="a")
    assert started(bench) == ["b", "a"] * 3


def test_priority_comes_before_turns() -> None:
    bench = Bench(n_parallel=1)
    for number in range(3):
        bench.add(10, first=number, client="a", priority=1)
    bench.add(10, first=10, client="b")
    assert started(bench) == ["a", "a", "a", "b"]


def test_many_clients_cost_no_memory() -> None:
    bench = Bench(n_parallel=1)
    for number in range(5000):
        bench.scheduler.finish(bench.add(10, first=number, client=str(number)), keep=False)
        if number % 10 == 0:
            bench.add(10, first=number, client=str(number))
            started(bench)
    assert len(bench.scheduler.waiting._last_turns) <= MAX_CLIENTS + 1


# --- what finished sequences give up ---


def test_a_finished_sequence_gives_up_its_end_only() -> None:
    bench = Bench(n_cells=1000)
    finished = bench.add_decoding(800, first=1)
    slot = slot_of(finished)
    bench.finish(finished)
    bench.add(300, first=2)
    plan = bench.step()
    assert plan.memory == [Trim(slot, 700)]
    assert counts(plan) == {2: 300}


def test_memory_that_cannot_be_cut_is_given_up_whole() -> None:
    bench = Bench(n_cells=1000, reuse=Reuse.WHOLE)
    finished = bench.add_decoding(800, first=1)
    slot = slot_of(finished)
    bench.finish(finished)
    bench.add(300, first=2)
    first, *others = bench.step().memory
    assert first == Release(slot)
    assert all(isinstance(each, Release) for each in others)  # of its checkpoint


def test_prompts_with_one_beginning_wait_for_a_checkpoint_where_they_part() -> None:
    bench = Bench(n_parallel=3, reuse=Reuse.WHOLE)
    one = bench.add(900, first=1)
    assert counts(bench.step()) == {1: 512}
    others = [bench.add(700, first=1) for _ in range(2)]
    for other in others:
        other.tokens[650:] = [-1000 - other.request_id] * 50
    assert counts(bench.step()) == {1: 650 - 512}

    plan = bench.step()
    assert counts(plan) == {1: 249, 2: 50, 3: 50}
    assert [other.n_cached for other in (one, *others)] == [0, 650, 650]
    assert sum(isinstance(each, Copy) for each in plan.memory) == 3


def test_cells_that_others_see_are_not_cut_off_in_vain() -> None:
    """What is shared with a running sequence frees nothing."""
    bench = Bench(n_cells=1000)
    finished = bench.add_decoding(600, first=1)
    bench.add_decoding(650, first=1)
    slot = slot_of(finished)
    bench.finish(finished)
    bench.add(345, first=2)
    memory = [operation for _ in range(10) for operation in bench.step().memory]
    assert memory[0] == Release(slot)


def _one_offs(bench: Bench, n: int, n_prompt: int = 60) -> None:
    """Strangers who ask something, get ten tokens and go."""
    for number in range(n):
        asked = bench.add_decoding(n_prompt, first=-1000 - bench.added - number)
        for _ in range(10):
            bench.step()
        bench.finish(asked)


def _turn(bench: Bench, n_prompt: int, *, first: int) -> int:
    """A turn of a conversation; returns how many of its tokens were computed before."""
    turn = bench.add_decoding(n_prompt, first=first)
    for _ in range(20):
        bench.step()
    bench.finish(turn)
    return turn.n_cached or 0


@pytest.mark.parametrize("before", [0, 1, 3, 20, 50])
@pytest.mark.parametrize("between", [0, 1, 3, 20, 50])
def test_a_second_turn_is_found_whatever_strangers_ask(before: int, between: int) -> None:
    bench = Bench(n_cells=16_384)
    _one_offs(bench, before)
    _turn(bench, 1217, first=1)
    _one_offs(bench, between)
    assert _turn(bench, 1300, first=1) >= 1217


def test_two_agents_take_turns_in_a_pool_that_holds_just_both() -> None:
    bench = Bench(n_cells=16_384)
    shares = []
    for turn in range(6):
        for first in (1, 2):
            n_prompt = 7900 + 40 * turn
            shares.append(_turn(bench, n_prompt, first=first) / n_prompt)
            _one_offs(bench, 20)
    assert min(shares[2:]) > 0.9


@pytest.mark.parametrize(("cell_s", "stays"), [(1e-3, False), (1e-9, True), (0.0, True)])
def test_cells_that_would_make_a_long_prompt_dearer_than_they_are_go_before_it_is_read(
    cell_s: float, stays: bool
) -> None:
    bench = Bench(n_cells=4000, cell_s=cell_s)
    bench.finish(bench.add_decoding(600, first=1))
    bench.add(400, first=2)
    bench.step()
    assert bench.cache.n_cells - bench.cache.free_cells == (600 if stays else 0) + 400


def test_a_long_prompt_keeps_the_cells_that_it_begins_with() -> None:
    bench = Bench(n_cells=4000, cell_s=1e-3)
    bench.finish(bench.add_decoding(600))
    next_turn = bench.add(1200)
    bench.step()
    assert next_turn.n_cached == 600


def test_finished_sequences_that_outstay_go_where_they_are_many() -> None:
    """A running stream is not slowed for long by what nobody comes back for."""
    bench = Bench(n_cells=10_000)
    _one_offs(bench, 12, n_prompt=100)
    stream = bench.add_decoding(50, first=1)
    for _ in range(300):
        bench.step()
    kept = bench.cache.n_cells - bench.cache.free_cells - stream.n_computed
    assert 0 < kept <= UNCOUNTED_SHARE * bench.cache.n_cells


def test_what_one_step_saves_holds_up_nobody_for_longer_than_the_target() -> None:
    token_s = 1e-4
    saved = SavedSequences(1 << 30, Reuse.PREFIX)
    saved.observe(Saved([0] * 1000, ""), memoryview(bytes(8000)), 1000 * token_s)
    bench = Bench(n_parallel=8, cell_s=1e-3, target_step_s=0.15, saved=saved)
    bench.add_decoding(10)
    for sequence in [bench.add_decoding(600, first=first) for first in range(1, 6)]:
        bench.finish(sequence)
    n_saved = []
    for _ in range(12):
        saves = [each for each in bench.step().memory if isinstance(each, Save)]
        for each in saves:
            saved.commit(each.saved, memoryview(bytes(8 * 600)), 600 * token_s)
        n_saved.append(len(saves))
    assert max(n_saved) == 2
    assert sum(n_saved) == 5


def behind_a_long_one(n_prompt: int, *, finished: bool = False) -> tuple[Bench, Sequence]:
    """A sequence whose cells lie behind room for 5,000 that somebody has made."""
    bench = Bench()
    long = bench.add_decoding(5000, first=1)
    sequence = bench.add_decoding(n_prompt, first=2)
    if finished:
        bench.finish(sequence)
    bench.finish(long, keep=False)
    return bench, sequence


def test_cells_far_behind_those_in_use_are_not_shared() -> None:
    bench, _ = behind_a_long_one(200)
    newcomer = bench.add(200, first=2)
    bench.step()
    assert newcomer.n_cached == 0

    another = bench.add(200, first=2)
    bench.step()
    assert another.n_cached == 199, "of the one that lies at the front"


def test_short_sequences_far_behind_are_not_kept() -> None:
    bench, sequence = behind_a_long_one(200)
    bench.finish(sequence)
    assert bench.cache.free_cells == bench.cache.n_cells


def test_finished_sequences_far_behind_go_before_the_next_step() -> None:
    bench, _ = behind_a_long_one(200, finished=True)
    bench.add_decoding(10, first=3)
    assert bench.cache.n_cells - bench.cache.free_cells == 10


def test_sequence_far_behind_stays_for_a_prompt_that_goes_on_with_it() -> None:
    bench, _ = behind_a_long_one(200, finished=True)
    newcomer = bench.add(201, first=2)
    bench.step()
    assert newcomer.n_cached == 200


def test_long_sequence_far_behind_stays_where_it_cannot_be_saved() -> None:
    bench, _ = behind_a_long_one(300, finished=True)
    newcomer = bench.add(301, first=2)
    bench.step()
    assert newcomer.n_cached == 300


# --- the prefill context ---


def test_long_prompt_that_would_make_the_step_longer_is_left_to_the_prefill_context() -> None:
    bench = Bench(prefill_cells=4000, target_step_s=0)
    bench.add_decoding(10)
    long = bench.add(1000, first=1)
    assert counts(bench.step()) == {1: 1}
    chunk = bench.scheduler.begin_prefill()
    assert chunk is not None
    assert (chunk.sequence, chunk.start, chunk.n_outputs) == (long, 0, 0)
    assert counts(bench.step()) == {1: 1}, "beside it steps go on without"


def test_long_prompt_for_which_a_step_has_room_is_read_in_it() -> None:
    bench = Bench(prefill_cells=4000)
    bench.add_decoding(10)
    bench.add(1000, first=1)
    assert counts(bench.step()) == {1: 1, 2: N_PREFILL}
    assert bench.scheduler.begin_prefill() is None


def test_short_prompt_is_read_in_steps() -> None:
    bench = Bench(prefill_cells=4000, target_step_s=0)
    bench.add_decoding(10)
    bench.add(LEAST_APART_TOKENS - 1, first=1)
    assert counts(bench.step()) == {1: 1, 2: MIN_PREFILL_TOKENS}


def test_the_last_token_of_a_prompt_is_left_to_a_step() -> None:
    bench = Bench(prefill_cells=4000, target_step_s=0)
    bench.add_decoding(10)
    bench.add(1000, first=1)
    bench.step()
    assert sum(n_tokens for _, n_tokens in bench.prefills()) == 999
    assert counts(bench.step()) == {1: 1, 2: 1}


def test_chunks_are_as_large_as_a_layer_may_take_and_alike() -> None:
    bench = Bench(prefill_cells=4000, target_step_s=0.1, cheap=False)
    bench.add_decoding(10)
    bench.cost.observe(Work(1), 0.09)
    bench.slice_cost.observe(Work(100), 0.05)
    bench.add(501, first=1)
    bench.step()
    assert bench.prefills() == [(2, 167), (2, 167), (2, 166)]


def test_what_is_left_of_a_long_prompt_is_read_where_it_was_begun() -> None:
    bench = Bench(prefill_cells=4000, target_step_s=0.1, cheap=False)
    bench.add_decoding(10)
    bench.cost.observe(Work(1), 0.01)
    bench.cost.observe(Work(60), 0.02)  # a step has room for more than a tile
    bench.slice_cost.observe(Work(100), 0.1)
    bench.add(500, first=1)
    bench.step()
    assert [count for _, count in bench.prefills()] == [100, 100, 100, 100, 99]


def test_long_prompts_take_turns_short_ones_first() -> None:
    bench = Bench(prefill_cells=4000, target_step_s=0)
    bench.slice_cost.observe(Work(1000), 0.0)
    bench.add_decoding(10)
    for first, n_prompt in ((1, 2000), (2, 300), (3, 600)):
        bench.add(n_prompt, first=first)
    bench.step()
    assert [request_id for request_id, _ in bench.prefills()] == [3, 4, 4, 2, 2, 2, 2]


def test_long_prompt_waits_for_no_more_tokens_of_others_than_it_has() -> None:
    bench = Bench(prefill_cells=4000, target_step_s=0, n_parallel=20)
    bench.slice_cost.observe(Work(1000), 0.0)
    bench.add_decoding(10)
    bench.add(1000, first=1)
    order = []
    for first in range(2, 12):
        bench.add(301, first=first)
        bench.step()
        order += bench.prefills(1)
    assert [request_id for request_id, _ in order[:5]] == [3, 4, 5, 2, 2]


def test_prompt_whose_chunk_is_at_work_is_preempted_before_a_stream_takes_the_cells_for_it() -> None:
    bench = Bench(prefill_cells=4000, target_step_s=0, n_cells=350)
    bench.add_decoding(10)
    long = bench.add(6 * TILE_TOKENS - 65, first=1)
    bench.step()
    bench.prefills(4)
    chunk = bench.scheduler.begin_prefill()
    assert chunk is not None
    while bench.scheduler.is_prefilling(chunk):
        bench.step()
        assert bench.cache.free_cells >= len(chunk.tokens) or long.slot is None
    assert bench.scheduler.find(long.request_id) is long
