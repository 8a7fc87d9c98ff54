from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from kolosal.bench.client import Client
from kolosal.bench.errors import BenchError, Skipped
from kolosal.bench.run import chosen, run_once
from kolosal.bench.workloads import WORKLOADS, share_copied, together
from tests.bench.stub_server import ORDER, StubServer

GENERATING = [workload.name for workload in WORKLOADS if workload.name != "load"]


async def run(client: Client, name: str, seed: str = "1") -> Any:
    return await run_once(chosen([name])[0], client, seed)


@pytest.mark.parametrize(
    ("name", "requests", "tokens"),
    [
        ("one_stream", 1, 128),
        ("streams_8", 8, 512),
        ("shared_prompt_16", 16, 512),
        ("turns_4x5", 20, 960),
        ("returning_20", 40, 640),
        ("repeat_text", 1, 200),
        ("edit_code", 1, 176),
        ("long_prompt_beside_3", 4, 784),
        ("rag_8", 8, 256),
        ("agent_loop", 10, 240),
        ("short_64", 64, 1536),
    ],
)
async def test_a_workload_asks_for_what_its_title_says(
    client: Client, name: str, requests: int, tokens: int
) -> None:
    figures = await run(client, name)
    assert (figures.requests, figures.completion_tokens) == (requests, tokens)


@pytest.mark.parametrize(("name", "at_once"), [("streams_8", 8), ("shared_prompt_16", 16), ("turns_4x5", 4)])
async def test_users_come_at_once(client: Client, stub: StubServer, name: str, at_once: int) -> None:
    await run(client, name)
    assert 1 < stub.most_streams <= at_once


@pytest.mark.parametrize("name", GENERATING)
async def test_prompts_are_fresh_with_each_seed(client: Client, stub: StubServer, name: str) -> None:
    await run(client, name, "1")
    first = {prompt[:30] for prompt in stub.prompts()}
    stub.bodies.clear()
    await run(client, name, "2")
    assert first.isdisjoint(prompt[:30] for prompt in stub.prompts())


async def test_users_share_one_system_prompt_and_ask_different_things(
    client: Client, stub: StubServer
) -> None:
    await run(client, "shared_prompt_16")
    assert len(set(stub.prompts())) == 1
    assert 900 < len(stub.prompts()[0].split()) < 1000
    questions = {body["messages"][1]["content"] for _, body in stub.bodies}
    assert len(questions) > 12


async def test_turns_grow_by_the_servers_answers(client: Client, stub: StubServer) -> None:
    await run(client, "turns_4x5")
    talks = sorted((body["messages"] for _, body in stub.bodies), key=len)
    assert [len(messages) for messages in talks] == [n for n in (1, 3, 5, 7, 9) for _ in range(4)]
    assert talks[-1][1]["content"].startswith("word0 word1")
    assert talks[-1][:7] in talks


async def test_json_answers_are_validated(client: Client, stub: StubServer) -> None:
    assert (await run(client, "json_schema_4")).valid_answers == 4
    stub.json_answer = {**ORDER, "priority": 9}
    assert (await run(client, "json_schema_4")).valid_answers == 0
    assert all("ignore_eos" not in body for _, body in stub.bodies)


async def test_the_text_to_repeat_is_given_twice_and_begun(client: Client, stub: StubServer) -> None:
    figures = await run(client, "repeat_text")
    first, second, opening = stub.prompts()[0].split("\n\n")
    assert first == second
    assert first.startswith(opening)
    assert figures.valid_answers == 0


async def test_the_code_to_repeat_defines_what_is_to_be_renamed(client: Client, stub: StubServer) -> None:
    await run(client, "edit_code")
    _, source, task = stub.prompts()[0].split("```")
    names = [line.split()[1].partition("(")[0] for line in source.splitlines() if line.startswith("def ")]
    assert len(set(names)) == 4
    assert f"`{names[0]}` renamed" in task


def test_a_copy_with_a_slip_counts_by_its_share() -> None:
    assert share_copied(list("abcdefghij"), list("abcdXfghijrest")) == pytest.approx(0.9)
    assert share_copied(list("abc"), []) == 0


async def test_the_long_prompt_comes_when_all_three_stream(client: Client, stub: StubServer) -> None:
    await run(client, "long_prompt_beside_3")
    lengths = [len(prompt.split()) for prompt in stub.prompts()]
    assert [length > 1500 for length in lengths] == [False, False, False, True]


async def test_load_is_skipped_with_a_reason_where_the_server_is_not_ours(client: Client) -> None:
    with pytest.raises(Skipped, match="not Kolosal"):
        await run(client, "load")


async def test_load_adds_an_engine_asks_it_and_removes_it(client: Client, stub: StubServer) -> None:
    stub.engine = {"model_path": "m.gguf", "loading_parameters": {"n_ctx": 64}}
    figures = await run(client, "load")
    (_, body) = stub.bodies[-1]
    added = body["model"]
    assert added.startswith("bench-")
    assert stub.engine_calls == [
        ("GET", "/engines/stub"),
        ("POST", "/engines"),
        ("DELETE", f"/engines/{added}"),
    ]
    assert 0 < figures.load_s <= figures.ttft_max_s


async def test_a_failed_request_ends_the_workload(client: Client, stub: StubServer) -> None:
    stub.refusals = [(500, {"error": {"message": "out of memory"}})]
    with pytest.raises(BenchError, match="HTTP 500: out of memory"):
        await run(client, "streams_8")


async def test_together_keeps_order_and_cancels_the_rest_at_a_failure() -> None:
    async def value(number: int) -> int:
        return number

    async def fail() -> int:
        raise BenchError("no")

    cancelled = asyncio.Event()

    async def wait() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return 0

    assert await together(value(n) for n in range(3)) == [0, 1, 2]
    failing: list[Coroutine[Any, Any, int]] = [wait(), fail()]
    with pytest.raises(BenchError, match="no"):
        await together(failing)
    assert cancelled.is_set()
