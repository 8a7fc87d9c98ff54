"""The books of the KV cache: cells shared, cut and freed, each counted once."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from kolosal.engines.worker.schedule.kv_cache import IntegrityError, KVCache


def test_new_cache_has_all_its_cells() -> None:
    assert KVCache(10, 2).free_cells == 10


def test_cells_are_used_as_they_are_filled() -> None:
    cache = KVCache(10, 2)
    cache.grow(cache.open(), 4)
    assert cache.free_cells == 6


def test_closed_id_gives_its_cells_back() -> None:
    cache = KVCache(10, 1)
    slot = cache.open()
    cache.grow(slot, 4)
    cache.close(slot)
    assert (cache.free_cells, cache.has_free_slot) == (10, True)


def test_more_cells_than_there_are_is_an_error() -> None:
    cache = KVCache(3, 1)
    with pytest.raises(IntegrityError, match="4 cells filled where 3 were free"):
        cache.grow(cache.open(), 4)


def test_a_shared_prefix_is_counted_once() -> None:
    cache = KVCache(100, 3)
    first, second, third = cache.open(), cache.open(), cache.open()
    cache.grow(first, 40)
    cache.share(first, second, 30)
    cache.share(second, third, 20)
    cache.grow(second, 5)
    assert cache.free_cells == 100 - 40 - 5
    assert [cache.length(slot) for slot in (first, second, third)] == [40, 35, 20]


def test_shared_cells_stay_until_the_last_who_sees_them_is_gone() -> None:
    cache = KVCache(100, 2)
    first, second = cache.open(), cache.open()
    cache.grow(first, 40)
    cache.share(first, second, 30)
    cache.close(first)
    assert cache.free_cells == 70
    cache.close(second)
    assert cache.free_cells == 100


def test_cells_freed_together_count_what_only_they_share() -> None:
    cache = KVCache(100, 3)
    first, second, third = cache.open(), cache.open(), cache.open()
    cache.grow(first, 40)
    cache.share(first, second, 30)
    cache.share(first, third, 10)
    assert cache.freed_by([first]) == 10
    assert cache.freed_by([first, second]) == 30
    assert cache.freed_by([first, second, third]) == 40


def test_a_cut_into_a_shared_part_frees_nothing_of_it() -> None:
    cache = KVCache(100, 2)
    first, second = cache.open(), cache.open()
    cache.grow(first, 40)
    cache.share(first, second, 40)
    cache.grow(second, 10)
    cache.trim(second, 25)
    assert (cache.free_cells, cache.length(second)) == (60, 25)


def test_a_cut_beyond_the_end_is_an_error() -> None:
    cache = KVCache(10, 1)
    with pytest.raises(IntegrityError):
        cache.trim(cache.open(), 5)


def test_a_difference_to_the_backend_is_found() -> None:
    cache = KVCache(10, 2)
    slot = cache.open()
    cache.grow(slot, 4)
    with pytest.raises(IntegrityError, match=f"sequence id {slot} has 3 cells, the books say 4"):
        cache.check_integrity(lambda each: 3 if each == slot else 0)


def test_cells_under_a_free_id_are_found() -> None:
    with pytest.raises(IntegrityError, match="has 1 cells, the books say 0"):
        KVCache(10, 1).check_integrity(lambda _: 1)


class CacheMachine(RuleBasedStateMachine):
    """Against sets of cells with an identity each, which is what llama.cpp has."""

    slots = Bundle("slots")

    @initialize()
    def start(self) -> None:
        self.cache = KVCache(200, 6)
        self.cells: dict[int, list[object]] = {}

    @rule(target=slots)
    def open(self) -> int:
        if not self.cache.has_free_slot:
            return -1
        slot = self.cache.open()
        self.cells[slot] = []
        return slot

    @rule(slot=slots, n_cells=st.integers(1, 20))
    def grow(self, slot: int, n_cells: int) -> None:
        if slot in self.cells and n_cells <= self.cache.free_cells:
            self.cache.grow(slot, n_cells)
            self.cells[slot] += [object() for _ in range(n_cells)]

    @rule(source=slots, slot=slots, share=st.floats(0, 1))
    def share(self, source: int, slot: int, share: float) -> None:
        if source in self.cells and slot in self.cells and source != slot and not self.cells[slot]:
            n_cells = int(share * len(self.cells[source]))
            self.cache.share(source, slot, n_cells)
            self.cells[slot] = self.cells[source][:n_cells]

    @rule(slot=slots, share=st.floats(0, 1))
    def trim(self, slot: int, share: float) -> None:
        if slot in self.cells:
            n_cells = int(share * len(self.cells[slot]))
            self.cache.trim(slot, n_cells)
            del self.cells[slot][n_cells:]

    @rule(slot=consumes(slots))
    def close(self, slot: int) -> None:
        if slot in self.cells:
            expected = self.cache.free_cells + self.cache.freed_by([slot])
            self.cache.close(slot)
            del self.cells[slot]
            assert self.cache.free_cells == expected

    @invariant()
    def free_cells_are_those_nobody_sees(self) -> None:
        used = {cell for cells in self.cells.values() for cell in cells}
        assert self.cache.free_cells == 200 - len(used)

    @invariant()
    def books_equal_the_backend(self) -> None:
        self.cache.check_integrity(lambda slot: len(self.cells.get(slot, ())))


TestCacheMachine = CacheMachine.TestCase
