"""Drafts by prompt lookup: which tokens, and how many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.worker.schedule.speculative import (
    MAX_DRAFT_TOKENS,
    AcceptanceEstimate,
    PromptLookup,
    Speculator,
)
from kolosal.engines.worker.schedule.step_cost import StepCost, Work


def _cost(base_s: float, per_token_s: float) -> StepCost:
    cost = StepCost()
    for n_tokens in (1, 2, 4, 8, 16, 32, 64, 128):
        cost.observe(Work(n_tokens), base_s + n_tokens * per_token_s)
    return cost


def lookup(tokens: list[int]) -> PromptLookup:
    source = PromptLookup()
    source.extend(tokens)
    return source


CHEAP = _cost(0.010, 0.0001)
"""More tokens cost next to nothing, as on a GPU."""

DEAR = _cost(0.0, 0.010)
"""Every token costs the same: drafting can gain nothing."""


def draft(source: PromptLookup, limit: int) -> list[int]:
    return source.draft(limit) if source.match_length() else []


def test_what_followed_the_same_tokens_before_is_drafted() -> None:
    assert draft(lookup([1, 2, 3, 4, 5, 6, 1, 2, 3]), 2) == [4, 5]


def test_the_latest_occurrence_counts() -> None:
    assert draft(lookup([1, 2, 3, 4, 1, 2, 3, 9, 1, 2, 3]), 1) == [9]


def test_the_occurrence_that_agrees_with_more_tokens_counts_first() -> None:
    source = lookup([0, 1, 2, 3, 4, 5, 8, 9, 3, 4, 5, 7, 0, 1, 2, 3, 4, 5])
    assert source.match_length() == 6
    assert source.draft(1) == [8]


def test_a_draft_that_more_tokens_match_is_longer() -> None:
    cost = _cost(0.006, 0.003)
    lengths = [
        AcceptanceEstimate().best_length(cost, Work(1), 0, 1, match_length=matched)[0]
        for matched in (0, 3, 6, 12, 24)
    ]
    assert lengths == sorted(lengths)
    assert lengths[-1] > lengths[1]


def test_accepted_drafts_make_the_next_one_longer_and_a_rejected_one_shorter() -> None:
    cost = _cost(0.006, 0.003)
    estimate = AcceptanceEstimate()
    before = estimate.best_length(cost, Work(1), 0, 1, match_length=12)[0]
    estimate.observe(before, before)
    grown = estimate.best_length(cost, Work(1), 0, 1, match_length=12)[0]
    estimate.observe(grown, 1)
    assert before < grown
    assert estimate.best_length(cost, Work(1), 0, 1, match_length=3)[0] < grown


def test_new_tokens_give_no_draft() -> None:
    assert draft(lookup([1, 2, 3, 4, 5]), 4) == []


def test_too_few_tokens_give_no_draft() -> None:
    assert draft(lookup([1, 1]), 4) == []


def test_a_match_across_the_border_of_two_tokens_is_none() -> None:
    tail = [0x01000000, 0x02000000, 0x03000000]
    shifted = [0x00000000, 0x00000001, 0x00000002, 0x00000003]  # the same bytes, one byte later
    assert draft(lookup([*shifted, 7, 7, 7, *tail]), 4) == []


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 8))
def test_a_draft_is_always_a_continuation_seen_before(tokens: list[int], limit: int) -> None:
    drafted = draft(lookup(tokens), limit)
    if drafted:
        wanted = tokens[-3:] + drafted
        assert any(tokens[at : at + len(wanted)] == wanted for at in range(len(tokens)))


def test_where_drafts_cost_nothing_they_grow_while_they_are_accepted() -> None:
    estimate = AcceptanceEstimate()
    lengths = []
    for _ in range(4):
        length = estimate.best_length(CHEAP, Work(1), 0, 1)[0]
        lengths.append(length)
        estimate.observe(length, length)
    assert lengths == sorted(lengths)
    assert lengths[0] <= 2
    assert lengths[-1] == MAX_DRAFT_TOKENS


def test_where_every_token_costs_the_same_nothing_is_drafted() -> None:
    assert AcceptanceEstimate().best_length(DEAR, Work(1), 0, 1)[0] == 0


def test_rejected_drafts_are_made_ever_more_rarely() -> None:
    estimate = AcceptanceEstimate()
    made = 0
    for _ in range(1000):
        if not estimate.is_paused() and (length := estimate.best_length(CHEAP, Work(1), 0, 1)[0]):
            made += 1
            estimate.observe(length, 0)
    assert made <= 25


def test_a_full_batch_leaves_less_to_gain() -> None:
    alone, crowded = AcceptanceEstimate(), AcceptanceEstimate()
    cost = _cost(0.006, 0.002)
    for estimate in (alone, crowded):
        for _ in range(6):
            estimate.observe(4, 4)
    assert crowded.best_length(cost, Work(16), 0, 16)[0] <= alone.best_length(cost, Work(1), 0, 1)[0]


def test_the_last_sequence_of_a_step_may_guess_as_the_first_does() -> None:
    first, second = AcceptanceEstimate(), AcceptanceEstimate()
    n_first, kept = first.best_length(CHEAP, Work(2), 0, 2.0, match_length=6)
    n_second, _ = second.best_length(CHEAP, Work(2 + n_first), 0, 2.0 + kept, match_length=6)
    assert n_first == n_second > 0


def test_drafts_that_are_dear_to_make_are_shorter() -> None:
    assert AcceptanceEstimate().best_length(CHEAP, Work(1), 0, 1, seconds_per_token=1.0)[0] == 0


def test_the_first_source_that_has_a_draft_is_asked() -> None:
    speculator = Speculator([lookup([]), lookup([])], [1, 2, 3, 4, 1, 2, 3])
    assert speculator.draft(CHEAP, Work(1), 0, 1, 8)[0] == [4, 1, 2, 3]
    assert speculator.draft(CHEAP, Work(1), 0, 1, 1)[0] == [4]
