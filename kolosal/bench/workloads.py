"""The workloads: what is asked, by how many at once, and which of the answers' times count.

Each is a coroutine from (client, random generator) to `Measures`. The generator makes the prompts, so two runs with
different seeds share no text. Names are an interface: the JSON output and `--only` use them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from json import dumps
from random import Random
from statistics import median
from typing import Any, TypeVar

from kolosal.bench import prompts
from kolosal.bench.answer import Answer
from kolosal.bench.client import Client, Request
from kolosal.bench.json_task import json_request, matches_schema
from kolosal.bench.load import load_to_first_token
from kolosal.bench.measures import Measures, measure

Message = dict[str, str]
Result = TypeVar("Result")

COPIED_SHARE = 0.9
"""Of a text's words, in order, from which on an answer counts as its copy: small models slip now and then."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One thing that users do."""

    name: str
    title: str
    run: Callable[[Client, Random], Awaitable[Measures]]
    by_name_only: bool = False
    """Whether it takes so long that it is run only where it is named."""


async def one_stream(client: Client, rng: Random) -> Measures:
    return measure([await client.ask(_chat(rng, 30, max_tokens=128))])


async def streams_8(client: Client, rng: Random) -> Measures:
    return measure(await together(client.ask(_chat(rng, 60, max_tokens=64)) for _ in range(8)))


async def shared_prompt_16(client: Client, rng: Random) -> Measures:
    system = _message("system", f"{prompts.fresh(rng, 1090)} Answer in short sentences.")
    requests = [Request.chat([system, _message("user", prompts.question(rng))], 32) for _ in range(16)]
    return measure(await together(map(client.ask, requests)))


async def turns_4x5(client: Client, rng: Random) -> Measures:
    talks = [_talk(client, prompts.generator(f"{rng.random()}")) for _ in range(4)]
    return measure([answer for answers in await together(talks) for answer in answers])


async def _talk(client: Client, rng: Random) -> list[Answer]:
    """Five turns of one user; every question waits for the answer before it."""
    first, *others = prompts.tasks(rng, 5)
    messages = [_message("user", f"{prompts.fresh(rng, 120)} {first}")]
    answers = [await client.ask(Request.chat(messages, 48))]
    for task in others:
        messages.append(_message("assistant", answers[-1].text))
        messages.append(_message("user", task))
        answers.append(await client.ask(Request.chat(messages, 48)))
    return answers


async def returning_20(client: Client, rng: Random) -> Measures:
    """First-token times are those of second turns, after 19 others have had their cells."""
    talks = [[_message("user", f"{prompts.fresh(rng, 2960)} Go on.")] for _ in range(20)]
    rounds: list[list[Answer]] = []
    for _ in range(2):
        rounds.append([await client.ask(Request.chat(talk, 16)) for talk in talks])
        for talk, answer in zip(talks, rounds[-1], strict=True):
            talk += [_message("assistant", answer.text), _message("user", "And then?")]
    first, second = rounds
    computed_s = median(answer.ttft_s for answer in first)
    return measure([*first, *second], first=second, note=f"first turns: first token p50 {computed_s:.2f} s")


async def json_schema_4(client: Client, rng: Random) -> Measures:
    requests = [json_request(prompts.fresh(rng, 40)) for _ in range(4)]
    answers = await together(map(client.ask, requests))
    return measure(answers, valid_answers=sum(matches_schema(answer.text) for answer in answers))


async def repeat_text(client: Client, rng: Random) -> Measures:
    """A text twice and the beginning of a third copy: a model of any size goes on copying, word for word or nearly."""
    text = prompts.prose(rng, 190)
    words = text.split()
    opening = " ".join(words[:8])
    answer = await client.ask(Request.complete(f"{text}\n\n{text}\n\n{opening}", 200))
    copied = share_copied(words[8:], answer.text.split())
    return measure([answer], valid_answers=int(copied >= COPIED_SHARE))


async def edit_code(client: Client, rng: Random) -> Measures:
    """A chat that is asked for the same code with one change: a small model may forget the change, but repeats the code."""
    source, name = prompts.code(rng, 4)
    task = f"Write this code again, with the function `{name}` renamed to `main`. Answer with the code only."
    message = _message("user", f"{prompts.nonce(rng)}\n```python\n{source}```\n\n{task}")
    answer = await client.ask(Request.chat([message], 176))
    copied = share_copied(source.split(), answer.text.split())
    return measure([answer], valid_answers=int(copied >= COPIED_SHARE))


def share_copied(wanted: list[str], got: list[str]) -> float:
    """How much of `wanted` stands in `got` in the same order, 0…1."""
    blocks = SequenceMatcher(None, wanted, got, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / len(wanted)


async def long_prompt_beside_3(client: Client, rng: Random) -> Measures:
    """First-token times are the long prompt's, gaps are the others' while it waits for its first token."""
    streaming = [asyncio.Event() for _ in range(3)]
    streams = [client.ask(_chat(rng, 60, max_tokens=256), event) for event in streaming]
    request = _chat(rng, 1900, max_tokens=16)

    async def arrive() -> Answer:
        for event in streaming:
            await event.wait()
        return await client.ask(request)

    *others, long = await together([*streams, arrive()])
    until = long.arrivals[0]
    gaps = [gap for answer in others for gap in answer.gaps_within(long.sent_at, until)]
    early = sum(answer.arrivals[-1] < until for answer in others)
    note = f"{early} of 3 streams ended before the long prompt was read" if early else None
    return measure([*others, long], first=[long], gaps=gaps, note=note)


async def rag_8(client: Client, rng: Random) -> Measures:
    """Every user asks about the same documents, which a search has put in another order for each."""
    documents = [f"Document {number}: {prompts.fresh(rng, 300)}" for number in range(1, 5)]
    task = f"{prompts.nonce(rng)} Answer from these documents."
    requests = []
    for _ in range(8):
        found = "\n\n".join(rng.sample(documents, len(documents)))
        system = _message("system", f"{task}\n\n{found}")
        requests.append(Request.chat([system, _message("user", prompts.question(rng))], 32))
    return measure(await together(map(client.ask, requests)))


async def agent_loop(client: Client, rng: Random) -> Measures:
    """One agent whose system prompt describes many tools: what a tool said is short, and so are its answers."""
    tools = [
        {
            "name": f"tool_{number}",
            "description": prompts.text(rng, 250),
            "parameters": {"type": "object", "properties": {"what": {"description": prompts.text(rng, 120)}}},
        }
        for number in range(30)
    ]
    messages = [_message("system", f"{prompts.nonce(rng)} You may call these tools: {dumps(tools)}")]
    answers: list[Answer] = []
    for _ in range(10):
        messages.append(_message("user", f"The tool said: {prompts.text(rng, 60)}"))
        answers.append(await client.ask(Request.chat(messages, 24)))
        messages.append(_message("assistant", answers[-1].text))
    return measure(answers)


async def short_64(client: Client, rng: Random) -> Measures:
    return measure(await together(client.ask(_chat(rng, 40, max_tokens=24)) for _ in range(64)))


WORKLOADS = (
    Workload("one_stream", "1 stream, 128 tokens", one_stream),
    Workload("streams_8", "8 streams at once, 64 tokens each", streams_8),
    Workload("shared_prompt_16", "16 users, one 1,100-token system prompt, 32 tokens each", shared_prompt_16),
    Workload("turns_4x5", "4 users, 5 growing turns of 48 tokens", turns_4x5),
    Workload(
        "returning_20",
        "20 users of 3,000 tokens come back one after the other",
        returning_20,
        by_name_only=True,
    ),
    Workload("json_schema_4", "4 streams of JSON by a schema, 256 tokens at most", json_schema_4),
    Workload("repeat_text", "1 stream that repeats a given text, 200 tokens", repeat_text),
    Workload("edit_code", "1 chat that repeats code with one change, 176 tokens", edit_code),
    Workload(
        "long_prompt_beside_3", "a 1,930-token prompt arrives beside 3 running streams", long_prompt_beside_3
    ),
    Workload("rag_8", "8 users, four 300-token documents in different order, 32 tokens each", rag_8),
    Workload(
        "agent_loop", "1 agent, a 12,000-token system prompt with 30 tools, 10 turns of 24 tokens", agent_loop
    ),
    Workload("short_64", "64 users at once, short prompts, 24 tokens each", short_64),
    Workload("load", "load a model and get the first token", load_to_first_token),
)


async def together(coroutines: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results, in order; the first failure ends the others."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _chat(rng: Random, tokens: int, max_tokens: int) -> Request:
    """One fresh question of about `tokens` tokens."""
    task = "Write a long story about this."
    return Request.chat([_message("user", f"{prompts.fresh(rng, tokens - 7)} {task}")], max_tokens)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
