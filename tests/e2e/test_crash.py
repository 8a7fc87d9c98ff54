"""A worker is killed while it answers: its own streams fail, and nobody else notices."""

from __future__ import annotations

from pathlib import Path

import httpx
import openai
import psutil
import pytest

from tests.e2e.helpers import ENGINE, ChatStream, add_engine, chat, content_of, in_flight

pytestmark = pytest.mark.model

STORY = "Tell me a long story about a lighthouse."
WITHOUT_END = {"max_tokens": 4000, "ignore_eos": True}
"""More than any machine generates during the test."""


def test_a_killed_worker_ends_its_own_streams_only(
    http: httpx.Client, sdk: openai.OpenAI, smollm2: Path
) -> None:
    add_engine(http, "doomed", smollm2, n_ctx=4096, n_parallel=2)
    doomed = ChatStream.open(http, chat(STORY, "doomed", **WITHOUT_END))
    doomed.read_some()
    with sdk.chat.completions.create(
        model="doomed",
        messages=[{"role": "user", "content": STORY}],
        max_tokens=4000,
        extra_body={"ignore_eos": True},
        stream=True,
    ) as doomed_too:
        next(doomed_too)
        other = ChatStream.open(http, chat(STORY, max_tokens=96, ignore_eos=True))
        other.read_some()
        assert (in_flight(http, "doomed"), in_flight(http)) == (2, 1)

        psutil.Process(http.get("/engines/doomed").json()["worker_pid"]).kill()  # SIGKILL

        doomed.read_all()
        error = doomed.chunks[-1]["error"]
        assert (error["type"], error["code"], doomed.done) == ("server_error", "engine_died", False)
        assert error["message"].startswith("Engine 'doomed' stopped while it was answering.")
        with pytest.raises(openai.APIError, match="Engine 'doomed' stopped") as raised:
            list(doomed_too)
        assert raised.value.code == "engine_died"

    other.read_all()
    other.check_form("length")
    assert other.usage["completion_tokens"] == 96
    assert http.get("/v1/health").json()["status"] == "healthy"
    dead = http.get("/engines/doomed").json()
    assert (dead["status"], dead["in_flight"], dead["worker_pid"]) == ("unloaded", 0, None)
    assert "The worker stopped" in dead["last_error"]

    again = http.post("/v1/chat/completions", json=chat("Name the capital city of France.", "doomed"))
    assert content_of(again) == "The capital city of France is Paris."
    assert http.get("/engines/doomed").json()["last_error"] is None
    assert content_of(http.post("/v1/chat/completions", json=chat("Hello", ENGINE, max_tokens=1)))
