"""When a worker is started again. Times are numbers: no clock, no process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kolosal.config.engines import EngineSettings
from kolosal.engines.restart import BreakerState, CircuitBreaker

SETTINGS = EngineSettings(max_crashes=5, crash_window_s=60)

OPEN, HALF_OPEN, CLOSED = BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED


def after(*deaths: float, ready: bool = True) -> CircuitBreaker:
    """What is known after workers died at these times, each of which was ready before unless told otherwise."""
    breaker = CircuitBreaker(SETTINGS)
    for at in deaths:
        if ready:
            breaker.started(at)
        breaker.died(at)
    return breaker


def test_first_start_waits_for_nothing() -> None:
    breaker = CircuitBreaker(SETTINGS)

    assert (breaker.wait_s(0), breaker.retry_after_s(0), breaker.state(0)) == (0, None, CLOSED)


def test_each_death_makes_the_next_start_wait_longer() -> None:
    waits = [after(*range(deaths)).wait_s(deaths - 1) for deaths in range(1, 5)]

    assert waits == [0, 1, 5, 15]


def test_time_since_the_death_counts_as_waiting() -> None:
    assert after(10, 11).wait_s(11.75) == 0.25
    assert after(10, 11).wait_s(99) == 0


def test_deaths_that_are_long_ago_do_not_count() -> None:
    breaker = after(0, 1, 2, 3, 61.5)

    assert (breaker.deaths(61.5), breaker.state(61.5)) == (3, CLOSED)


def test_breaker_opens_after_many_deaths_within_the_window() -> None:
    breaker = after(0, 10, 20, 30, 40)

    assert (breaker.state(40), breaker.retry_after_s(40)) == (OPEN, 60)
    assert (breaker.state(99.5), breaker.retry_after_s(99.5)) == (OPEN, 1)


def test_as_many_deaths_over_a_longer_time_do_not_open_it() -> None:
    assert after(0, 20, 40, 60, 80).state(80) is CLOSED


def test_loads_that_fail_open_it_however_long_they_take() -> None:
    assert after(0, 100, 200, 300, ready=False).state(300) is CLOSED
    assert after(0, 100, 200, 300, 400, ready=False).state(400) is OPEN


def test_after_its_pause_one_start_is_let_through() -> None:
    breaker = after(0, 1, 2, 3, 4)

    assert (breaker.state(64), breaker.retry_after_s(64), breaker.wait_s(64)) == (HALF_OPEN, None, 0)


def test_death_on_trial_opens_it_again() -> None:
    breaker = after(0, 1, 2, 3, 4)
    breaker.started(64)
    breaker.died(70)

    assert (breaker.state(70), breaker.retry_after_s(70)) == (OPEN, 60)


def test_worker_that_lives_closes_it() -> None:
    breaker = after(0, 1, 2, 3, 4)
    breaker.started(64)
    assert breaker.state(123) is HALF_OPEN
    assert breaker.state(124) is CLOSED
    breaker.died(200)

    assert (breaker.state(200), breaker.wait_s(200)) == (CLOSED, 0)


def test_reset_forgets_everything() -> None:
    breaker = after(0, 1, 2, 3, 4)
    breaker.reset()

    assert (breaker.state(4), breaker.wait_s(4), breaker.deaths(4)) == (CLOSED, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 70), st.booleans()), max_size=60))
def test_starts_are_never_a_storm(lives: list[tuple[float, bool]]) -> None:
    """Whatever workers do, whoever starts one as soon as it may starts no more than 5 within a minute."""
    breaker, now = CircuitBreaker(SETTINGS), 0.0
    starts: list[float] = []
    for lived_s, got_ready in lives:
        now += breaker.retry_after_s(now) or 0
        now += breaker.wait_s(now)
        starts.append(now)
        if got_ready:
            breaker.started(now)
        now += lived_s
        breaker.died(now)
        assert breaker.wait_s(now) <= 15
        assert (breaker.retry_after_s(now) is None) == (breaker.state(now) is not OPEN)

    assert all(later - earlier >= 60 for earlier, later in zip(starts, starts[5:], strict=False))
