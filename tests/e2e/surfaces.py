"""Every protocol that generates, asked alike: a prompt in, the text of the answer out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
from websockets.sync.client import connect

Surface = Callable[[httpx.Client, str, str], str]
"""From a client of a daemon, an engine and a prompt to the text of the answer."""


def _events(text: str) -> list[dict[str, Any]]:
    """The data of server-sent events that are JSON."""
    data = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(event) for event in data if event != "[DONE]"]


def _ok(response: httpx.Response) -> httpx.Response:
    assert response.status_code == 200, response.text
    return response


def _chat(http: httpx.Client, model: str, prompt: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    return str(_ok(http.post("/v1/chat/completions", json=body)).json()["choices"][0]["message"]["content"])


def _chat_stream(http: httpx.Client, model: str, prompt: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
    events = _events(_ok(http.post("/v1/chat/completions", json=body)).text)
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def _completion(http: httpx.Client, model: str, prompt: str) -> str:
    body = {"model": model, "prompt": prompt, "max_tokens": 128}
    return str(_ok(http.post("/v1/completions", json=body)).json()["choices"][0]["text"])


def _response(http: httpx.Client, model: str, prompt: str) -> str:
    events = _events(
        _ok(http.post("/v1/responses", json={"model": model, "input": prompt, "stream": True})).text
    )
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def _anthropic(http: httpx.Client, model: str, prompt: str) -> str:
    body = {
        "model": model,
        "max_tokens": 128,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
    }
    events = _events(_ok(http.post("/v1/messages", json=body)).text)
    return "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")


def _ollama_generate(http: httpx.Client, model: str, prompt: str) -> str:
    lines = _ok(http.post("/api/generate", json={"model": model, "prompt": prompt})).text.splitlines()
    return "".join(json.loads(line)["response"] for line in lines)


def _ollama_chat(http: httpx.Client, model: str, prompt: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": False}
    return str(_ok(http.post("/api/chat", json=body)).json()["message"]["content"])


def _conversation(http: httpx.Client, model: str, prompt: str) -> str:
    return str(_ok(http.post("/chat/blocking", json={"model": model, "prompt": prompt})).json()["reply"])


def _conversation_stream(http: httpx.Client, model: str, prompt: str) -> str:
    text = _ok(http.post("/chat/stream", json={"model": model, "prompt": prompt})).text
    assert text.endswith("[[END]]")
    return text.removesuffix("[[END]]")


def _rpc(http: httpx.Client, model: str, prompt: str) -> str:
    params = {"model": model, "message": prompt}
    body = {"jsonrpc": "2.0", "method": "create_message", "params": params, "id": 1}
    return str(_ok(http.post("/rpc", json=body)).json()["result"]["content"])


def _rpc_stream(http: httpx.Client, model: str, prompt: str) -> str:
    events = _events(_ok(http.post("/stream", json={"model": model, "message": prompt})).text)
    return "".join(event["delta"] for event in events)


def _websocket(http: httpx.Client, model: str, prompt: str) -> str:
    session = _ok(http.post("/create_session", json={"tools": []})).json()["session_id"]
    address = f"{str(http.base_url).replace('http', 'ws', 1).rstrip('/')}/ws/{session}"
    params = {"model": model, "message": prompt}
    pieces = []
    key = {name: value for name, value in http.headers.items() if name == "x-api-key"}
    with connect(address, additional_headers=key, open_timeout=30, close_timeout=30) as socket:
        socket.send(json.dumps({"jsonrpc": "2.0", "method": "generate", "params": params, "id": 1}))
        while (message := json.loads(socket.recv(timeout=30))).get("method") != "end":
            assert message.get("method") != "error", message
            if message.get("method") == "text_chunk":
                pieces.append(message["params"]["chunk"])
    return "".join(pieces)


def assistants(http: httpx.Client, model: str, prompt: str) -> str:
    """A thread that a run of an assistant answers. Not among `SURFACES`: what it makes is kept."""
    assistant = _ok(http.post("/v1/assistants", json={"model": model})).json()["id"]
    thread = {"messages": [{"role": "user", "content": prompt}]}
    body = {"assistant_id": assistant, "thread": thread, "stream": True}
    events = _events(_ok(http.post("/v1/threads/runs", json=body)).text)
    return "".join(
        part["text"]["value"]
        for event in events if event.get("object") == "thread.message.delta"
        for part in event["delta"]["content"]
    )  # fmt: skip


SURFACES: dict[str, Surface] = {
    "chat": _chat,
    "chat stream": _chat_stream,
    "completion": _completion,
    "responses": _response,
    "anthropic": _anthropic,
    "ollama generate": _ollama_generate,
    "ollama chat": _ollama_chat,
    "conversation": _conversation,
    "conversation stream": _conversation_stream,
    "rpc": _rpc,
    "rpc stream": _rpc_stream,
    "websocket": _websocket,
}
"""All of them, by name."""
