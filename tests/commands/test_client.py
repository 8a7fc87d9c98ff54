"""DaemonClient over a mock transport: streams in any shape, and what a broken peer can send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.commands.address import Address
from kolosal.commands.answers import EngineView
from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import ApiError, CommandError, DaemonUnreachable
from kolosal.event_source import MAX_EVENT_BYTES, aiter_events

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def chunk(text: str) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False)


def event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for part in chunks:
        yield part


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> DaemonClient:
    return DaemonClient(Address("http://daemon"), httpx.MockTransport(answer))


async def answer_to(*chunks: bytes) -> list[str]:
    async with client_of(lambda _: httpx.Response(200, headers=EVENTS, content=chunks_of(*chunks))) as client:
        return [piece async for piece in client.chat("a", [])]


@given(st.lists(st.text(min_size=1), min_size=1), st.integers(1, 7))
def test_an_answer_is_the_same_however_the_network_cuts_it(pieces: list[str], size: int) -> None:
    content = b"".join(b": ping\n\n" + event(json.dumps(piece)) for piece in pieces)
    cut = [content[i : i + size] for i in range(0, len(content), size)]

    async def read() -> list[str]:
        response = httpx.Response(200, headers=EVENTS, content=chunks_of(*cut))
        return [json.loads(event.data) async for event in aiter_events(response)]

    assert asyncio.run(read()) == pieces


async def test_text_with_a_line_separator_is_one_piece() -> None:
    assert await answer_to(event(chunk("a\u2028b\x85c")), event("[DONE]")) == ["a\u2028b\x85c"]


async def test_chunks_without_text_are_no_pieces() -> None:
    nothing = (
        '{"choices": []}',
        '{"choices": [{"delta": {}}]}',
        '{"choices": [{}]}',
        '{"usage": {}}',
        chunk(""),
    )
    assert await answer_to(*map(event, nothing), event("[DONE]")) == []


async def test_an_error_in_the_stream_is_raised() -> None:
    with pytest.raises(ApiError, match="engine died"):
        await answer_to(event(chunk("a")), event('{"error": {"message": "engine died"}}'))


async def test_a_stream_without_its_end_is_an_error() -> None:
    with pytest.raises(CommandError, match="early"):
        await answer_to(event(chunk("a")))


@pytest.mark.parametrize("data", ["{", "[]", "null", "[" * 100_000])
async def test_an_event_that_is_no_chunk_is_an_error(data: str) -> None:
    with pytest.raises(CommandError, match="not a Kolosal daemon"):
        await answer_to(event(data))


async def test_an_endless_line_is_an_error() -> None:
    with pytest.raises(CommandError, match="16 MiB"):
        await answer_to(b"data: ", b"x" * MAX_EVENT_BYTES)


async def test_an_endless_event_of_many_lines_is_an_error() -> None:
    line = b"data: " + b"x" * 1024 * 1024 + b"\n"
    with pytest.raises(CommandError, match="16 MiB"):
        await answer_to(*[line] * 17)


async def test_what_sends_no_events_is_no_daemon() -> None:
    page = httpx.Response(200, headers={"content-type": "text/html"}, content=b"data: x\n\n")
    async with client_of(lambda _: page) as client:
        with pytest.raises(CommandError, match="not a Kolosal daemon"):
            await anext(client.chat("a", []))


async def test_a_refused_chat_is_told_in_the_daemons_words() -> None:
    refusal = httpx.Response(404, json={"error": {"message": "Model 'a' not found"}})
    async with client_of(lambda _: refusal) as client:
        with pytest.raises(ApiError, match="Model 'a' not found"):
            await anext(client.chat("a", []))


class Endless(httpx.AsyncByteStream):
    """The same piece for ever."""

    closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield event(chunk("a"))

    async def aclose(self) -> None:
        self.closed = True


async def test_closing_an_answer_closes_its_connection() -> None:
    stream = Endless()
    async with client_of(lambda _: httpx.Response(200, headers=EVENTS, stream=stream)) as client:
        async with aclosing(client.chat("a", [])) as pieces:
            await anext(pieces)
        assert stream.closed


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("x"), DaemonUnreachable),
        (httpx.ConnectTimeout("x"), DaemonUnreachable),
        (httpx.ReadError(""), CommandError),
    ],
)
async def test_a_broken_connection_is_a_client_error(error: Exception, kind: type[Exception]) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error

    async with client_of(fail) as client:
        for call in (client.health(), anext(client.chat("a", []))):
            with pytest.raises(CommandError) as raised:
                await call
            assert type(raised.value) is kind


async def test_progress_is_reported_until_the_load_ends() -> None:
    reported: list[float] = []
    enough = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            await enough.wait()
            return httpx.Response(201, json={"status": "loaded"})
        return httpx.Response(200, json={"engine_id": "a", "load_progress": 0.5})

    def on_progress(fraction: float) -> None:
        reported.append(fraction)
        enough.set()

    async with DaemonClient(Address("http://daemon"), httpx.MockTransport(answer)) as client:
        assert await client.add_engine({"engine_id": "a"}, on_progress) == {"status": "loaded"}
    assert reported[0] == 0.5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
NAMES = ("engine_id", "status", "state", "model_path", "last_accessed", "load_progress", "loading_parameters")


@given(st.dictionaries(st.sampled_from(NAMES), json_values))
def test_a_view_is_made_of_whatever_was_sent(body: dict[str, object]) -> None:
    EngineView.parse(body)  # type: ignore[arg-type]
