from __future__ import annotations

from collections.abc import Callable

import pytest

from kolosal.engines.worker.kvcache import IntegrityError, KVCache


def cells(*lengths: int) -> Callable[[int], int]:
    """A backend that holds so many cells for sequence id 0, 1, …"""
    return lambda slot: lengths[slot]


def test_new_cache_is_free() -> None:
    assert KVCache(100, 2).free_cells == 100


def test_sequence_ids_are_handed_out_once() -> None:
    cache = KVCache(100, 3)

    assert sorted(cache.open() for _ in range(3)) == [0, 1, 2]


def test_no_sequence_id_is_left_when_all_are_out() -> None:
    cache = KVCache(100, 1)
    cache.open()

    assert not cache.has_free_slot


def test_closed_sequence_id_can_be_opened_again() -> None:
    cache = KVCache(100, 1)
    cache.close(cache.open())

    assert cache.has_free_slot


def test_growing_takes_cells() -> None:
    cache = KVCache(100, 1)
    cache.grow(cache.open(), 30)

    assert cache.free_cells == 70


def test_closing_gives_all_cells_back() -> None:
    cache = KVCache(100, 2)
    first, second = cache.open(), cache.open()
    cache.grow(first, 30)
    cache.grow(second, 40)
    cache.close(first)

    assert cache.free_cells == 60


def test_growing_beyond_the_cells_is_an_integrity_error() -> None:
    cache = KVCache(100, 1)
    slot = cache.open()
    with pytest.raises(IntegrityError, match="101 cells"):
        cache.grow(slot, 101)


def test_integrity_holds_where_the_backend_agrees() -> None:
    cache = KVCache(100, 2)
    cache.grow(cache.open(), 30)

    cache.check_integrity(cells(30, 0))


def test_integrity_error_names_the_sequence_id_that_differs() -> None:
    cache = KVCache(100, 2)
    cache.grow(cache.open(), 30)
    with pytest.raises(IntegrityError, match="sequence id 0 has 31 cells, the books say 30"):
        cache.check_integrity(cells(31, 0))


def test_cells_of_a_free_sequence_id_are_an_integrity_error() -> None:
    cache = KVCache(100, 2)
    with pytest.raises(IntegrityError, match="sequence id 1 has 5 cells"):
        cache.check_integrity(cells(0, 5))
