"""Prompts whose tokens are reported: every one gets its row of logits, once, and no step more than it may have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.memory.limits import MAX_DRAFT_TOKENS_PER_STEP
from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.schedule.kv_cache import KVCache
from kolosal.engines.worker.schedule.limits import SchedulerLimits
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.engines.worker.schedule.prefix_cache import PrefixCache
from kolosal.engines.worker.schedule.scheduler import Scheduler
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.engines.worker.schedule.step_cost import StepCost, Work
from tests.engines.worker.schedule.scheduling import FixedDrafts
from tests.fake_worker.backend import FakeSampler

N_PARALLEL = 4
MAX_STEPS = 2000


def sequence(request_id: int, n_prompt: int, *, reported: bool) -> Sequence:
    return Sequence(
        request_id,
        list(range(n_prompt)),
        n_prompt,
        max_length=n_prompt + 5,
        sampler=FakeSampler(),
        text=Detokenizer(),
        speculator=FixedDrafts([1, 2, 3]),
        n_top=0 if reported else None,
        prompt_logprobs=reported,
    )


def scheduler(n_cells: int) -> Scheduler:
    cost = StepCost()
    cost.observe(Work(512), 0.001)
    limits = SchedulerLimits(n_parallel=N_PARALLEL, n_batch=512, n_prefill=512, target_step_s=0.15)
    return Scheduler(
        KVCache(n_cells, 2 * N_PARALLEL + 2), PrefixCache(Reuse.PREFIX), limits, cost, StepCost()
    )


def report(chunk: Chunk, seen: list[int]) -> bool:
    """Play the loop's part: note the prompt's tokens that a chunk tells about; whether a token is sampled after them."""
    one = chunk.sequence
    if one.prompt_logprobs:
        seen += [0] if not one.n_logged else []
        after = chunk.start + len(chunk.tokens) - chunk.n_outputs + 1
        seen += range(after, after + chunk.n_prompt_rows)
        one.n_logged = len(seen)
    return chunk.n_outputs > chunk.n_prompt_rows


@given(
    st.lists(st.tuples(st.integers(1, 300), st.booleans()), min_size=1, max_size=6),
    st.integers(320, 1500),
)
def test_every_token_is_told_about_once_within_the_rows_of_a_step(
    prompts: list[tuple[int, bool]], n_cells: int
) -> None:
    plan_of = scheduler(n_cells)
    all_of = [
        sequence(index, n_prompt, reported=reported) for index, (n_prompt, reported) in enumerate(prompts)
    ]
    seen: dict[int, list[int]] = {one.request_id: [] for one in all_of}
    for one in all_of:
        plan_of.add(one)
    for _ in range(MAX_STEPS):
        if not plan_of.has_work:
            break
        plan = plan_of.schedule()
        plan_of.commit(plan)
        assert sum(chunk.n_outputs for chunk in plan.chunks) <= N_PARALLEL + MAX_DRAFT_TOKENS_PER_STEP
        for chunk in plan.chunks:
            if chunk.n_outputs and report(chunk, seen[chunk.sequence.request_id]):
                accept(plan_of, chunk.sequence)
    assert not plan_of.has_work
    for one in all_of:
        assert seen[one.request_id] == (list(range(one.n_prompt)) if one.prompt_logprobs else [])


def accept(scheduler: Scheduler, one: Sequence) -> None:
    """A token was sampled; no draft token was accepted."""
    one.n_computed = len(one.tokens)
    scheduler.trim(one)
    one.draft = []
    one.tokens.append(-1)
    if len(one.tokens) >= one.max_length:
        scheduler.finish(one, keep=True)
