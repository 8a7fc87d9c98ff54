from __future__ import annotations

import asyncio

import pytest

from kolosal.engines.stream import Completion, RequestStream
from kolosal.errors import EngineDied, GenerationFailed
from kolosal.observe.observer import Observer
from kolosal.schema import FinishReason, TokenDelta, Usage

USAGE = Usage(3, 2)
LAST = TokenDelta("!", (9,), FinishReason.STOP, USAGE)


class Aborts:
    """Counts how often the engine was told."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def aborts() -> Aborts:
    return Aborts()


@pytest.fixture
def stream(aborts: Aborts) -> RequestStream:
    return RequestStream(aborts, Observer().begin("test"))


async def rest(stream: RequestStream) -> list[TokenDelta]:
    return [delta async for delta in stream]


# --- deltas ---


async def test_delta_is_delivered(stream: RequestStream) -> None:
    stream.put(TokenDelta("a", (1,)))

    assert await anext(stream) == TokenDelta("a", (1,))


async def test_waiting_consumer_wakes(stream: RequestStream) -> None:
    consumer = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream.put(TokenDelta("a"))

    assert await consumer == TokenDelta("a")


async def test_slow_consumer_gets_deltas_merged(stream: RequestStream) -> None:
    stream.put(TokenDelta("a", (1,)))
    stream.put(TokenDelta("b", (2,)))

    assert await anext(stream) == TokenDelta("ab", (1, 2))


async def test_merged_delta_keeps_the_end(stream: RequestStream) -> None:
    stream.put(TokenDelta("a", (1,)))
    stream.put(LAST)

    assert await rest(stream) == [TokenDelta("a!", (1, 9), FinishReason.STOP, USAGE)]


async def test_iteration_ends_after_the_last_delta(stream: RequestStream) -> None:
    stream.put(TokenDelta("a"))
    first = await anext(stream)
    stream.put(LAST)

    assert [first, *await rest(stream)] == [TokenDelta("a"), LAST]


async def test_what_comes_after_the_end_is_dropped(stream: RequestStream) -> None:
    stream.put(LAST)
    stream.put(TokenDelta("late"))

    assert await rest(stream) == [LAST]


async def test_iteration_over_an_ended_stream_ends_again(stream: RequestStream) -> None:
    stream.put(LAST)
    await rest(stream)

    assert await rest(stream) == []


# --- errors ---


async def test_error_is_raised_at_the_consumer(stream: RequestStream) -> None:
    stream.fail(EngineDied("gone"))
    with pytest.raises(EngineDied, match="gone"):
        await anext(stream)


async def test_delta_before_an_error_is_delivered_first(stream: RequestStream) -> None:
    stream.put(TokenDelta("a"))
    stream.fail(EngineDied("gone"))

    assert await anext(stream) == TokenDelta("a")


async def test_error_after_a_pending_delta_is_raised_next(stream: RequestStream) -> None:
    stream.put(TokenDelta("a"))
    stream.fail(EngineDied("gone"))
    await anext(stream)
    with pytest.raises(EngineDied):
        await anext(stream)


async def test_error_after_the_end_is_ignored(stream: RequestStream) -> None:
    stream.put(LAST)
    stream.fail(EngineDied("gone"))

    assert await rest(stream) == [LAST]


async def test_first_error_stays(stream: RequestStream) -> None:
    stream.fail(GenerationFailed("first"))
    stream.fail(EngineDied("second"))
    with pytest.raises(GenerationFailed):
        await anext(stream)


async def test_waiting_consumer_wakes_for_an_error(stream: RequestStream) -> None:
    consumer = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    stream.fail(EngineDied("gone"))
    with pytest.raises(EngineDied):
        await consumer


# --- abort ---


async def test_abort_tells_the_engine_once(stream: RequestStream, aborts: Aborts) -> None:
    stream.abort()
    stream.abort()

    assert aborts.count == 1


async def test_abort_after_the_end_tells_nobody(stream: RequestStream, aborts: Aborts) -> None:
    stream.put(LAST)
    stream.abort()

    assert aborts.count == 0


async def test_abort_after_an_error_tells_nobody(stream: RequestStream, aborts: Aborts) -> None:
    stream.fail(EngineDied("gone"))
    stream.abort()

    assert aborts.count == 0


async def test_stream_that_is_stopped_ends_as_its_model_would_have_ended_it(
    stream: RequestStream, aborts: Aborts
) -> None:
    stream.put(TokenDelta("a", (1,), usage=Usage(3, 1)))
    stream.put(TokenDelta("b", (2, 3)))
    stream.stop()
    stream.stop()
    stream.put(TokenDelta("c", (4,)))

    assert await stream.collect() == Completion("ab", FinishReason.STOP, Usage(3, 3), (1, 2, 3))
    assert aborts.count == 1


async def test_abort_drops_what_is_pending(stream: RequestStream) -> None:
    stream.put(TokenDelta("a"))
    stream.abort()

    assert await rest(stream) == []


async def test_waiting_consumer_wakes_for_an_abort(stream: RequestStream) -> None:
    consumer = asyncio.create_task(rest(stream))
    await asyncio.sleep(0)
    stream.abort()

    assert await consumer == []


async def test_abort_works_in_the_finally_of_a_cancelled_task(stream: RequestStream, aborts: Aborts) -> None:
    async def consume() -> None:
        try:
            await rest(stream)
        finally:
            stream.abort()

    task = asyncio.create_task(consume())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert aborts.count == 1


# --- ready ---


async def test_ready_does_not_take_the_delta(stream: RequestStream) -> None:
    stream.put(LAST)
    await stream.ready()

    assert await rest(stream) == [LAST]


async def test_ready_waits_for_the_first_event(stream: RequestStream) -> None:
    waiting = asyncio.create_task(stream.ready())
    await asyncio.sleep(0)
    before = waiting.done()
    stream.put(TokenDelta("a"))
    await waiting

    assert not before


async def test_ready_raises_an_error_that_came_first(stream: RequestStream) -> None:
    stream.fail(GenerationFailed("no"))
    with pytest.raises(GenerationFailed):
        await stream.ready()


async def test_ready_leaves_an_error_after_a_delta_to_the_iteration(stream: RequestStream) -> None:
    stream.put(TokenDelta("a"))
    stream.fail(EngineDied("gone"))
    await stream.ready()

    assert await anext(stream) == TokenDelta("a")


# --- collect ---


async def test_collect_sums_the_deltas(stream: RequestStream) -> None:
    collected = asyncio.create_task(stream.collect())
    for delta in (TokenDelta("a"), TokenDelta("b"), LAST):
        stream.put(delta)
        await asyncio.sleep(0)

    assert await collected == Completion("ab!", FinishReason.STOP, USAGE, LAST.tokens)


async def test_collect_raises_the_error_after_some_text(stream: RequestStream) -> None:
    stream.put(TokenDelta("a"))
    stream.fail(EngineDied("gone"))
    with pytest.raises(EngineDied):
        await stream.collect()


async def test_collect_of_an_aborted_stream_is_cancelled(stream: RequestStream) -> None:
    collected = asyncio.create_task(stream.collect())
    await asyncio.sleep(0)
    stream.abort()
    await asyncio.wait([collected])

    assert collected.cancelled()


async def test_usage_is_known_from_the_first_tokens_on(stream: RequestStream) -> None:
    assert stream.usage is None
    stream.put(TokenDelta("a", usage=Usage(7, 1)))
    stream.put(TokenDelta("b"))
    assert stream.usage == Usage(7, 1)
    assert (await anext(stream)).usage == Usage(7, 1)
    stream.put(LAST)
    assert stream.usage == USAGE
