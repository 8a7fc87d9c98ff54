"""What a step costs, learned from steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.worker.schedule.step_cost import StepCost


def _learned(*observations: tuple[int, float]) -> StepCost:
    cost = StepCost()
    for n_tokens, seconds in observations:
        cost.observe(n_tokens, seconds)
    return cost


def test_nothing_is_expected_before_the_first_step() -> None:
    assert StepCost().seconds(8) is None


def test_between_two_observations_the_cost_is_interpolated() -> None:
    assert _learned((1, 0.01), (101, 0.11)).seconds(51) == pytest.approx(0.06)


def test_beyond_the_largest_the_cost_per_token_is_extended() -> None:
    assert _learned((100, 0.1)).seconds(300) == pytest.approx(0.3)


def test_fewer_tokens_than_ever_seen_cost_no_less_than_nothing_and_no_more_than_seen() -> None:
    assert _learned((100, 0.1)).seconds(3) == pytest.approx(0.1)


def test_a_single_hiccup_hardly_changes_the_expectation() -> None:
    cost = _learned((1, 0.01))
    cost.observe(1, 10.0)
    assert cost.seconds(1) == pytest.approx(0.016)


def test_a_lasting_change_is_followed() -> None:
    cost = _learned((1, 0.01), *[(1, 0.02)] * 40)
    assert cost.seconds(1) == pytest.approx(0.02, rel=0.01)


def test_the_step_for_a_duration_is_the_largest_that_fits() -> None:
    cost = _learned((1, 0.01), (101, 0.11))
    assert cost.tokens_within(0.0605, at_most=512) == 51
    assert cost.tokens_within(0.001, at_most=512) == 0


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(1e-4, 10)), min_size=1, max_size=40),
    st.integers(1, 20_000),
)
def test_an_expectation_is_always_positive(observed: list[tuple[int, float]], n_tokens: int) -> None:
    seconds = _learned(*observed).seconds(n_tokens)
    assert seconds is not None
    assert seconds > 0
