"""A daemon left alone: three models in room for two, engines that come back after a restart, and replacing one in use."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.helpers import DEADLINE_S, Daemon, add_engine, wait_until

pytestmark = pytest.mark.model

ROOM_FOR_TWO = 160 * 1024 * 1024
"""One of the tiny models takes some 65 MiB by estimate."""


@contextlib.contextmanager
def daemon(folder: Path, **engines: object) -> Iterator[tuple[Daemon, httpx.Client]]:
    """A daemon of its own with settings of the `engines` section; it ends with status 0 and leaves no process."""
    lines = [f"  {name}: {value}" for name, value in engines.items()]
    (folder / "config.yaml").write_text("\n".join(["engines:", *lines]), encoding="utf-8")
    running = Daemon.start(folder, "--port", "0")
    try:
        wait_until(lambda: bool(running.url))
        with httpx.Client(base_url=running.url, timeout=4 * DEADLINE_S, trust_env=False) as client:
            yield running, client
        children = psutil.Process(running.process.pid).children()
        assert running.stop() == 0, running.log
        assert not psutil.wait_procs(children, timeout=DEADLINE_S)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.process.kill()
        running.process.wait(DEADLINE_S)


@pytest.mark.fault("P12")
def test_three_models_in_room_for_two_answer_every_request(
    tmp_path: Path, tiny_gguf: Path, sized: Callable[[int, int], int]
) -> None:
    chance = random.Random(12)  # noqa: S311 - which model is asked next
    with daemon(tmp_path, memory_limit_bytes=ROOM_FOR_TWO) as (running, http):
        for name in "abc":
            add_engine(http, name, tiny_gguf, n_ctx=512, n_parallel=4, load_immediately=False)
        body = {"prompt": "Hello", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        with ThreadPoolExecutor(6) as pool:
            asked = [{**body, "model": chance.choice("abc")} for _ in range(sized(24, 100))]
            answers = list(pool.map(lambda one: http.post("/v1/completions", json=one), asked))
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers][:5]
        assert len({answer.json()["choices"][0]["text"] for answer in answers}) == 1
        states = [http.get(f"/engines/{name}").json()["state"] for name in "abc"]
        assert states.count("ready") == 2
        assert "engine.evicted" in running.log


def test_engines_added_at_run_time_are_there_after_a_restart(tmp_path: Path, tiny_gguf: Path) -> None:
    with daemon(tmp_path) as (_, http):
        for name in "ab":
            add_engine(http, name, tiny_gguf, n_ctx=512, pin=True)
        assert http.delete("/engines/b").status_code == 200
    with daemon(tmp_path) as (_, http):
        listed = http.get("/engines").json()["engines"]
        assert [(engine["engine_id"], engine["status"]) for engine in listed] == [("a", "unloaded")]
        answer = http.post("/v1/completions", json={"model": "a", "prompt": "Hello", "max_tokens": 1})
        assert answer.status_code == 200
        shown = http.get("/engines/a").json()
        assert (shown["pin"], shown["loading_parameters"]["n_ctx"]) == (True, 512)
        assert 0 < shown["memory"]["host"] < ROOM_FOR_TWO
        assert http.delete("/engines/a").status_code == 200
    with daemon(tmp_path, keep="false") as (_, http):
        assert http.get("/engines").json()["total_count"] == 0


def test_an_idle_engine_gives_its_memory_back_and_comes_back(tmp_path: Path, tiny_gguf: Path) -> None:
    with daemon(tmp_path, keep="false") as (_, http):
        add_engine(http, "a", tiny_gguf, n_ctx=512, idle_ttl_s=0.2)
        pid = http.get("/engines/a").json()["worker_pid"]
        wait_until(lambda: http.get("/engines/a").json()["state"] == "unloaded")
        assert pid is None or not psutil.pid_exists(pid)
        answer = http.post("/v1/completions", json={"model": "a", "prompt": "Hello", "max_tokens": 1})
        assert answer.status_code == 200


def test_an_engine_in_use_is_replaced_without_an_error(tmp_path: Path, tiny_gguf: Path) -> None:
    body = {"model": "a", "prompt": "Hello", "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    with daemon(tmp_path, keep="false") as (_, http):
        add_engine(http, "a", tiny_gguf, n_ctx=512)
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(http.post, "/v1/completions", json=body) for _ in range(40)]
            replaced = [
                http.put("/engines/a", json={"model_path": str(tiny_gguf), "n_ctx": n_ctx})
                for n_ctx in (256, 384)
            ]
            statuses = {one.result().status_code for one in asked}
        assert [answer.status_code for answer in replaced] == [200, 200]
        assert statuses == {200}
        assert http.get("/engines/a").json()["loading_parameters"]["n_ctx"] == 384


def test_what_it_takes_is_told_before_it_is_added(tmp_path: Path, smollm2: Path) -> None:
    parameters = {
        "n_ctx": 512,
        "n_parallel": 1,
        "cache_host_bytes": 0,
    }  # which would be room that is not taken yet
    with daemon(tmp_path, keep="false") as (_, http):
        told = http.post("/engines/estimate", json={"model_path": str(smollm2), **parameters}).json()
        assert told["fits"]
        add_engine(http, "a", smollm2, **parameters, use_mlock=True)  # nothing is given back to the system
        rss = psutil.Process(http.get("/engines/a").json()["worker_pid"]).memory_info().rss
        assert told["host"]["total"] == pytest.approx(rss, rel=0.25)
