"""A6, A7: what was said with which key stays where it belongs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from starlette.applications import Starlette

from kolosal.app import create_app
from kolosal.engines.ipc.command import WorkerCommand
from kolosal.engines.parameters import EngineConfig, LoadingParameters
from kolosal.engines.registry import EngineRegistry
from kolosal.security.auth import Authenticator, Keyring, Lockout
from kolosal.security.keys import plain_key
from tests.fakes import http_client
from tests.http.test_daemon import daemon
from tests.settings import settings_of
from tests.tiny_gguf import write_tiny_gguf

Seen = Callable[[str], None]

KEY, WRONG = "planted-key-0123456789", "planted-wrong-0123456789"
PROMPT, TOOL = "planted prompt of a user", "planted_tool_of_a_user"
SECRETS = (KEY, WRONG, PROMPT, TOOL)


def spoken(path: str, **fields: object) -> tuple[str, dict[str, Any]]:
    """A request in one of the dialects, with the planted prompt in it."""
    messages = [{"role": "user", "content": PROMPT}]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": PROMPT, "max_tokens": 3},
        "/v1/chat/completions": {
            "messages": messages, "max_tokens": 3, "tools": [{"type": "function", "function": {"name": TOOL}}]
        },
        "/v1/messages": {"messages": messages, "max_tokens": 3},
        "/v1/responses": {"input": PROMPT, "max_output_tokens": 16},
        "/api/generate": {"prompt": PROMPT, "stream": False, "options": {"num_predict": 3}},
        "/api/chat": {"messages": messages, "options": {"num_predict": 3}},
        "/v1/embeddings": {"input": PROMPT},
        "/tokenize": {"content": PROMPT},
    }  # fmt: skip
    return path, {"model": "a", **bodies[path], **fields}


PATHS = (
    "/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/generate", "/api/chat",
    "/v1/embeddings", "/tokenize",
)  # fmt: skip


@pytest.mark.fault("A6")
@pytest.mark.parametrize(("level", "fault"), [("info", "none"), ("debug", "none"), ("debug", "crash@3")])
def test_keys_and_prompts_are_nowhere_whatever_is_spoken(
    tmp_path: Path, level: str, fault: str, seen: Seen
) -> None:
    """Also where a worker dies of a prompt: its last words are told, and the prompt is not among them.

    What clients have the daemon keep is in its store, which is told to keep nothing here.
    """
    write_tiny_gguf(tmp_path / "a.gguf")
    state = tmp_path / "state"
    state.mkdir()
    model = {"id": "a", "path": str(tmp_path / "a.gguf"), "parameters": {"n_ctx": 5000}}
    with daemon(
        *((fault,) if fault != "none" else ()), models=[model], api_key=KEY, log_level=level,
        state_dir=str(state), keep_engines=True, max_crashes=1, responses_max_count=0,
    ) as (process, url):  # fmt: skip
        told = []
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=30) as http:
            statuses = [http.post(path, json=body).status_code for path, body in map(spoken, PATHS)]
            assert (fault == "none") <= (statuses.count(200) >= len(PATHS) - 1)
            wrong = (spoken(path, temperature="hot", max_tokens="many", options="none") for path in PATHS)
            told += [http.post(path, json=body).text for path, body in wrong]
            told += [
                http.post(path, json={**body, "model": "none"}).text for path, body in map(spoken, PATHS)
            ]
            http.post(
                "/engines",
                json={"engine_id": "b", "model_path": str(tmp_path / "a.gguf"), "load_immediately": False},
            )
            told += [
                http.get(path).text
                for path in (
                    "/metrics",
                    "/metrics/prometheus",
                    "/metrics/system",
                    "/engines",
                    "/engines/a",
                    "/health",
                    "/v1/models",
                )
            ]
            told += [some_of(http, path) for path in ("/v1/events?since=0", "/engines/a/logs")]
            told.append(http.get("/v1/models", headers={"x-api-key": WRONG, "authorization": ""}).text)
        for worker in psutil.Process(process.pid).children():
            told.append(f"{worker.environ()} {worker.cmdline()}")
        process.kill()
        assert process.stderr is not None
        told.append(process.stderr.read())
    told += [path.read_text(errors="replace") for path in state.rglob("*") if path.is_file()]
    assert "request.finished" in "".join(told)
    hits = [
        (secret, text[max(0, text.find(secret) - 200) :][:400])
        for text in told
        for secret in SECRETS
        if secret in text
    ]
    assert hits == []
    seen(
        f"{len(PATHS)} dialects, {sum(map(len, told)) // 1024} KiB of logs, events, errors, metrics and files: 0 hits"
    )


def some_of(http: httpx.Client, path: str) -> str:
    """What an endless answer has to say within a moment."""
    text, deadline = "", time.monotonic() + 0.5
    try:
        with http.stream("GET", path, timeout=0.5) as answer:
            for piece in answer.iter_text():
                text += piece
                if time.monotonic() > deadline:
                    break
    except httpx.ReadTimeout:
        pass
    return text


LONG = "The quick brown fox jumps over the lazy dog. " * 6
KEYS = ("the-key-of-the-first-1", "the-key-of-the-second-2")


def app_of(registry: EngineRegistry, **settings: Any) -> Starlette:
    keyring = Keyring([plain_key(key, key) for key in KEYS])
    authenticator = Authenticator(keyring, Lockout(10, lambda: 0.0))
    return create_app(settings_of(access_log=False, **settings), registry, authenticator=authenticator)


@pytest.mark.fault("A7")
@pytest.mark.parametrize("shared", [False, True])
async def test_a_key_finds_nothing_of_another_in_the_cache(
    real_worker: WorkerCommand, tiny_gguf: Path, shared: bool, seen: Seen
) -> None:
    registry = EngineRegistry(real_worker)
    await registry.add(
        EngineConfig("tiny", str(tiny_gguf), LoadingParameters(n_ctx=1024, n_threads=1)), load=True
    )
    body = {"model": "tiny", "prompt": LONG, "max_tokens": 2, "temperature": 0}
    cached = []
    try:
        async with http_client(app_of(registry, share_prefix_across_keys=shared)) as http:
            for key in (KEYS[0], KEYS[1], KEYS[0]):
                answer = await http.post("/v1/completions", json=body, headers={"x-api-key": key})
                usage = answer.json()["usage"]
                cached.append((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))
    finally:
        await registry.close(drain_s=0)
    assert cached[0] == 0
    assert (cached[1] > 0) == shared
    assert cached[2] > 100  # its own it finds
    seen(
        f"{'shared' if shared else 'apart'}: cached tokens of the first, the second and the first key {json.dumps(cached)}"
    )
