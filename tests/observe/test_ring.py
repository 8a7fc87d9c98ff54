"""A ring keeps the last items; readers follow it at their own pace and are told what they lost."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from kolosal.observe.logtail import MAX_LINE_CHARS, MAX_LINES, LogTail
from kolosal.observe.ring import Ring
from tests.fakes import eventually


@given(st.integers(1, 8), st.lists(st.one_of(st.just("read"), st.integers(0, 5)), max_size=60))
def test_a_reader_gets_every_item_or_is_told_how_many_it_lost(max_count: int, steps: list[str | int]) -> None:
    ring: Ring[int] = Ring(max_count)
    position = seen = lost = 0
    for step in (*steps, "read"):
        if isinstance(step, int):
            for _ in range(step):
                ring.append(ring.newest + 1)
            continue
        batch = ring.after(position)
        assert batch.items == tuple(range(batch.first, batch.last + 1))
        seen, lost, position = seen + len(batch.items), lost + batch.lost, batch.last
        assert len(batch.items) <= max_count
    assert seen + lost == ring.newest


@given(st.lists(st.text(max_size=20)), st.integers(1, 5), st.integers(1, 40))
def test_both_bounds_hold(items: list[str], max_count: int, max_size: int) -> None:
    ring: Ring[str] = Ring(max_count, max_size, len)
    for item in items:
        ring.append(item)
        kept = ring.last(100).items
        assert kept[-1] == item
        assert len(kept) <= max_count
        assert sum(map(len, kept)) <= max_size or len(kept) == 1


async def test_a_follower_waits_for_what_comes_and_ends_when_the_ring_is_closed() -> None:
    ring: Ring[str] = Ring(10)
    ring.append("before")
    got: list[str] = []

    async def follow() -> None:
        async for batch in ring.follow(ring.newest):
            got.extend(batch.items)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    ring.append("a")
    ring.append("b")
    await eventually(lambda: got == ["a", "b"])
    ring.append("c")
    ring.close()
    await following
    assert got == ["a", "b", "c"]


def test_lines_are_made_of_whatever_pieces_come() -> None:
    tail = LogTail()
    for piece in (b"one\ntw", b"o\r\n\x1b[31mred\n10 %\r20 %\n", b"\xff\xfe\nlast", b""):
        tail.feed(piece)
    assert tail.ring.last(10).items == ("one", "two", " [31mred", "20 %", "\ufffd\ufffd", "last")


def test_a_worker_that_never_ends_its_line_costs_no_memory() -> None:
    tail = LogTail()
    for _ in range(3000):
        tail.feed(b"x" * 8192)
    lines = tail.ring.last(MAX_LINES).items
    assert max(map(len, lines)) == MAX_LINE_CHARS
    assert sum(map(len, lines)) <= 512 * 1024
