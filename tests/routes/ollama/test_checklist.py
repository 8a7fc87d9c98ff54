"""What was asked of this dialect, statement by statement: each test has the name of its row."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kolosal.engines.state import EngineState
from kolosal.schema import ChatPrompt, InfillPrompt, TextPrompt, ToolMode
from tests.fakes import FakeEngine, FakeRegistry, app_with, eventually, http_client, says
from tests.routes.ollama.asking import CALL, WEATHER, ask, chat, generate, lines, loaded_engine, refused

STATS = {
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
}  # fmt: skip


async def test_O01_generate_streams_lines_with_counts_in_the_last() -> None:
    *pieces, last = await lines(FakeEngine(script=says("Hel", "lo")), "/api/generate", prompt="Hi")
    assert [piece["response"] for piece in pieces] == ["Hel", "lo"]
    assert all(piece.keys() == {"model", "created_at", "response", "done"} for piece in pieces)
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "stop")
    assert (last["prompt_eval_count"], last["eval_count"]) == (3, 2)
    assert last.keys() > STATS
    assert all(isinstance(last[name], int) for name in STATS)


async def test_O01_generate_without_a_stream_is_one_object() -> None:
    whole = await generate(FakeEngine(script=says("Hel", "lo")), prompt="Hi")
    assert (whole["response"], whole["done"], whole["model"]) == ("Hello", True, "fake")
    assert whole.keys() > STATS
    assert whole["total_duration"] >= whole["load_duration"] + whole["eval_duration"] > 0


async def test_O02_chat_streams_lines_with_messages() -> None:
    *pieces, last = await lines(
        FakeEngine(script=says("Hel", "lo")), "/api/chat", messages=[{"role": "user", "content": "Hi"}]
    )
    assert [piece["message"] for piece in pieces] == [
        {"role": "assistant", "content": "Hel"}, {"role": "assistant", "content": "lo"},
    ]  # fmt: skip
    assert last["message"] == {"role": "assistant", "content": ""}
    assert last.keys() > STATS


async def test_O02_calls_have_objects_as_arguments() -> None:
    engine = FakeEngine(script=says("I look.\n", *CALL, "\n"))
    whole = await chat(engine, tools=[WEATHER])
    [call] = whole["message"]["tool_calls"]
    assert call["function"] == {"index": 0, "name": "weather", "arguments": {"city": "Oslo"}}
    assert (whole["message"]["content"], whole["done_reason"]) == ("I look.", "stop")
    [request] = engine.requests
    assert isinstance(request.prompt, ChatPrompt)
    assert request.prompt.tool_use.mode is ToolMode.AUTO
    *pieces, last = await lines(
        FakeEngine(script=says(*CALL)),
        "/api/chat",
        tools=[WEATHER],
        messages=[{"role": "user", "content": "?"}],
    )
    [piece] = pieces
    assert piece["message"]["content"] == ""
    assert piece["message"]["tool_calls"][0]["function"]["arguments"] == {"city": "Oslo"}
    assert last["done_reason"] == "stop"


async def test_O03_tags_and_show_tell_of_the_model_file(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF and so on")
    engine = loaded_engine(
        description="qwen2 1.5B Q4_K - Medium", architecture="qwen2", n_params=1_543_714_304, n_ctx_train=32_768,
    )  # fmt: skip
    engine.config = type(engine.config)("fake", str(file), engine.config.parameters)
    async with http_client(app_with(engine)) as client:
        [row] = (await client.get("/api/tags")).json()["models"]
        shown = (await client.post("/api/show", json={"model": "fake"})).json()
        assert (await client.head("/api/tags")).status_code == 200
    assert row["modified_at"] == shown["modified_at"]
    assert re.fullmatch("[0-9a-f]{64}", row["digest"])
    assert (row["name"], row["model"], row["size"]) == ("fake", "fake", 14)
    assert row["details"] == shown["details"] == {
        "parent_model": "", "format": "gguf", "family": "qwen2", "families": ["qwen2"],
        "parameter_size": "1.5B", "quantization_level": "Q4_K_M",
    }  # fmt: skip
    assert shown["model_info"]["general.architecture"] == "qwen2"
    assert shown["model_info"]["qwen2.context_length"] == 32_768
    assert shown["capabilities"] == ["completion", "tools"]


@pytest.mark.parametrize(
    "fields", [{"raw": True}, {"template": "{{ .Prompt }}"}, {"template": "{{.Prompt}}\n"}]
)
async def test_O04_raw_and_the_bare_template_pass_the_prompt_on(fields: dict[str, object]) -> None:
    engine = FakeEngine(script=says("x"))
    prompt = "<|fim_prefix|>def f(<|fim_suffix|>)<|fim_middle|>"
    whole = await generate(engine, prompt=prompt, **fields)
    assert engine.requests[0].prompt == TextPrompt(prompt)
    assert "context" not in whole


async def test_O04_a_suffix_is_filled_in_before() -> None:
    engine = FakeEngine(script=says("x"))
    await generate(engine, prompt="def f(", suffix=")")
    assert engine.requests[0].prompt == InfillPrompt("def f(", ")", param="suffix")


async def test_O05_version_ps_and_greeting() -> None:
    ready, idle = loaded_engine(size_bytes=5), FakeEngine("idle")
    idle.state = EngineState.UNLOADED
    async with http_client(app_with(ready, idle)) as client:
        assert (await client.get("/api/version")).json()["version"].count(".") == 2
        [row] = (await client.get("/api/ps")).json()["models"]
        agent = {"user-agent": "ollama/0.12.11 (amd64 linux) Go/go1.24"}
        greeting = await client.get("/", headers=agent)
        assert (await client.head("/", headers=agent)).status_code == 200
        assert (await client.get("/")).json()["status"] == "running"
        assert (await client.get("/", headers={"accept": "text/plain"})).text == greeting.text
    assert (row["name"], row["size"], row["size_vram"], row["context_length"]) == ("fake", 5, 0, 64)
    assert datetime.fromisoformat(row["expires_at"]) > datetime.now(UTC)
    assert greeting.text == "Ollama is running"


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/api/generate", {"response": ""}),
        ("/api/chat", {"message": {"role": "assistant", "content": ""}}),
    ],
)
async def test_O06_without_a_prompt_the_model_is_loaded(path: str, part: dict[str, object]) -> None:
    engine = FakeEngine()
    status, body = await ask(engine, path)
    del body["created_at"]
    assert (status, body) == (200, {"model": "fake", **part, "done": True, "done_reason": "load"})
    assert not engine.requests


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
@pytest.mark.parametrize("keep_alive", [0, "0", "0s", 0.0])
async def test_O06_keep_alive_0_frees_the_model(path: str, keep_alive: object) -> None:
    engine = loaded_engine()
    app = app_with(engine)
    async with http_client(app) as client:
        body = (await client.post(path, json={"model": "fake", "keep_alive": keep_alive})).json()
        assert (body["done"], body["done_reason"]) == (True, "unload")
        assert (await client.get("/api/ps")).json() == {"models": []}
        [row] = (await client.get("/api/tags")).json()["models"]
        assert row["details"]["family"] == "script"  # what was known of it is not forgotten
    assert engine.state is EngineState.UNLOADED


@pytest.mark.parametrize("stream", [True, False])
async def test_O06_keep_alive_0_frees_the_model_after_the_answer(stream: bool) -> None:
    engine = loaded_engine(says("Hello"))
    app = app_with(engine)
    registry: FakeRegistry = app.state.services.registry
    async with http_client(app) as client:
        response = await client.post(
            "/api/generate", json={"model": "fake", "prompt": "Hi", "keep_alive": 0, "stream": stream}
        )
    assert '"done":true' in response.text
    await eventually(lambda: engine.state is EngineState.UNLOADED)
    assert registry.list() == [engine]


async def test_O06_errors_have_ollamas_words() -> None:
    engine = FakeEngine()
    assert await refused(engine, "/api/generate", model="x:latest", prompt="a") == (
        404,
        "model 'x:latest' not found",
    )
    raw = {"raw": True, "prompt": "a"}
    words = "raw mode does not support template, system, or context"
    for field in ({"system": "a"}, {"template": "a"}, {"context": [1]}):
        assert await refused(engine, "/api/generate", **raw, **field) == (400, words)
    async with http_client(app_with(engine)) as client:
        response = await client.post("/api/chat")
    assert (response.status_code, response.json()) == (400, {"error": "missing request body"})
