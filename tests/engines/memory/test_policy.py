"""Which engines stay in memory: the rules, on made-up facts and times."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from kolosal.engines.memory.policy import (
    DEFAULT_RULES,
    Bytes,
    Evict,
    Load,
    Refuse,
    Resident,
    Rules,
    Wait,
    crowded,
    expired,
    idle_limit,
    make_room,
    next_expiry,
    total,
)

amounts = st.builds(
    Bytes, st.integers(0, 10), st.dictionaries(st.integers(0, 2), st.integers(0, 10), max_size=3)
)
residents = st.lists(
    st.builds(
        Resident,
        st.integers(1, 1000),
        amounts,
        st.floats(0, 100),
        busy=st.booleans(),
        pinned=st.booleans(),
        limit_s=st.none() | st.floats(0, 100),
    ),
    max_size=8,
    unique_by=lambda one: one.name,
)
needs = st.lists(amounts, min_size=1, max_size=3)


def named(all_of_them: list[Resident], names: tuple[int, ...]) -> list[Resident]:
    return [one for one in all_of_them if one.name in names]


# --- memory ---


@given(needs, amounts, residents)
def test_a_decision_is_enough_and_never_more_than_that(
    needs: list[Bytes], free: Bytes, residents: list[Resident]
) -> None:
    match make_room(needs, free, residents):
        case Load():
            assert any(need.fits(free) for need in needs)
        case Evict(names=names):
            going = named(residents, names)
            assert going
            assert all(one.evictable for one in going)
            _check_minimal(needs, free, going)
        case Wait(names=names):
            going = named(residents, names)
            assert any(one.busy for one in going)
            assert not any(one.pinned for one in going)
            _check_minimal(needs, free, going)
        case Refuse(lacking=lacking):
            most = free + total(one.held for one in residents if not one.pinned)
            assert not any(need.fits(most) for need in needs)
            assert lacking.host > 0 or any(lacking.gpus.values())


def _check_minimal(needs: list[Bytes], free: Bytes, going: list[Resident]) -> None:
    after = free + total(one.held for one in going)
    met = [need for need in needs if need.fits(after)]
    assert met
    assert any(not any(need.fits(after - one.held) for one in going) for need in met)


@given(needs, amounts, residents)
def test_room_is_made_wherever_it_can_be(needs: list[Bytes], free: Bytes, residents: list[Resident]) -> None:
    idle = free + total(one.held for one in residents if one.evictable)
    decision = make_room(needs, free, residents)
    assert isinstance(decision, Load | Evict) == any(need.fits(idle) for need in needs)


@given(needs, amounts, residents)
def test_loading_what_was_decided_ends(needs: list[Bytes], free: Bytes, residents: list[Resident]) -> None:
    for _ in range(len(residents) + 1):
        decision = make_room(needs, free, residents)
        if not isinstance(decision, Evict | Wait):
            return
        free += total(one.held for one in named(residents, decision.names))
        residents = [one for one in residents if one.name not in decision.names]
    pytest.fail("it goes on for ever")


def test_the_least_recently_used_goes_first() -> None:
    residents = [Resident(1, Bytes(5), 30), Resident(2, Bytes(5), 10), Resident(3, Bytes(5), 20)]
    assert make_room([Bytes(4)], Bytes(), residents) == Evict((2,))
    assert make_room([Bytes(9)], Bytes(), residents) == Evict((2, 3))


def test_one_that_holds_nothing_of_what_is_lacking_stays() -> None:
    residents = [Resident(1, Bytes(5), 1), Resident(2, Bytes(1, {0: 5}), 2), Resident(3, Bytes(1, {1: 5}), 3)]
    assert make_room([Bytes(0, {1: 5})], Bytes(), residents) == Evict((3,))


def test_a_small_one_stays_where_a_large_one_is_enough() -> None:
    residents = [Resident(1, Bytes(2), 1), Resident(2, Bytes(9), 2)]
    assert make_room([Bytes(8)], Bytes(), residents) == Evict((2,))


def test_busy_ones_are_waited_for_and_pinned_ones_are_not() -> None:
    busy, pinned = Resident(1, Bytes(5), 1, busy=True), Resident(2, Bytes(5), 2, pinned=True)
    assert make_room([Bytes(5)], Bytes(), [busy, pinned]) == Wait((1,))
    assert make_room([Bytes(6)], Bytes(), [busy, pinned]) == Refuse(Bytes(1))


def test_a_smaller_amount_does_where_the_best_cannot_be_had() -> None:
    assert make_room([Bytes(9), Bytes(3)], Bytes(4), [Resident(1, Bytes(9), 1, busy=True)]) == Load()
    assert make_room([Bytes(9), Bytes(3)], Bytes(4), [Resident(1, Bytes(9), 1)]) == Evict((1,))


# --- time ---


@given(residents, st.floats(0, 300))
def test_no_busy_and_no_pinned_engine_expires(residents: list[Resident], now: float) -> None:
    gone = named(residents, tuple(expired(residents, now)))
    assert not any(one.busy or one.pinned or one.limit_s is None for one in gone)
    expiry = next_expiry(residents)
    assert bool(gone) == (expiry is not None and expiry <= now)


def test_an_engine_expires_when_its_time_is_over() -> None:
    one = Resident(1, Bytes(), last_used=100, limit_s=5)
    assert (expired([one], 104.9), expired([one], 105), next_expiry([one])) == ([], [1], 105)


@pytest.mark.parametrize(
    ("rules", "keep_alive_s", "limit_s"),
    [
        (DEFAULT_RULES, None, 300),
        (Rules(idle_ttl_s=5), None, 5),
        (Rules(idle_ttl_s=0), None, None),
        (Rules(idle_ttl_s=5), 7, 7),
        (Rules(idle_ttl_s=0), 7, 7),
        (DEFAULT_RULES, 0, 0),
        (DEFAULT_RULES, -1, None),
        (Rules(pin=True), 0, None),
        (Rules(pin=True, idle_ttl_s=5), None, None),
    ],
)
def test_the_last_request_decides_then_the_engine_then_the_daemon(
    rules: Rules, keep_alive_s: float | None, limit_s: float | None
) -> None:
    assert idle_limit(rules, keep_alive_s, 300) == limit_s


def test_a_default_of_0_is_never() -> None:
    assert idle_limit(DEFAULT_RULES, None, 0) is None


@pytest.mark.parametrize(
    "fields", [{"idle_ttl_s": -1}, {"max_queued": -1}, {"max_queued": 10**6}, {"pin": "yes"}, {"x": 1}]
)
def test_rules_have_bounds(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Rules).validate_python(fields, strict=True)


# --- exclusive groups ---


def of_groups(all_of_them: list[Resident]) -> st.SearchStrategy[list[Resident]]:
    groups = st.frozensets(st.sampled_from("ab"))
    members = st.lists(groups, min_size=len(all_of_them), max_size=len(all_of_them))
    return members.map(
        lambda each: [replace(one, groups=own) for one, own in zip(all_of_them, each, strict=True)]
    )


@given(needs, amounts, residents.flatmap(of_groups))
def test_rivals_go_first_whatever_is_free(needs: list[Bytes], free: Bytes, residents: list[Resident]) -> None:
    rivals = {one.name for one in residents if "a" in one.groups}
    pinned = {one.name for one in residents if one.name in rivals and one.pinned}
    match make_room(needs, free, residents, frozenset("a")):
        case Load():
            assert not rivals
        case Evict(names=names):
            assert rivals <= {*names}
            assert all(one.evictable for one in named(residents, names))
        case Wait(names=names):
            assert rivals <= {*names}
            assert not pinned
            assert any(one.busy for one in named(residents, names))
        case Refuse(rivals=named_rivals):
            assert {*named_rivals} == pinned


@given(residents.flatmap(of_groups))
def test_of_a_group_that_came_to_be_exclusive_one_stays(residents: list[Resident]) -> None:
    going = crowded(residents)
    assert all(one.evictable for one in named(residents, tuple(going)))
    staying = [one for one in residents if one.name not in going]
    for group in "ab":
        left = [one for one in staying if group in one.groups]
        assert len([one for one in left if one.evictable]) <= 1
        assert left or not any(group in one.groups for one in residents) or _beside_others(group, residents)


def _beside_others(group: str, residents: list[Resident]) -> bool:
    """Whether all of a group may go because each is of another one, too."""
    return all(len(one.groups) > 1 for one in residents if group in one.groups)
