"""Several engines, several streams on one, and an engine that is removed while it answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.e2e.helpers import (
    ENGINE,
    ChatStream,
    add_engine,
    chat,
    content_of,
    in_flight,
    wait_until,
    worker_of,
)

pytestmark = pytest.mark.model

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Russia": "Moscow",
    "Greece": "Athens",
    "China": "Beijing",
    "England": "London",
}


def test_two_engines_answer_independently(http: httpx.Client, tiny: str) -> None:
    babble = chat("Hello", tiny, max_tokens=40, ignore_eos=True, cache_prompt=False)
    alone = content_of(http.post("/v1/chat/completions", json=babble))
    with ThreadPoolExecutor(2) as pool:
        beside = pool.submit(http.post, "/v1/chat/completions", json=babble)
        sense = pool.submit(http.post, "/v1/chat/completions", json=chat("Name the capital city of France."))
    assert content_of(sense.result()) == "The capital city of France is Paris."
    assert content_of(beside.result()) == alone


def test_eight_streams_of_one_engine_run_at_the_same_time(http: httpx.Client, smollm2: Path) -> None:
    add_engine(http, "wide", smollm2, n_ctx=2048, n_parallel=8)
    asked = [f"Name the capital city of {country}." for country in CAPITALS]
    whole = [chat(each, "wide", max_tokens=24) for each in asked]
    endless = [chat(each, "wide", max_tokens=1900, ignore_eos=True) for each in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        streams = list(pool.map(partial(ChatStream.open, http), whole))
        list(pool.map(ChatStream.read_all, streams))
        running = list(pool.map(partial(ChatStream.open, http), endless))  # each has its first token
        assert in_flight(http, "wide") == len(asked)
        list(pool.map(ChatStream.close, running))
    for stream, capital in zip(streams, CAPITALS.values(), strict=True):
        stream.check_form(*stream.finish_reasons)
        assert [name for name in CAPITALS.values() if name in stream.text.partition(".")[0]] == [capital]
    wait_until(lambda: in_flight(http, "wide") == 0)


def test_a_removed_engine_finishes_its_answer(http: httpx.Client, smollm2: Path) -> None:
    add_engine(http, "leaving", smollm2, n_ctx=256, n_parallel=1)
    worker = worker_of(http, "leaving")
    stream = ChatStream.open(http, chat("Tell me a story.", "leaving", max_tokens=160, ignore_eos=True))
    worker.suspend()
    removed = http.delete("/engines/leaving")
    refused = http.post("/v1/chat/completions", json=chat("Hello", "leaving"))
    worker.resume()
    stream.read_all()

    assert (removed.status_code, removed.json()["in_flight"]) == (200, 1)
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == "Model 'leaving' not found or could not be loaded"
    stream.check_form("length")
    assert stream.usage["completion_tokens"] == 160
    assert http.get("/engines/leaving").status_code == 404
    assert content_of(http.post("/v1/chat/completions", json=chat("Hello", ENGINE, max_tokens=1)))


def test_a_removed_name_is_free_at_once(http: httpx.Client, tiny: str, tiny_gguf: Path) -> None:
    assert http.delete(f"/engines/{tiny}").json()["in_flight"] == 0
    add_engine(http, tiny, tiny_gguf, n_ctx=512)
    assert http.get(f"/engines/{tiny}/status").json()["status"] == "loaded"
