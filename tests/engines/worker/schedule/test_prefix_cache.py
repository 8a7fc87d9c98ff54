"""Whose cells a new prompt can use."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.detokenize import Detokenizer
from kolosal.engines.worker.schedule.prefix_cache import PrefixCache, common_prefix
from kolosal.engines.worker.schedule.sequence import Sequence
from tests.fake_worker.backend import FakeSampler


def _sequence(
    tokens: list[int], *, computed: int = 0, slot: int | None = None, scope: str = "", use_cache: bool = True
) -> Sequence:
    sequence = Sequence(
        1,
        tokens,
        len(tokens),
        max_length=10_000,
        sampler=FakeSampler(),
        text=Detokenizer(),
        cache_scope=scope,
        use_cache=use_cache,
    )
    sequence.n_computed = computed
    sequence.slot = slot
    return sequence


def _kept(reuse: Reuse, *finished: Sequence) -> PrefixCache:
    cache = PrefixCache(reuse)
    for slot, sequence in enumerate(finished):
        cache.keep(slot, sequence)
    return cache


@given(
    st.lists(st.integers(0, 2), max_size=300), st.lists(st.integers(0, 2), max_size=300), st.integers(0, 300)
)
def test_common_prefix_is_what_a_plain_loop_finds(a: list[int], b: list[int], limit: int) -> None:
    expected = 0
    while expected < min(limit, len(a), len(b)) and a[expected] == b[expected]:
        expected += 1
    assert common_prefix(a, b, limit) == expected


@given(st.lists(st.integers(0, 5), min_size=1, max_size=500), st.integers(0, 499))
def test_common_prefix_finds_a_single_difference(tokens: list[int], at: int) -> None:
    at %= len(tokens)
    other = [*tokens]
    other[at] += 1
    assert common_prefix(tokens, other, len(tokens)) == at


def test_the_last_token_is_always_left_to_compute() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([1, 2, 3, 4], computed=4))
    assert cache.match(_sequence([1, 2, 3, 4]), ()).n_cells == 3


def test_a_finished_sequence_that_is_a_whole_prefix_is_taken_over() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([1, 2, 3], computed=3))
    match = cache.match(_sequence([1, 2, 3, 4, 5]), ())
    assert (match.slot, match.n_cells, match.takes_over) == (0, 3, True)


def test_a_running_sequence_shares_what_it_has_and_promises_the_rest() -> None:
    running = _sequence([*range(100), 7], computed=40, slot=5)
    match = PrefixCache(Reuse.PREFIX).match(_sequence([*range(100), 8, 9]), [running])
    assert (match.slot, match.n_cells, match.n_expected) == (5, 40, 100)


def test_cells_that_are_there_are_preferred_to_fewer() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([*range(10)], computed=10), _sequence([*range(30)], computed=30))
    assert cache.match(_sequence([*range(40)]), ()).slot == 1


def test_other_scopes_share_nothing() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([1, 2, 3], computed=3, scope="a"))
    running = _sequence([1, 2, 3, 4], computed=4, slot=5, scope="a")
    assert cache.match(_sequence([1, 2, 3, 4], scope="b"), [running]).n_expected == 0


@pytest.mark.parametrize("who", ["taker", "giver"])
def test_a_sequence_without_cache_neither_takes_nor_gives(who: str) -> None:
    running = _sequence([1, 2, 3, 4], computed=4, slot=5, use_cache=who != "giver")
    taker = _sequence([1, 2, 3, 4, 5], use_cache=who != "taker")
    cache = PrefixCache(Reuse.PREFIX)
    assert cache.match(taker, [running]).n_expected == 0
    assert cache.keep(1, running) is (who == "taker")


def test_memory_that_cannot_be_cut_is_only_continued_as_a_whole() -> None:
    cache = _kept(Reuse.WHOLE, _sequence([1, 2, 3], computed=3))
    assert cache.match(_sequence([1, 2, 9, 9]), ()).n_cells == 0
    assert cache.match(_sequence([1, 2, 3, 9]), ()).takes_over
    running = _sequence([1, 2, 3, 4], computed=4, slot=5)
    assert PrefixCache(Reuse.WHOLE).match(_sequence([1, 2, 3, 4, 5]), [running]).n_cells == 0


def test_turned_off_nothing_is_kept_or_found() -> None:
    cache = PrefixCache(Reuse.NONE)
    assert not cache.keep(0, _sequence([1, 2, 3], computed=3))


def _length(cache: PrefixCache, lengths: dict[int, int]) -> int | None:
    """Who goes first, where nothing is shared."""
    return cache.least_worth(cache.slots, lambda slot: lengths[slot])


def test_a_short_one_goes_before_a_long_one_that_is_older() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([*range(500)], computed=500), _sequence([7] * 20, computed=20))
    assert _length(cache, {0: 500, 1: 20}) == 1


def test_of_two_alike_the_one_that_was_of_use_stays() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([1] * 50, computed=50), _sequence([2] * 50, computed=50))
    cache.touch(0)
    assert _length(cache, {0: 50, 1: 50}) == 1


def test_a_conversation_that_went_on_stays_longer_than_a_request_as_long() -> None:
    turn = _sequence([1] * 100, computed=100)
    turn.n_cached = 80
    cache = _kept(Reuse.PREFIX, turn, _sequence([2] * 150, computed=150))
    assert _length(cache, {0: 100, 1: 150}) == 1


def test_what_is_long_and_never_used_goes_after_enough_others() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([1] * 500, computed=500))
    for number in range(1, 100):
        cache.keep(number, _sequence([-number] * 50, computed=50))
        first = _length(cache, {0: 500} | dict.fromkeys(range(1, 100), 50))
        assert first is not None
        if first == 0:
            break
        cache.evict(first, 50)
    assert 8 <= number <= 12, "some 500 cells of others"


def _aged(cache: PrefixCache, n_steps: int) -> PrefixCache:
    for _ in range(n_steps):
        cache.tick()
    return cache


def test_a_longer_finished_sequence_may_stay_longer() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([1] * 256, computed=256), _sequence([2] * 512, computed=512))
    assert _aged(cache, 256).outstayed(lambda _: inf) == []
    assert _aged(cache, 1).outstayed(lambda _: inf) == [0]
    assert _aged(cache, 800).outstayed(lambda _: inf) == [0, 1]


def test_use_makes_young_again() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([1], computed=1), _sequence([2], computed=1))
    _aged(cache, 1000).touch(0)
    assert cache.outstayed(lambda _: inf) == [1]


def test_a_next_turn_supersedes_the_one_before() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([*range(100)], computed=100))
    assert cache.is_superseded(0, 90)
    assert not cache.is_superseded(0, 50)
    assert not cache.is_superseded(7, 50)


def test_one_whose_cells_have_cost_what_bringing_them_back_does_has_outstayed() -> None:
    cache = _kept(Reuse.PREFIX, _sequence([1] * 1000, computed=1000))
    assert _aged(cache, 20).outstayed(lambda n_tokens: n_tokens / 50) == []
    assert _aged(cache, 1).outstayed(lambda n_tokens: n_tokens / 50) == [0]
