"""Event streams: what is sent, and that everything stops whichever way a stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.types import Message

from kolosal.errors import EngineDied, KolosalError
from kolosal.http.sse import DONE, NDJSON, EventStream, data_frame
from tests.fakes import AsgiRequest


def _error(error: KolosalError) -> bytes:
    return data_frame({"error": error.message})


class Source:
    """Frames for a response, and what became of them."""

    def __init__(self, *frames: bytes, fail: Exception | None = None, hang: bool = False) -> None:
        self.frames, self.fail, self.hang = frames, fail, hang
        self.closed = 0
        self.ended = False

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for frame in self.frames:
                yield frame
            if self.fail is not None:
                raise self.fail
            if self.hang:
                await asyncio.Event().wait()
        finally:
            self.ended = True

    def close(self) -> None:
        self.closed += 1

    def response(self, ping_interval_s: float = 60) -> EventStream:
        return EventStream(self(), self.close, _error, ping_interval_s=ping_interval_s)


async def test_frames_are_sent_as_they_are_and_the_response_ends() -> None:
    source, request = Source(data_frame({"a": "é\n"}), DONE), AsgiRequest()
    await request.receive()
    await request.start(source.response())
    assert request.content == 'data: {"a":"é\\n"}\n\ndata: [DONE]\n\n'.encode()
    assert request.complete
    assert source.closed == 1
    headers = dict(request.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert headers[b"cache-control"] == b"no-cache"
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"content-length" not in headers


async def test_lines_of_json_have_their_own_media_type_and_no_pings() -> None:
    source, request = Source(b"{}\n", hang=True), AsgiRequest()
    await request.receive()
    response = EventStream(source(), source.close, _error, ping=None, ping_interval_s=0, media_type=NDJSON)
    task = request.start(response)
    await request.until(b"{}\n")
    request.leave()
    await task
    assert request.content == b"{}\n"
    assert dict(request.sent[0]["headers"])[b"content-type"] == b"application/x-ndjson"


async def test_a_known_error_is_the_last_frame_and_nothing_follows() -> None:
    source, request = Source(b"data: 1\n\n", fail=EngineDied("gone")), AsgiRequest()
    await request.receive()
    await request.start(source.response())
    assert request.content == b'data: 1\n\ndata: {"error":"gone"}\n\n'
    assert request.complete
    assert source.closed == 1


async def test_an_unforeseen_error_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    source, request = Source(b"data: 1\n\n", fail=RuntimeError("at 0x7f00")), AsgiRequest()
    await request.receive()
    await request.start(source.response())
    assert request.content == b'data: 1\n\ndata: {"error":"Internal server error"}\n\n'
    assert source.closed == 1
    assert "at 0x7f00" in caplog.text


async def test_a_client_that_leaves_closes_the_source() -> None:
    source, request = Source(b"data: 1\n\n", hang=True), AsgiRequest()
    await request.receive()
    task = request.start(source.response())
    await request.until(b"data: 1")
    request.leave()
    await task
    assert (source.closed, source.ended, request.complete) == (1, True, False)


async def test_a_cancelled_response_closes_the_source() -> None:
    source, request = Source(b"data: 1\n\n", hang=True), AsgiRequest()
    await request.receive()
    task = request.start(source.response())
    await request.until(b"data: 1")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (source.closed, source.ended) == (1, True)


async def test_a_response_whose_start_cannot_be_sent_closes_the_source() -> None:
    source, request = Source(b"data: 1\n\n"), AsgiRequest()

    async def broken(_message: Message) -> None:
        raise OSError("connection lost")

    with pytest.raises(OSError, match="connection lost"):
        await source.response()(request.scope, request.receive, broken)
    assert source.closed == 1


async def test_a_reader_that_takes_nothing_blocks_the_source_and_leaving_frees_it() -> None:
    source, request = Source(*[b"data: 1\n\n"] * 10, hang=True), AsgiRequest()
    await request.receive()
    full = asyncio.Event()

    async def send(message: Message) -> None:
        request.sent.append(message)
        if len(request.sent) > 3:
            full.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(source.response()(request.scope, request.receive, send))
    await full.wait()
    request.leave()
    await task
    assert (source.closed, source.ended, len(request.sent)) == (1, True, 4)


async def test_pings_fill_silence() -> None:
    source, request = Source(b"data: 1\n\n", hang=True), AsgiRequest()
    await request.receive()
    task = request.start(source.response(ping_interval_s=0.01))
    await request.until(b"data: 1\n\n: ping\n\n: ping\n\n")
    request.leave()
    await task
    assert source.closed == 1


async def test_no_ping_while_events_come() -> None:
    source, request = Source(*[b"data: 1\n\n"] * 50, DONE), AsgiRequest()
    await request.receive()
    await request.start(source.response(ping_interval_s=60))
    assert b"ping" not in request.content
