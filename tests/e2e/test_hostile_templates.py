"""Models whose chat template wants too much: refused in words, while streams go on and the daemon answers."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.helpers import DEADLINE_S, Daemon, add_engine, chat
from tests.engines.helpers import eventually
from tests.engines.worker.templates.hostile_templates import ALL, BURNING
from tests.faults.drivers import Streamed, streamed

pytestmark = [pytest.mark.model, pytest.mark.fault("G4")]

N_EVENTS = 5
"""Pieces of a stream that come before, and at least so many while a template uses up its time."""


@pytest.mark.parametrize("name", ["many expressions", "deep parentheses"])
def test_engine_with_a_hostile_template_is_not_loaded(http: httpx.Client, tiny_gguf: Path, name: str) -> None:
    answer = http.post(
        "/engines",
        json={
            "engine_id": "hostile",
            "model_path": tiny_gguf.as_posix(),
            "chat_template": ALL[name],
        },
    )

    assert answer.status_code == 422
    assert "chat template" in answer.json()["error"]["message"]
    assert http.get("/health").status_code == 200


async def test_streams_go_on_while_a_template_uses_up_its_time(
    daemon: Daemon, http: httpx.Client, tiny_gguf: Path, seen: Callable[[str], None]
) -> None:
    add_engine(http, "hostile", tiny_gguf, n_ctx=2048, chat_template=BURNING["loops"])
    body = {"model": "hostile", "prompt": "x", "max_tokens": 2000, "ignore_eos": True, "temperature": 0}
    progress = Streamed()
    async with httpx.AsyncClient(base_url=daemon.url, timeout=DEADLINE_S, trust_env=False) as client:
        reading = asyncio.create_task(streamed(client, body, progress))
        try:
            await eventually(lambda: len(progress.arrivals) >= N_EVENTS)
            began = time.monotonic()
            answer = await client.post("/v1/chat/completions", json=chat("Hello", "hostile"))
            ended = time.monotonic()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    arrivals = [at for at in progress.arrivals if began <= at <= ended]

    assert answer.status_code == 400
    assert "chat template" in answer.json()["error"]["message"]
    assert progress.error is None
    assert len(arrivals) >= N_EVENTS
    gap = max(after - before for before, after in itertools.pairwise(arrivals))
    seen(f"a stream goes on meanwhile, its longest gap {1000 * gap:.0f} ms")
