"""How long it takes from nothing to the first token: a second engine of a Kolosal daemon, or a second server.

Times are reported as time to the first token, counted from the request to load or from the start of the process.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from random import Random
from typing import Any
from urllib.parse import quote

import httpx

from kolosal.bench import prompts
from kolosal.bench.answer import Answer
from kolosal.bench.answer_reader import error_message
from kolosal.bench.client import Client, Request, Target
from kolosal.bench.errors import BenchError, Refused, Skipped, Unreachable
from kolosal.bench.measures import Measures, measure
from kolosal.bench.processes import end_tree, free_port

POLL_INTERVAL_S = 0.02
"""Between two attempts to reach a server that is starting."""
FACTS_TIMEOUT_S = 10.0
"""Bounds questions about engines; loading one has the target's own bound."""

_NOT_KOLOSAL = "the server is not Kolosal, and no --start-command says how to start another"


async def load_to_first_token(client: Client, rng: Random) -> Measures:
    """Load the target's model once more, beside the one that is loaded, and ask it one question."""
    request = Request.chat([{"role": "user", "content": f"{prompts.nonce(rng)} {prompts.question(rng)}"}], 8)
    if client.target.start_command is not None:
        started_at = time.perf_counter()
        async with _started_server(client.target) as (other, process):
            answer = await _first_answer(other, request, process)
        load_s = None
    else:
        async with _engine(client.target, f"bench-{rng.randrange(16**8):08x}") as (other, started_at):
            load_s = time.perf_counter() - started_at
            answer = await other.ask(request)
    client.on_answer()
    return replace(measure([replace(answer, sent_at=started_at)]), load_s=load_s)


@asynccontextmanager
async def _engine(target: Target, engine_id: str) -> AsyncIterator[tuple[Client, float]]:
    """A second engine with the same file and parameters, and when it was asked for. Removed at the end."""
    headers = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
    root = target.url.rstrip("/").removesuffix("/v1")
    async with httpx.AsyncClient(
        base_url=root, headers=headers, timeout=FACTS_TIMEOUT_S, trust_env=False
    ) as http:
        facts = await _facts(http, target.model)
        started_at = time.perf_counter()
        body = {
            "engine_id": engine_id,
            "model_path": facts["model_path"],
            "loading_parameters": facts["loading_parameters"],
        }
        answer = await http.post("/engines", json=body, timeout=target.timeout_s)
        if answer.is_error:
            raise Refused(answer.status_code, error_message(answer.content))
        try:
            yield Client(replace(target, model=engine_id)), started_at
        finally:
            await http.delete(f"/engines/{engine_id}", timeout=target.timeout_s)


async def _facts(http: httpx.AsyncClient, model: str) -> dict[str, Any]:
    """What a Kolosal daemon says of one engine.

    Raises:
        Skipped: it is another server.
    """
    try:
        answer = await http.get(f"/engines/{quote(model, safe='')}")
        facts = answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        facts = None
    if not isinstance(facts, dict) or not {"model_path", "loading_parameters"} <= facts.keys():
        raise Skipped(_NOT_KOLOSAL)
    return facts


@asynccontextmanager
async def _started_server(target: Target) -> AsyncIterator[tuple[Client, asyncio.subprocess.Process]]:
    """The start command's server on a free port. Ended with all its children at the end."""
    port = free_port()
    argv = shlex.split((target.start_command or "").replace("{port}", str(port)))
    nowhere = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    except (OSError, IndexError, TypeError) as exc:
        raise BenchError(f"--start-command: cannot start '{target.start_command}': {exc}") from exc
    try:
        yield Client(replace(target, url=f"http://127.0.0.1:{port}/v1", start_command=None)), process
    finally:
        end_tree(process.pid, grace_s=0)
        await process.wait()


async def _first_answer(client: Client, request: Request, process: asyncio.subprocess.Process) -> Answer:
    deadline = time.monotonic() + client.target.timeout_s
    while True:
        try:
            return await client.ask(request)
        except (Unreachable, Refused) as exc:
            if isinstance(exc, Refused) and exc.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            if process.returncode is not None:
                raise BenchError(f"--start-command: it ended with status {process.returncode}") from exc
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(POLL_INTERVAL_S)
