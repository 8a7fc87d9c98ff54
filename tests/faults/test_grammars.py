"""R1, R2: grammars of one request cost the others nothing, and one that fails is an error."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from kolosal.engines.ipc.command import WorkerCommand
from kolosal.schema import Grammar, GrammarKind
from tests.engines.helpers import eventually
from tests.engines.worker.grammars.hostile_grammars import AMBIGUOUS, DEEP, FAILING, SLOW
from tests.engines.worker.helpers import counting
from tests.fakes import http_client
from tests.faults.test_disconnects import served

Seen = Callable[[str], None]
Sized = Callable[[int, int], int]
FakeWorker = Callable[..., WorkerCommand]
Body = dict[str, Any]

WITHIN_S = 20, 2
"""Until what is hostile is refused, and others have their first token; where others use the machine too, and as it is demanded."""

SLOW_STEPS = "step_s=0.002"

N_TOKENS = 2000

N_CTX = 200_000
"""Has room for a tool of many characters, each of which is a token to the fake."""

MESSAGES = [{"role": "user", "content": "5:"}]
TOOL = "t"


def field_of(grammar: Grammar) -> Body:
    """A field of completions."""
    names = {GrammarKind.GBNF: "grammar", GrammarKind.REGEX: "regex", GrammarKind.LARK: "lark"}
    if grammar.kind is GrammarKind.JSON_SCHEMA:
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": json.loads(grammar.source)},
            }
        }
    return {names[grammar.kind]: grammar.source}


CHAIN = json.loads(DEEP["ref-chain"].source)
ARGUMENTS = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a0"}}, "$defs": CHAIN["$defs"]}
"""Of strict tools: others that cannot be compiled take any object."""

SURFACES: dict[str, tuple[str, Body]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES, **field_of(DEEP["ref-chain"])}),
    "chat-tools": (
        "/v1/chat/completions",
        {"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": TOOL, "parameters": ARGUMENTS, "strict": True}}]},
    ),
    "completions": ("/v1/completions", {"prompt": "5:", **field_of(DEEP["lark-chain"])}),
    "responses": (
        "/v1/responses",
        {"input": "5:", "text": {"format": {"type": "json_schema", "name": "x", "schema": CHAIN}}},
    ),
    "anthropic": (
        "/v1/messages",
        {"messages": MESSAGES, "max_tokens": 9, "tools": [{"name": TOOL, "input_schema": ARGUMENTS, "strict": True}]},
    ),
    "ollama-chat": ("/api/chat", {"messages": MESSAGES, "format": CHAIN}),
    "ollama-generate": ("/api/generate", {"prompt": "5:", "format": CHAIN}),
}  # fmt: skip


class Others:
    """An engine's other requests, while grammars hurt: a stream, and what is asked now and then."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._small = itertools.count()
        self._stream = asyncio.ensure_future(self._post({"prompt": "5:", "max_tokens": N_TOKENS}))
        self.slowest_s = 0.0

    async def _post(self, body: Body) -> Body:
        answer = await self._client.post("/v1/completions", json={"model": "test", "temperature": 0, **body})
        assert answer.status_code == 200, answer.text
        choice: Body = answer.json()["choices"][0]
        return choice

    async def ask(self) -> None:
        """Something plain, and something with a grammar that nobody had before: both get their first token."""
        started_s = time.monotonic()
        plain = self._post({"prompt": "7:", "max_tokens": 1})
        constrained = self._post(
            {"prompt": "7:", "max_tokens": 1, "regex": f"[a-z]{{1,{next(self._small) + 2}}}"}
        )
        await asyncio.gather(plain, constrained)
        self.slowest_s = max(self.slowest_s, time.monotonic() - started_s)

    async def end(self) -> None:
        assert (await self._stream)["text"] == counting(5, N_TOKENS)


@asynccontextmanager
async def hurt(command: WorkerCommand) -> AsyncIterator[tuple[httpx.AsyncClient, Others]]:
    """A client for what hurts. In the end the worker is the same and nobody else has noticed anything."""
    async with served(command, n_ctx=N_CTX) as (app, engine), http_client(app) as client:
        client.timeout = httpx.Timeout(60)
        pid, others = engine.worker_pid, Others(client)
        await eventually(lambda: engine.in_flight == 1)
        yield client, others
        await others.end()
        assert engine.worker_pid == pid


@pytest.mark.fault("R1")
async def test_what_is_too_deep_is_refused_on_every_surface(
    fake_worker: FakeWorker, seen: Seen, sized: Sized
) -> None:
    async with hurt(fake_worker(SLOW_STEPS)) as (client, others):
        slowest_s = 0.0
        for name, (path, body) in SURFACES.items():
            started_s = time.monotonic()
            answer, _ = await asyncio.gather(client.post(path, json={"model": "test", **body}), others.ask())
            slowest_s = max(slowest_s, time.monotonic() - started_s)
            assert (name, answer.status_code) == (name, 400), answer.text
            assert "nested too deeply" in answer.text, name
    seen(f"slowest refusal {slowest_s:.2f} s, others' first tokens {others.slowest_s:.2f} s")
    assert slowest_s < sized(*WITHIN_S)
    assert others.slowest_s < sized(*WITHIN_S)


@pytest.mark.fault("R1")
async def test_what_takes_long_keeps_nobody_waiting(
    fake_worker: FakeWorker, seen: Seen, sized: Sized
) -> None:
    async with hurt(fake_worker(SLOW_STEPS)) as (client, others):
        hostile = [*DEEP.values(), *SLOW.values(), AMBIGUOUS]
        bodies = [{"model": "test", "prompt": "<say>aaaa</say>", **field_of(grammar)} for grammar in hostile]
        answers = asyncio.gather(*(client.post("/v1/completions", json=body) for body in bodies))
        while not answers.done():
            await others.ask()
        assert {answer.status_code for answer in await answers} <= {200, 400}
        assert [answer.status_code for answer in await answers][: len(DEEP)] == [400] * len(DEEP)
    seen(f"others' first tokens {others.slowest_s:.2f} s")
    assert others.slowest_s < sized(*WITHIN_S)


def ends(lines: list[Body]) -> tuple[list[str], list[Body]]:
    """How a stream of completions ended: its finish reasons and its errors."""
    choices = [choice for line in lines for choice in line.get("choices", ())]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    return reasons, [line["error"] for line in lines if "error" in line]


@pytest.mark.fault("R2")
@pytest.mark.parametrize("name", FAILING)
async def test_a_grammar_that_fails_ends_with_an_error(fake_worker: FakeWorker, name: str) -> None:
    grammar = FAILING[name]
    body = {"model": "test", "prompt": "<say>aaaaaaaaaaaa</say>", "max_tokens": 64, **field_of(grammar)}
    async with served(fake_worker()) as (app, _), http_client(app) as client:
        whole = await client.post("/v1/completions", json=body)
        stream = await client.post("/v1/completions", json={**body, "stream": True})

    assert whole.status_code == 400
    error = whole.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", grammar.param)
    if stream.status_code == 200:
        lines = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")]
        assert ends(lines) == ([], [error])
    else:
        assert stream.json()["error"] == error
