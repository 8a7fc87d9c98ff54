"""What a step costs, learned from steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.worker.schedule.limits import TILE_TOKENS
from kolosal.engines.worker.schedule.step_cost import StepCost, Work

STREAMS_S, CELL_S = 0.01, 1e-6
"""What a step takes that sees no cells, and each cell beside."""


def _learned(*observations: tuple[int, float]) -> StepCost:
    """Of steps that see no cells."""
    cost = StepCost()
    for n_tokens, seconds in observations:
        cost.observe(Work(n_tokens), seconds)
    return cost


def _deep(n_tokens: int, depths: list[int]) -> StepCost:
    """Of steps of so many tokens each, one after the other at these places of a context."""
    cost = StepCost()
    for depth in depths:
        work = Work().plus(depth, n_tokens)
        cost.observe(work, STREAMS_S + CELL_S * work.n_attended)
    return cost


def test_nothing_is_expected_before_the_first_step() -> None:
    assert StepCost().seconds(Work(8)) is None


def test_between_two_observations_the_cost_is_interpolated() -> None:
    assert _learned((1, 0.01), (101, 0.11)).seconds(Work(51)) == pytest.approx(0.06)


def test_beyond_the_largest_the_cost_per_token_is_extended() -> None:
    assert _learned((100, 0.1)).seconds(Work(300)) == pytest.approx(0.3)


def test_fewer_tokens_than_ever_seen_cost_no_less_than_nothing_and_no_more_than_seen() -> None:
    assert _learned((100, 0.1)).seconds(Work(3)) == pytest.approx(0.1)


def test_a_single_hiccup_hardly_changes_the_expectation() -> None:
    cost = _learned((1, 0.01))
    cost.observe(Work(1), 10.0)
    assert cost.seconds(Work(1)) == pytest.approx(0.019)


def test_a_lasting_change_is_followed() -> None:
    cost = _learned((1, 0.01), *[(1, 0.02)] * 40)
    assert cost.seconds(Work(1)) == pytest.approx(0.02, rel=0.01)


def test_the_tokens_for_a_duration_are_the_most_that_fit() -> None:
    cost = _learned((1, 0.01), (101, 0.11))
    assert cost.tokens_within(0.0605, Work(), start=0, at_most=512) == 51
    assert cost.tokens_within(0.0605, Work(20), start=0, at_most=512) == 31
    assert cost.tokens_within(0.001, Work(), start=0, at_most=512) == 0


def test_the_tokens_of_several_sequences_see_their_own_cells() -> None:
    assert Work().plus(10, 1).plus(0, 3) == Work(4, 11 + 1 + 2 + 3, 11 + 3)


@pytest.mark.parametrize("n_tokens", [8, 80])
def test_a_place_of_the_context_where_no_step_was_yet_costs_what_its_cells_do(n_tokens: int) -> None:
    cost = _deep(n_tokens, [0, 500, 100, 900, 400, 700, 200] * 3)
    work = Work().plus(4000, n_tokens)
    assert cost.seconds(work) == pytest.approx(STREAMS_S + CELL_S * work.n_attended, rel=0.1)


def test_fewer_tokens_fit_into_a_step_where_each_sees_more_cells() -> None:
    cost = _deep(80, [0, 500, 100, 900, 400, 700, 200] * 3)
    near, far = (cost.tokens_within(0.5, Work(), start=start, at_most=512) for start in (0, 2000))
    assert far < near / 2


def test_a_step_stays_below_a_tile_where_those_in_it_would_make_that_dear() -> None:
    cost = StepCost()
    for n_streams in (8, 16):
        for depth in (50, 300, 100, 200) * 8:
            for count in (0, 40, 100):
                work = Work()
                for _ in range(n_streams):
                    work = work.plus(depth, 1)
                work = work.plus(0, count) if count else work
                cost.observe(work, 0.001 * work.n_tokens + 1e-6 * work.n_attended)
    deep = cost.tokens_within(0.6, Work(16, 16 * 300, 16 * 300), start=0, at_most=512)
    shallow = cost.tokens_within(0.15, Work(16), start=0, at_most=512)
    assert 40 < deep < TILE_TOKENS - 16
    assert shallow > TILE_TOKENS


def test_what_more_tokens_take_is_not_laid_on_their_cells() -> None:
    cost = StepCost()
    for _ in range(20):  # prompts of all lengths, from their beginning: both grow together
        for count in (70, 120, 200, 300, 90, 400, 150, 260):
            work = Work().plus(0, count)
            cost.observe(work, 0.005 + 0.001 * count + 1e-9 * work.n_attended)
    deep = Work().plus(4000, 256)
    assert cost.seconds(deep) == pytest.approx(0.005 + 0.256 + 1e-9 * deep.n_attended, rel=0.5)


def test_steps_that_take_no_time_teach_no_price() -> None:
    cost = _deep(80, [])
    for depth in (0, 100, 50):
        cost.observe(Work().plus(depth, 80), 0.0)
    assert cost.seconds(Work().plus(1000, 80)) == 0


def test_draft_tokens_bring_no_cells_of_others_in_again() -> None:
    assert Work().plus(100, 1).longer(101, 2) == Work().plus(100, 3)


def test_what_a_cell_costs_a_few_tokens_says_nothing_about_many() -> None:
    cost = _deep(8, [0, 500, 100, 900, 400, 700, 200] * 3)
    cost.observe(Work(80), 0.1)
    assert cost.seconds(Work(80)) == cost.seconds(Work().plus(5000, 80))


@given(
    st.lists(
        st.tuples(st.integers(1, 10_000), st.integers(0, 10**8), st.floats(1e-4, 10)), min_size=1, max_size=40
    ),
    st.integers(1, 20_000),
    st.integers(0, 10**8),
)
def test_an_expectation_is_always_positive_and_no_less_for_more_cells(
    observed: list[tuple[int, int, float]], n_tokens: int, n_seen: int
) -> None:
    cost = StepCost()
    for tokens, seen, seconds in observed:
        cost.observe(Work(tokens, seen), seconds)
    least, more = cost.seconds(Work(n_tokens)), cost.seconds(Work(n_tokens, n_seen))
    assert least is not None
    assert more is not None
    assert 0 < least <= more
