"""H11: how long the daemon's event loop stands still, under a load of everything at once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.sockets import MIB, port_of, said_to
from tests.faults.stallwatch import watched
from tests.gguf_files import ARRAY, LLAMA, STRING, corrupt, gguf
from tests.http.test_daemon import daemon, wait_for

Sized = Callable[[int, int], int]
Seen = Callable[[str], None]

MAX_STALL_S = 0.1

MONITOR = """
import asyncio, atexit, json, sys, time
from kolosal import daemon
daemon._loop_factory = lambda: None  # uvloop's callbacks cannot be watched
worst = []
handle_run = asyncio.Handle._run
def timed(handle):
    began = time.thread_time()
    handle_run(handle)
    taken = time.thread_time() - began
    if taken > 0.02:
        task = getattr(handle._callback, "__self__", None)
        name = repr(task.get_coro()) if hasattr(task, "get_coro") else repr(handle._callback)
        worst.append((taken, name[:120]))
asyncio.Handle._run = timed
atexit.register(lambda: sys.stderr.write("stalls " + json.dumps(sorted(worst, reverse=True)[:5]) + "\\n"))
"""
"""Notes what took the event loop's thread more than 20 ms of processor time, which other work does not lengthen."""


def stalls_of(process: subprocess.Popen[str]) -> list[tuple[float, str]]:
    """Stop a daemon and read what its monitor has seen, the worst first."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert process.stderr is not None
    last = process.stderr.read().strip().splitlines()[-1]
    assert last.startswith("stalls ")
    return [(taken, name) for taken, name in json.loads(last.removeprefix("stalls "))]


class Load:
    """Clients that do one thing after the other, chosen at random."""

    def __init__(self, http: httpx.AsyncClient, folder: Path, chance: random.Random) -> None:
        self._http = http
        self._folder = folder
        self._chance = chance
        self.done = 0
        self.unexplained = 0

    async def client(self, turns: int) -> None:
        doing: tuple[Callable[[], Awaitable[object]], ...] = (
            self.stream, self.leave, self.chat, self.many_choices, self.long_prompt, self.look, self.nonsense, self.add,
            self.tokens, self.big_body, self.malformed,
        )  # fmt: skip
        for _ in range(turns):
            with suppress(httpx.ReadTimeout):
                await self._chance.choice(doing)()
            self.done += 1

    async def _post(self, path: str, body: object) -> httpx.Response:
        answer = await self._http.post(path, json=body)
        self.unexplained += answer.status_code >= 500 and answer.status_code != 503
        return answer

    async def stream(self) -> None:
        body = {"model": "a", "prompt": "1:", "max_tokens": 300, "stream": True, "logprobs": 5}
        async with self._http.stream("POST", "/v1/completions", json=body) as answer:
            await answer.aread()

    async def leave(self) -> None:
        body = {"model": "a", "prompt": "1:", "max_tokens": 3000, "stream": True}
        async with self._http.stream("POST", "/v1/completions", json=body) as answer:
            await anext(answer.aiter_raw())

    async def chat(self) -> None:
        turns = [{"role": "user", "content": f"{n}: Grüße"} for n in range(50)]
        await self._post("/v1/chat/completions", {"model": "a", "messages": turns, "max_tokens": 20})

    async def many_choices(self) -> None:
        await self._post("/v1/completions", {"model": "a", "prompt": ["1:"] * 16, "n": 8, "max_tokens": 20})

    async def long_prompt(self) -> None:
        await self._post("/v1/completions", {"model": "a", "prompt": "word " * 900, "max_tokens": 20})

    async def look(self) -> None:
        for path in (
            "/engines",
            "/v1/models",
            "/metrics",
            "/metrics/prometheus",
            "/engines/a",
            "/openapi.json",
            "/docs",
        ):
            assert (await self._http.get(path)).status_code == 200

    async def nonsense(self) -> None:
        await self._post("/v1/completions", {"model": "a", "prompt": [["x"] * 1000] * 10})
        await self._http.post("/v1/completions", content=b"[" * 100_000)

    async def add(self) -> None:
        path = self._folder / f"{self._chance.choice(('a', 'cut', 'huge'))}.gguf"
        name = f"new-{self._chance.randrange(100)}"
        body = {"engine_id": name, "model_path": str(path), "load_immediately": False}
        await self._post("/engines", body)
        await self._http.delete(f"/engines/{name}")

    async def tokens(self) -> None:
        answer = await self._post("/tokenize", {"model": "a", "content": "x" * 100_000, "with_pieces": True})
        assert answer.status_code in (200, 429)  # calls wait in the engine's queue, which may be full

    async def big_body(self) -> None:
        await self._post("/v1/completions", {"model": "a", "prompt": "x" * 8 * MIB})
        await self._http.post("/v1/completions", content=b'{"model":[' + b"[]," * 2_000_000 + b"0]}")

    async def malformed(self) -> None:
        port = port_of(str(self._http.base_url))
        await asyncio.to_thread(said_to, port, b"GET /health HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 10_000)


@pytest.mark.fault("H11")
async def test_the_watch_of_all_tests_sees_what_is_ours_only() -> None:
    """`no_stalled_loop` in tests/conftest.py: callbacks and the daemon's tasks, and not what a test computes."""
    loop = asyncio.get_running_loop()
    with watched(MAX_STALL_S / 5) as stalls:
        busy_for(MAX_STALL_S / 2)
        loop.call_soon(busy_for, MAX_STALL_S / 2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(stalls) == 1
    assert len(stalls) == 1


def busy_for(seconds: float) -> None:
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass


@pytest.mark.fault("H11")
@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process on Windows")
async def test_nothing_holds_the_loop_up_under_a_load_of_everything(
    tmp_path: Path, sized: Sized, seen: Seen
) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf())
    (tmp_path / "cut.gguf").write_bytes(dict(corrupt())["cut off after 16 bytes"])
    (tmp_path / "huge.gguf").write_bytes(many_keys())
    model: dict[str, Any] = {
        "id": "a", "path": str(tmp_path / "a.gguf"), "parameters": {"n_ctx": 5000, "n_parallel": 16}
    }  # fmt: skip
    with daemon(preamble=MONITOR, models=[model], access_log=False) as (process, url):
        wait_for(url, "loaded")
        async with httpx.AsyncClient(
            base_url=url, timeout=60, limits=httpx.Limits(max_connections=50)
        ) as http:
            load = Load(http, tmp_path, random.Random(11))  # noqa: S311 - no secret
            await asyncio.gather(*(load.client(sized(4, 100)) for _ in range(sized(6, 16))))
        stalls = await asyncio.to_thread(stalls_of, process)
    worst, what = stalls[0] if stalls else (0.0, "")
    seen(f"{load.done} things done, the worst callback took {1000 * worst:.0f} ms {what.split(' ')[1:2]}")
    assert load.unexplained == 0
    assert worst < sized(3, 1) * MAX_STALL_S, stalls


def many_keys() -> bytes:
    """A file whose header takes long to read."""
    return gguf({**LLAMA, "tokenizer.ggml.merges": (ARRAY, (STRING, ["ab"] * 300_000))})
