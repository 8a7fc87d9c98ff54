"""What charts are made of: rates between two rows, and percentiles of first tokens."""

from __future__ import annotations

import pytest

from kolosal.observe.history import COLUMNS, MAX_ROWS, History, percentiles
from kolosal.observe.nvml import GpuReport
from kolosal.observe.observer import Observer
from kolosal.observe.system import SystemUse
from kolosal.schema import FinishReason, TokenDelta, Usage
from tests.observe.test_observer import Clock, stream_of

USE = SystemUse(50.0, 1000, 400, GpuReport(), 10, {"a": 20})


async def test_rates_are_since_the_row_before() -> None:
    clock = Clock()
    observer = Observer(clock)
    history = History(observer)
    stream = stream_of(observer)
    stream.put(TokenDelta("a", (1, 2), usage=Usage(30, 2, 10)))
    clock.now += 2
    history.take(USE, 32, 64)
    stream.put(TokenDelta("b", (3, 4), FinishReason.STOP, Usage(30, 4, 10)))
    clock.now += 4
    history.take(USE, 32, 64)
    first, second = (dict(zip(COLUMNS, row, strict=True)) for row in history.after(0))
    assert (first["output_tokens_per_s"], first["prompt_tokens_per_s"], first["running"]) == (1.0, 10.0, 1)
    assert (second["output_tokens_per_s"], second["prompt_tokens_per_s"], second["running"]) == (0.5, 0.0, 0)
    assert (second["requests_per_s"], second["failed_per_s"]) == (0.25, 0.0)
    assert (second["memory_used_bytes"], second["workers_bytes"], second["gpu_used_bytes"]) == (600, 30, None)
    assert (second["kv_cells"], second["kv_pool_tokens"]) == (32, 64)


async def test_rows_are_bounded_and_read_from_where_one_was() -> None:
    history = History(Observer())
    for _ in range(MAX_ROWS + 5):
        history.take(USE, 0, 0)
    rows = history.after(0)
    assert len(rows) == MAX_ROWS
    assert history.after(int(rows[-1][0] or 0)) == []


@pytest.mark.parametrize(
    ("values", "found"), [([], [None, None]), ([7], [7, 7]), (range(1, 101), [50, 95]), ([3, 1, 2], [2, 3])]
)
def test_percentiles(values: list[float], found: list[float | None]) -> None:
    assert percentiles(values, (0.5, 0.95)) == found
