from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.bench.answer import Answer
from kolosal.bench.measures import Measures, measure, median_of, percentile

VALUES = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1)


def answer(*arrivals: float, sent: float = 0.0, tokens: int | None = None, text: str = "ab") -> Answer:
    return Answer(
        text=text, sent_at=sent, arrivals=arrivals, ended_at=arrivals[-1] + 1, completion_tokens=tokens
    )


@pytest.mark.parametrize(("percent", "expected"), [(0, 1.0), (50, 2.5), (99, 3.97), (100, 4.0), (25, 1.75)])
def test_percentile_is_linear_between_neighbours(percent: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], percent) == pytest.approx(expected)


def test_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 99) == 7.0


@given(VALUES, st.floats(min_value=0, max_value=100), st.floats(min_value=0, max_value=100))
def test_percentile_grows_with_the_percent_and_stays_within_the_values(
    values: list[float], one: float, other: float
) -> None:
    low, high = (percentile(values, percent) for percent in sorted((one, other)))
    slack = 1e-9 * max(values)
    assert min(values) - slack <= low <= high + slack
    assert high <= max(values) + slack


def test_figures_of_two_streams() -> None:
    figures = measure([answer(1, 2, 4, tokens=3), answer(3, 3.5, sent=1, tokens=2, text="cde")])
    assert figures.requests == 2
    assert figures.wall_s == 5
    assert (figures.ttft_p50_s, figures.ttft_max_s) == (1.5, 2)
    assert (figures.gap_p50_s, figures.gap_max_s) == (1, 2)
    assert figures.decode_tok_s == pytest.approx((2 / 3 + 1 / 0.5) / 2)
    assert figures.total_tok_s == pytest.approx(5 / 5)
    assert figures.chars_s == pytest.approx(5 / 5)


def test_rates_come_from_token_counts_and_not_from_pieces() -> None:
    assert measure([answer(1, 2, tokens=101)]).decode_tok_s == pytest.approx(100)


def test_rates_are_unknown_where_a_count_is() -> None:
    figures = measure([answer(1, 2, tokens=10), answer(1, 2)])
    assert figures.completion_tokens is None
    assert figures.total_tok_s is None


def test_one_piece_has_no_gap_and_no_decode_rate() -> None:
    figures = measure([answer(1, tokens=5)])
    assert (figures.gap_p50_s, figures.gap_max_s, figures.decode_tok_s) == (None, None, None)


def test_gaps_within_counts_a_gap_that_reaches_into_the_time() -> None:
    assert answer(1, 2, 5, 6).gaps_within(3, 4) == [3]
    assert answer(1, 2, 5, 6).gaps_within(0, 1) == []


def test_median_is_taken_figure_by_figure_and_keeps_counts_whole() -> None:
    runs = [
        Measures(requests=1, wall_s=wall, prompt_tokens=count) for wall, count in ((1, 4), (3, 5), (2, 7))
    ]
    middle = median_of(runs)
    assert (middle.wall_s, middle.prompt_tokens, middle.ttft_p50_s) == (2, 5, None)
    assert isinstance(median_of(runs[:2]).prompt_tokens, int)


def test_median_keeps_the_last_note() -> None:
    assert median_of([Measures(note="a"), Measures(note="b"), Measures()]).note == "b"
