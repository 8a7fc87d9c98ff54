"""Memory of zeros goes back to the system, and nothing that was written is lost."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.worker.llamacpp.page_release import PageRelease, Span, unload_pages_of, without
from tests.engines.worker.helpers import InProcessWorker, ask, engine_config

MIB = 1024 * 1024
SIZE = 64 * MIB

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems are not asked")


class Mapped:
    """Memory of this test, written full of zeros as llama.cpp does with a new cache."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        view = (ctypes.c_char * SIZE).from_buffer(self.memory)
        ctypes.memset(view, 0, SIZE)
        del view  # or the mapping could not be closed


@pytest.fixture
def mapped() -> Iterator[list[Mapped]]:
    made: list[Mapped] = []
    yield made
    for one in made:
        one.memory.close()


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


@on_linux
def test_zeros_go_back_and_read_as_zeros(mapped: list[Mapped]) -> None:
    unused = PageRelease()
    mapped.append(Mapped())
    before = resident()

    given_back = unused.release()

    assert given_back >= SIZE - 2 * MIB
    assert before - resident() >= SIZE - 4 * MIB
    assert mapped[0].memory[:] == bytes(SIZE)


@on_linux
def test_what_was_written_stays_and_can_be_written_after(mapped: list[Mapped]) -> None:
    unused = PageRelease()
    mapped.append(Mapped())
    memory = mapped[0].memory
    expected = bytearray(SIZE)
    for place in [0, 5 * MIB + 17, 40 * MIB - 1, SIZE - 1]:
        memory[place] = expected[place] = 7

    unused.release()
    for place in [1, 20 * MIB, SIZE - 2]:
        memory[place] = expected[place] = 9

    assert memory[:] == expected


@on_linux
def test_what_was_mapped_before_is_left_alone(mapped: list[Mapped]) -> None:
    mapped.append(Mapped())
    unused = PageRelease()
    before = resident()

    unused.release()

    assert before - resident() < SIZE // 2


@on_linux
def test_pages_of_a_file_go_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"w" * SIZE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        assert memory[::4096] == b"w" * (SIZE // 4096)
        before = resident()

        unload_pages_of(path)

        assert before - resident() >= SIZE - 4 * MIB
        assert memory[-1:] == b"w"


@on_linux
def test_an_engine_takes_no_memory_for_cells_that_nobody_uses(tiny_gguf: Path) -> None:
    from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend  # noqa: PLC0415 - not for the tests above

    before = resident()
    # so many that whatever else this process takes meanwhile is little
    config = engine_config(str(tiny_gguf), n_ctx=64, kv_pool_tokens=2_000_000, n_parallel=4, n_threads=1)
    backend = LlamaCppBackend(config, lambda _: None)
    try:
        cache = backend.info.unused_bytes
        assert cache > 400 * MIB
        assert resident() - before < cache // 2
        assert len(InProcessWorker(backend).answer(ask("abc", max_tokens=20, ignore_eos=True)).tokens) == 20
    finally:
        backend.close()


def test_who_locks_memory_keeps_it(tiny_gguf: Path) -> None:
    from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend  # noqa: PLC0415

    backend = LlamaCppBackend(engine_config(str(tiny_gguf), n_ctx=64, use_mlock=True), lambda _: None)
    backend.close()

    assert backend.info.unused_bytes == 0


spans = st.lists(st.integers(0, 40), max_size=12, unique=True).map(
    lambda marks: [(a * 8 * MIB, b * 8 * MIB) for a, b in zip(*[iter(sorted(marks))] * 2, strict=False)]
)


@given(spans, spans)
def test_spans_without_others(ours: list[Span], others: list[Span]) -> None:
    def places(of: list[Span]) -> set[int]:
        return {place for start, end in of for place in range(start, end, 8 * MIB)}

    assert places([*without(ours, others)]) == places(ours) - places(others)
