"""P8: an engine that crashes whenever it is started: told at once, with the reason, and no storm of processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kolosal.app import create_app
from kolosal.config.settings import Settings
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.registry import EngineRegistry
from tests.engines.helpers import config, in_turn, starts
from tests.fakes import http_client

FakeWorker = Callable[..., WorkerCommand]

BODY = {"model": "broken", "prompt": "x"}


@pytest.mark.fault("P8")
async def test_requests_are_told_when_to_come_back(
    tmp_path: Path, fake_worker: FakeWorker, seen: Callable[[str], None]
) -> None:
    command = in_turn(tmp_path, fake_worker("stderr=no luck today", "load_crash"))
    registry = EngineRegistry(replace(command, restart_delays_s=(0.0,)))
    await registry.add(config("broken"), load=False)
    async with http_client(create_app(Settings(), registry)) as client:
        statuses = [(await client.post("/v1/completions", json=BODY)).status_code for _ in range(8)]
        last = await client.post("/v1/completions", json=BODY)
        shown = (await client.get("/engines/broken")).json()
        loaded = await client.post("/engines/broken/load", json={})

    assert statuses == [422] * 5 + [503] * 3
    error = last.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_died")
    assert error["message"].startswith("Engine 'broken' keeps stopping and is not started again for ")
    assert "no luck today" in error["message"]
    assert 0 < int(last.headers["retry-after"]) <= 60
    assert (shown["breaker"], shown["recent_crashes"], shown["status"]) == ("open", 5, "unloaded")
    assert (loaded.status_code, starts(tmp_path)) == (422, 6)  # asked for in so many words
    await registry.close(drain_s=0)
    seen(
        f"503 with the reason after {shown['recent_crashes']} starts, Retry-After {last.headers['retry-after']}"
    )
