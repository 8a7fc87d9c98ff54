"""A worker is killed while it answers: its own streams pause and go on, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.e2e.helpers import (
    DEADLINE_S,
    ENGINE,
    ChatStream,
    Daemon,
    add_engine,
    chat,
    content_of,
    in_flight,
    wait_until,
    worker_of,
)
from tests.engines.helpers import eventually
from tests.faults.drivers import Footprint, Streamed, leave_a_stream, streamed

pytestmark = pytest.mark.model

STORY = "Tell me a long story about a lighthouse."

N_STREAMS = 32

N_TOKENS = 100

MAX_GROWTH_BYTES = 10 * 1024 * 1024


def kill(http: httpx.Client, engine_id: str) -> int:
    """SIGKILL the worker of an engine; which process that was."""
    pid = int(http.get(f"/engines/{engine_id}").json()["worker_pid"])
    psutil.Process(pid).kill()
    return pid


def crashes(http: httpx.Client) -> int:
    return int(http.get("/engines/doomed").json()["recent_crashes"])


@pytest.mark.fault("P1")
def test_a_killed_worker_is_a_pause_for_its_own_streams_only(
    http: httpx.Client, sdk: openai.OpenAI, smollm2: Path
) -> None:
    add_engine(http, "doomed", smollm2, n_ctx=4096, n_parallel=2)
    dying, living = worker_of(http, "doomed"), worker_of(http)
    doomed = ChatStream.open(http, chat(STORY, "doomed", max_tokens=150, ignore_eos=True))
    doomed.read_some()
    with sdk.chat.completions.create(
        model="doomed",
        messages=[{"role": "user", "content": STORY}],
        max_tokens=150,
        extra_body={"ignore_eos": True},
        stream=True,
    ) as doomed_too:
        next(doomed_too)
        dying.suspend()
        other = ChatStream.open(http, chat(STORY, max_tokens=96, ignore_eos=True))
        living.suspend()
        assert (in_flight(http, "doomed"), in_flight(http)) == (2, 1)

        killed = kill(http, "doomed")
        living.resume()
        doomed.read_all()
        chunks = list(doomed_too)

    doomed.check_form("length")
    assert doomed.usage["completion_tokens"] == 150
    assert chunks[-1].choices[0].finish_reason == "length"
    other.read_all()
    other.check_form("length")
    assert other.usage["completion_tokens"] == 96
    assert http.get("/v1/health").json()["status"] == "healthy"
    after = http.get("/engines/doomed").json()
    assert after["worker_pid"] not in (None, killed)
    assert (after["status"], after["in_flight"], after["recent_crashes"], after["breaker"]) == (
        "loaded",
        0,
        1,
        "closed",
    )


@pytest.mark.fault("P1")
def test_the_second_crash_ends_a_stream_with_a_typed_error(http: httpx.Client, smollm2: Path) -> None:
    add_engine(http, "doomed", smollm2, n_ctx=4096, n_parallel=2)
    doomed = ChatStream.open(http, chat(STORY, "doomed", max_tokens=4000, ignore_eos=True))
    doomed.read_some()
    first = kill(http, "doomed")
    wait_until(lambda: http.get("/engines/doomed").json()["worker_pid"] not in (None, first))
    kill(http, "doomed")
    doomed.read_all()

    error = doomed.chunks[-1]["error"]
    assert (error["type"], error["code"], doomed.done) == ("server_error", "engine_died", False)
    assert error["message"].startswith(
        "Engine 'doomed' stopped while it was answering, 2 times in a row. The worker stopped"
    )
    dead = http.get("/engines/doomed").json()
    assert (dead["status"], dead["in_flight"], dead["worker_pid"]) == ("unloaded", 0, None)

    again = http.post("/v1/chat/completions", json=chat("Name the capital city of France.", "doomed"))
    assert content_of(again) == "The capital city of France is Paris."
    assert http.get("/engines/doomed").json()["last_error"] is None
    assert content_of(http.post("/v1/chat/completions", json=chat("Hello", ENGINE, max_tokens=1)))


@pytest.mark.fault("P1")
async def test_of_32_streams_all_go_on(daemon: Daemon, http: httpx.Client, tiny_gguf: Path) -> None:
    precise = {
        "cache_type_k": "f32",
        "cache_type_v": "f32",
        "flash_attn": "off",
        "n_threads": 1,
        "speculation": False,
    }
    add_engine(http, "doomed", tiny_gguf, n_ctx=1024, n_parallel=8, **precise)
    bodies: list[dict[str, Any]] = [
        {
            "model": "doomed",
            "prompt": f"{index} says:",
            "max_tokens": N_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
        }
        for index in range(N_STREAMS)
    ]
    limits = httpx.Limits(max_connections=2 * N_STREAMS)
    async with httpx.AsyncClient(
        base_url=daemon.url, timeout=2 * DEADLINE_S, limits=limits, trust_env=False
    ) as many:
        undisturbed = await asyncio.gather(*(streamed(many, body) for body in bodies))
        results = [Streamed() for _ in bodies]
        reading = [asyncio.create_task(streamed(many, *each)) for each in zip(bodies, results, strict=True)]
        await eventually(lambda: sum(bool(result.text) for result in results) >= 4)
        kill(http, "doomed")
        await asyncio.gather(*reading)

    assert [result.error for result in results] == [None] * N_STREAMS
    assert [(result.text, result.done, result.finish_reason) for result in results] == [
        (one.text, True, "length") for one in undisturbed
    ]
    assert {result.usage["completion_tokens"] for result in results if result.usage} == {N_TOKENS}
    assert crashes(http) == 1


@pytest.mark.fault("H1")
async def test_clients_who_leave_leave_nothing_behind(
    daemon: Daemon, http: httpx.Client, sized: Callable[[int, int], int], seen: Callable[[str], None]
) -> None:
    """They connect, read some of a stream, and go."""
    n_leavers = sized(200, 1000)
    body = {"model": ENGINE, "prompt": STORY, "max_tokens": 4000, "ignore_eos": True}
    process = psutil.Process(daemon.process.pid)
    at_once = asyncio.Semaphore(16)

    async def leave(index: int) -> None:
        async with at_once:
            await leave_a_stream(daemon.url, body, after_events=index % 4)

    await asyncio.gather(*(leave(index) for index in range(16)))  # what is made once is made
    wait_until(lambda: in_flight(http) == 0)
    before = Footprint.of(process)
    await asyncio.gather(*(leave(index) for index in range(n_leavers)))
    wait_until(lambda: in_flight(http) == 0)
    wait_until(lambda: not {"files", "children"} & Footprint.of(process).left(before).keys())
    after = Footprint.of(process)

    # the few threads of the loop's own pool come as it needs them
    assert after.threads - before.threads < n_leavers / 10
    assert after.rss - before.rss < sized(5, 1) * MAX_GROWTH_BYTES
    seen(f"a real daemon: {n_leavers} left, RSS {(after.rss - before.rss) / 2**20:+.1f} MB")
