from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from soak import Options, parser
from soak_clients import Disturbances, Tally, ending
from soak_figures import (
    Figures,
    Line,
    Sample,
    first_and_last,
    grown_up,
    mb_per_hour_limit,
    slope,
    table,
    verdict,
)

QUIET = Figures(
    hours=23.0,
    daemon_mb_per_hour=0.01,
    workers_mb_per_hour=-0.2,
    files=0,
    threads=0,
    children=0,
    ttft_first_s=0.2,
    ttft_last_s=0.21,
    unexplained=0,
    exit_status=0,
)


def broken(figures: Figures) -> list[str]:
    return [line.figure for line in verdict(figures) if not line.kept]


# --- slopes ---


@given(
    st.floats(-1e3, 1e3),
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(2, 20)), min_size=1, max_size=4),
)
def test_groups_that_grow_alike_have_that_slope_wherever_they_begin(
    per_second: float, groups: list[tuple[float, int]]
) -> None:
    samples = [[Sample(10.0 * k, begin + per_second * 10 * k) for k in range(n)] for begin, n in groups]
    assert slope(samples) == pytest.approx(per_second, abs=1e-6)


def test_processes_that_follow_each_other_do_not_add_up() -> None:
    """Each begins larger than the last one and then stays as it is."""
    groups = [[Sample(at, 100.0 * number) for at in range(5 * number, 5 * number + 5)] for number in range(9)]
    assert slope(groups) == 0


@pytest.mark.parametrize("groups", [[], [[]], [[Sample(1, 5)]], [[Sample(1, 5)], [Sample(2, 9)]]])
def test_without_two_times_there_is_no_slope(groups: list[list[Sample]]) -> None:
    assert slope(groups) is None


def test_the_childhood_of_a_process_does_not_count() -> None:
    samples = [Sample(100.0 + at, 1.0) for at in range(10)]
    assert [one.at_s for one in grown_up(samples, 7)] == [107, 108, 109]
    assert grown_up([], 7) == []


def test_a_slope_over_minutes_is_given_some_noise() -> None:
    assert mb_per_hour_limit(23) == 1
    assert mb_per_hour_limit(0.05) == pytest.approx(80)


# --- the beginning and the end ---


def test_a_short_run_compares_its_thirds() -> None:
    samples = [Sample(float(at), 1.0 if at < 600 else 9.0 if at < 1200 else 2.0) for at in range(1800)]
    assert first_and_last(samples, 0.5) == (1.0, 2.0)


def test_a_long_run_compares_its_hours() -> None:
    samples = [Sample(60.0 * at, 1.0 if at < 60 else 2.0 if at >= 1320 else 9.0) for at in range(1380)]
    assert first_and_last(samples, 23) == (1.0, 2.0)


def test_few_requests_have_no_percentile() -> None:
    assert first_and_last([Sample(1, 1)], 1) == (None, None)


# --- the verdict ---


def test_a_quiet_run_keeps_all_bounds() -> None:
    assert broken(QUIET) == []


@pytest.mark.parametrize(
    ("figure", "change"),
    [
        ("memory of the daemon", {"daemon_mb_per_hour": 1.0}),
        ("memory of the daemon", {"daemon_mb_per_hour": None}),
        ("memory of the workers", {"workers_mb_per_hour": 7.0}),
        ("file descriptors", {"files": 1}),
        ("file descriptors", {"files": -1}),
        ("threads", {"threads": 1}),
        ("worker processes", {"children": -1}),
        ("p99 TTFT, end / beginning", {"ttft_last_s": 0.23}),
        ("p99 TTFT, end / beginning", {"ttft_last_s": None}),
        ("unexplained errors", {"unexplained": 1}),
        ("exit status", {"exit_status": 1}),
        ("exit status", {"exit_status": None}),
    ],
)
def test_each_bound_can_be_broken(figure: str, change: dict[str, float | None]) -> None:
    assert broken(replace(QUIET, **change)) == [figure]  # type: ignore[arg-type]


def test_the_table_says_what_is_broken() -> None:
    shown = table([Line("files", "+3", "±0", False), Line("a longer figure", "0", "0", True)]).splitlines()
    assert [line.split()[-1] for line in shown[1:]] == ["BROKEN", "ok"]
    assert len({line.index(line.split()[-1]) for line in shown[1:]}) == 1


# --- ends ---


@pytest.mark.parametrize(
    ("status", "code", "killed", "in_order"),
    [
        (200, None, False, True),
        (429, "queue_full", False, True),
        (503, "engine_died", True, True),
        (503, "engine_died", False, False),
        (200, "engine_died", True, True),
        (200, "engine_died", False, False),
        (503, "insufficient_memory", True, False),
        (500, None, True, False),
        (None, None, True, False),
    ],
)
def test_an_error_needs_a_reason(status: int | None, code: str | None, killed: bool, in_order: bool) -> None:
    assert ending(status, code, killed=killed)[1] is in_order


def test_unexplained_errors_are_kept_up_to_a_point() -> None:
    tally = Tally(0.0)
    for number in range(100):
        tally.end("500", in_order=False, words=str(number) * 1000)
    assert (tally.unexplained, len(tally.errors), tally.ends["500"]) == (100, 20, 100)
    assert max(map(len, tally.errors)) < 400


def test_an_engine_is_spared_while_nothing_is_done_to_it() -> None:
    disturbances = Disturbances()
    assert disturbances.spared("a", since=5.0)
    with disturbances.of("a"):
        assert not disturbances.spared("a", since=5.0)
        assert disturbances.spared("b", since=5.0)
    assert not disturbances.spared("a", since=disturbances.ended_at["a"] - 1)
    assert disturbances.spared("a", since=disturbances.ended_at["a"] + 1)


# --- options ---


def options(*arguments: str) -> Options:
    return Options.of(parser().parse_args([*arguments, "--model", "m.gguf"]))


def test_five_minutes_are_the_default() -> None:
    given = options()
    assert (given.minutes, given.warm_up_s, given.measured_s, given.clients) == (5, 100, 200, 8)
    assert given.model == Path("m.gguf").absolute()


def test_a_day_is_as_the_fault_suite_demands() -> None:
    given = options("--hours", "24")
    assert (given.warm_up_s, given.measured_s) == (3600, 23 * 3600)
    assert (given.churn_s, given.kill_s, given.leaves) == (600, 3600, 0.05)


@pytest.mark.parametrize(
    "arguments", [["--minutes", "0"], ["--hours", "x"], ["--clients", "0"], ["--minutes", "nan"]]
)
def test_nonsense_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(arguments)
    assert "is not a time" in (said := capsys.readouterr().err) or "is no number" in said


def test_help_has_examples() -> None:
    assert "scripts/soak.py --hours 24" in parser().format_help()
