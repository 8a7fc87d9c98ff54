"""How many replicas there are. Times are numbers: no clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.cluster.scaling import MAX_REPLICAS, Scaler, ScalingRules

RULES = ScalingRules(min=1, max=8, up_queue_s=1, down_queue_s=0.1, up_after_s=10, down_after_s=300)


def after(
    seconds: int, *, replicas: int, queue_s: float, busy: float = 1.0, rules: ScalingRules = RULES
) -> int:
    """How many there are when it has been so for a time, asked every second."""
    scaler = Scaler(rules)
    for now in range(seconds + 1):
        replicas = scaler.wanted(now, replicas=replicas, queue_s=queue_s, busy=busy)
    return replicas


def test_requests_that_wait_for_a_while_get_more_replicas() -> None:
    assert after(9, replicas=2, queue_s=2) == 2
    assert after(10, replicas=2, queue_s=2) == 3


def test_the_more_there_are_the_more_come_at_once() -> None:
    assert after(10, replicas=4, queue_s=2) == 6


def test_wait_that_ends_meanwhile_counts_for_nothing() -> None:
    scaler = Scaler(RULES)
    waits = [2.0] * 9 + [0.5] + [2.0] * 9

    assert {scaler.wanted(now, replicas=2, queue_s=wait, busy=1) for now, wait in enumerate(waits)} == {2}


def test_between_the_thresholds_nothing_changes() -> None:
    assert after(10_000, replicas=3, queue_s=0.5, busy=0.1) == 3


def test_replica_that_nobody_needed_for_long_goes() -> None:
    assert after(299, replicas=3, queue_s=0, busy=0.1) == 3
    assert after(300, replicas=3, queue_s=0, busy=0.1) == 2


def test_replica_without_which_the_others_were_full_stays() -> None:
    assert after(10_000, replicas=2, queue_s=0, busy=0.5) == 2


def test_while_one_drains_only_what_is_missing_to_the_least_is_added() -> None:
    rules = ScalingRules(min=2, max=8)
    scaler = Scaler(rules)

    for now in range(1000):
        assert scaler.wanted(now, replicas=3, queue_s=9, busy=1, draining=True) == 3
    assert scaler.wanted(1000, replicas=1, queue_s=0, busy=0, draining=True) == 2


def test_replicas_that_died_are_replaced_at_once() -> None:
    assert Scaler(ScalingRules(min=3, max=3)).wanted(0, replicas=1, queue_s=0, busy=0) == 3


@pytest.mark.parametrize(("least", "most"), [(0, 1), (2, 1), (1, MAX_REPLICAS + 1)])
def test_limits_that_cannot_be_are_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="min ≤ max"):
        ScalingRules(min=least, max=most)


def test_thresholds_that_leave_no_room_between_them_are_refused() -> None:
    with pytest.raises(ValueError, match="less than up_queue_s"):
        ScalingRules(up_queue_s=1, down_queue_s=1)


STEPS = st.lists(
    st.tuples(st.floats(0, 400), st.floats(0, 5), st.floats(0, 1), st.booleans(), st.integers(0, 3)),
    max_size=60,
)


@given(steps=STEPS, least=st.integers(1, 4), more=st.integers(0, 6))
def test_whatever_happens_it_stays_between_its_limits(
    steps: list[tuple[float, float, float, bool, int]], least: int, more: int
) -> None:
    rules = ScalingRules(min=least, max=least + more)
    scaler, now, replicas = Scaler(rules), 0.0, least
    for passed_s, queue_s, busy, draining, died in steps:
        now += passed_s
        replicas = max(0, replicas - died)
        wanted = scaler.wanted(now, replicas=replicas, queue_s=queue_s, busy=busy, draining=draining)
        assert rules.min <= wanted <= rules.max
        if draining:
            assert wanted == max(replicas, rules.min)
        replicas = wanted
