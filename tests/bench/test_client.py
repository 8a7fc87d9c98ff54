from __future__ import annotations

import asyncio

import pytest

from kolosal.bench.client import Client, Request, Target
from kolosal.bench.errors import BenchError, Refused, Unreachable
from tests.bench.stub_server import StubServer

HELLO = Request.chat([{"role": "user", "content": "Hello"}], 5)


async def test_an_answer_has_text_counts_and_an_arrival_a_piece(client: Client) -> None:
    answer = await client.ask(HELLO)
    assert answer.text == "word0 word1 word2 word3 word4 "
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == (10, 5, 3)
    assert len(answer.arrivals) == 5
    assert answer.sent_at < answer.arrivals[0] <= answer.arrivals[-1] <= answer.ended_at


async def test_a_completion_is_read_as_a_chat_is(client: Client) -> None:
    assert (await client.ask(Request.complete("Once", 2))).text == "word0 word1 "


async def test_the_body_is_greedy_streamed_and_of_fixed_length(client: Client, stub: StubServer) -> None:
    await client.ask(HELLO)
    _, body = stub.bodies[0]
    assert body["temperature"] == 0
    assert body["ignore_eos"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["model"] == "stub"


async def test_a_server_that_refuses_ignore_eos_is_asked_without(client: Client, stub: StubServer) -> None:
    stub.refuses_unknown = True
    await client.probe()
    await client.ask(HELLO)
    assert all("ignore_eos" not in body for _, body in stub.bodies)


async def test_streaming_is_set_at_the_first_text(client: Client, stub: StubServer) -> None:
    streaming = asyncio.Event()
    await client.ask(HELLO, streaming)
    assert streaming.is_set()


async def test_counts_are_unknown_where_the_server_tells_none(client: Client, stub: StubServer) -> None:
    stub.with_usage = False
    assert (await client.ask(HELLO)).completion_tokens is None


async def test_a_refusal_is_told_in_the_servers_words(client: Client, stub: StubServer) -> None:
    stub.refusals = [(404, {"error": {"message": "Model 'stub' not found", "code": 404}})]
    with pytest.raises(Refused, match="HTTP 404: Model 'stub' not found"):
        await client.ask(HELLO)


async def test_an_error_in_the_stream_is_told(client: Client, stub: StubServer) -> None:
    stub.error_after = 3
    with pytest.raises(BenchError, match="the worker died"):
        await client.ask(HELLO)


async def test_an_early_end_is_a_failure(client: Client, stub: StubServer) -> None:
    stub.cut_after = 3
    with pytest.raises(BenchError, match="before the answer's end"):
        await client.ask(HELLO)


async def test_an_answer_without_text_is_a_failure(client: Client) -> None:
    with pytest.raises(BenchError, match="no text"):
        await client.ask(Request.chat([], 0))


async def test_an_answer_that_takes_too_long_is_a_failure(stub: StubServer) -> None:
    hurried = Client(Target(url=stub.url, model="stub", timeout_s=0.0))
    with pytest.raises(BenchError, match="no complete answer within 0 s"):
        await hurried.ask(HELLO)


async def test_nobody_there_is_told(stub: StubServer) -> None:
    nobody = Client(Target(url="http://127.0.0.1:1/v1", model="stub"))
    with pytest.raises(Unreachable, match=r"nothing answers at 127\.0\.0\.1 port 1"):
        await nobody.ask(HELLO)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x/v1", "http:///v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BenchError, match="--url"):
        Client(Target(url=url, model="stub"))
