"""JSON-RPC and sessions against a running daemon: their form, with a real model and real connections."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.helpers import DEADLINE_S, ROOT, Daemon, add_engine, in_flight, wait_until

pytestmark = pytest.mark.model

WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

LONG: dict[str, Any] = {
    "message": "Tell me a long story about a lighthouse.",
    "max_new_tokens": 4000,
    "do_sample": False,
}


def create(http: httpx.Client, **params: Any) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "method": "create_message", "id": "a", "params": {"do_sample": False, **params}}
    answer = http.post("/rpc", json=body)
    assert answer.status_code == 200
    assert answer.json().keys() == {"jsonrpc", "result", "id"}, answer.text
    result: dict[str, Any] = answer.json()["result"]
    return result


class Socket:
    """A session's connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._ids = iter(range(1, 1000))

    def next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.connection.recv(DEADLINE_S))
        return message

    def call(self, method: str, **params: Any) -> int:
        call_id = next(self._ids)
        body = {"jsonrpc": "2.0", "method": method, "params": params, "id": call_id}
        self.connection.send(json.dumps(body))
        return call_id

    def generate(self, **params: Any) -> None:
        call_id = self.call("generate", **params)
        assert self.next() == {"jsonrpc": "2.0", "result": {"status": "processing"}, "id": call_id}

    def until(self, *methods: str) -> list[dict[str, Any]]:
        """All messages up to the first notification of one of these kinds."""
        found = [self.next()]
        while found[-1].get("method") not in methods:
            found.append(self.next())
        return found


def connection_to(url: str, **fields: Any) -> contextlib.AbstractContextManager[ClientConnection]:
    session_id = httpx.post(f"{url}/create_session", json=fields, trust_env=False).json()["session_id"]
    address = f"{url.replace('http', 'ws', 1)}/ws/{session_id}"
    return connect(address, proxy=None, close_timeout=DEADLINE_S)


@pytest.fixture
def socket(daemon: Daemon) -> Iterator[Socket]:
    """A connection to a session that has a tool."""
    with connection_to(daemon.url, tools=[WEATHER]) as connection:
        yield Socket(connection)


def test_R01_a_message_is_answered(http: httpx.Client) -> None:
    result = create(http, message="Say hello.", max_new_tokens=20)
    assert (result["type"], result["iteration_count"]) == ("final_text", 0)
    assert result["content"]
    assert [turn["role"] for turn in result["history"]] == ["user", "assistant"]


def test_R02_a_tool_is_called_and_its_result_used(http: httpx.Client) -> None:
    first = create(http, message="Oslo?", tools=[WEATHER], tool_choice="required", max_new_tokens=60)
    assert first["type"] == "tool_calls"
    assert all(call["tool"] == "weather" and call["parameters"]["city"] for call in first["content"])
    results = [{"toolName": "weather", "result": {"sky": "clear"}} for _ in first["content"]]
    second = create(http, history=first["history"], tools=[WEATHER], tool_results=results, max_new_tokens=30)
    assert second["iteration_count"] == 1
    assert len(second["history"]) == len(first["history"]) + len(results) + 1


def test_R09_the_stream_is_the_text(http: httpx.Client, tiny: str) -> None:
    asked = {"model": tiny, "message": "Count to five.", "max_new_tokens": 20, "do_sample": False}
    streamed = http.post("/stream", json=asked)
    deltas = [json.loads(line.removeprefix("data: "))["delta"] for line in streamed.text.split("\n\n")[:-1]]
    assert deltas
    assert "".join(deltas).strip() == create(http, **asked)["content"]


def test_W02_a_generate_over_a_real_connection(socket: Socket) -> None:
    for _ in range(2):
        socket.generate(message="Count to five. 🎉", max_new_tokens=30, tools=[])
        told = socket.until("end")
        text = "".join(each["params"]["chunk"] for each in told if each["method"] == "text_chunk")
        assert told[-2]["params"]["final_text"] == text != ""
        assert len({each["params"]["task_id"] for each in told}) == 1


def test_W03_a_call_and_its_result_over_a_real_connection(socket: Socket) -> None:
    socket.generate(message="Oslo?", tool_choice="required", max_new_tokens=60, do_sample=False)
    request = socket.until("function_call_request")[-1]["params"]
    results = [{"tool_call_id": call["id"], "result": "rain"} for call in request["tool_calls"]]
    call_id = socket.call("tool_result", task_id=request["task_id"], results=results)
    assert socket.next() == {"jsonrpc": "2.0", "result": {"status": "received"}, "id": call_id}
    assert socket.until("end", "function_call_request")[-1]["params"]["task_id"] == request["task_id"]


def test_W05_cancel_frees_the_sequence(socket: Socket, http: httpx.Client) -> None:
    socket.generate(**LONG)
    socket.until("text_chunk")
    call_id = socket.call("cancel")
    while "id" not in (message := socket.next()):
        assert message["method"] == "text_chunk"
    assert message == {"jsonrpc": "2.0", "result": {"status": "cancelled"}, "id": call_id}
    assert socket.next()["method"] == "end"
    wait_until(lambda: in_flight(http) == 0)


@pytest.mark.parametrize("politely", [True, False])
def test_W10_who_leaves_frees_the_sequence(daemon: Daemon, http: httpx.Client, politely: bool) -> None:
    with connection_to(daemon.url) as connection:
        Socket(connection).generate(**LONG)
        wait_until(lambda: in_flight(http) == 1)
        if not politely:
            connection.socket.shutdown(2)
    wait_until(lambda: in_flight(http) == 0)


def test_W07_an_unknown_session_is_closed_with_1008(daemon: Daemon) -> None:
    with connect(f"{daemon.url.replace('http', 'ws', 1)}/ws/nope", proxy=None) as connection:
        assert json.loads(connection.recv(DEADLINE_S))["params"]["error"]["message"] == "Invalid session ID"
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(DEADLINE_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_an_engine_that_dies_twice_is_told_and_the_next_generate_works(
    socket: Socket, http: httpx.Client, smollm2: Path
) -> None:
    def loaded() -> dict[str, Any]:
        engine: dict[str, Any] = http.get("/engines/doomed").json()
        return engine if engine["status"] == "loaded" else {}

    add_engine(http, "doomed", smollm2)
    socket.generate(**LONG, model="doomed")
    socket.until("text_chunk")
    first = loaded()["worker_pid"]
    psutil.Process(first).kill()  # a pause
    wait_until(lambda: loaded().get("worker_pid", first) != first)
    psutil.Process(loaded()["worker_pid"]).kill()
    *_, error, _ = socket.until("end")
    assert (error["method"], error["params"]["error"]["data"]["code"]) == ("error", "engine_died")
    socket.generate(message="Hi", max_new_tokens=5, model="doomed")
    assert socket.until("end")[-2]["method"] == "final_text"


@pytest.mark.parametrize("name", ["jsonrpc", "websocket"])
def test_the_example_in_the_documentation_runs(daemon: Daemon, name: str) -> None:
    page = (ROOT / "docs" / "api" / f"{name}.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found is not None
    program = found[1].replace("127.0.0.1:8080", daemon.url.removeprefix("http://"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE_S,
        env=daemon.environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n")


def test_W12_the_older_servers_file_starts_it_and_stopping_says_1001(tmp_path: Path, tiny_gguf: Path) -> None:
    (tmp_path / ".env").write_text(f"INFERENCE_MODEL_ID={tiny_gguf}\nINFERENCE_ATTN_IMPLEMENTATION=eager\n")
    running = Daemon.start(tmp_path, "--port", "0")
    try:
        running.wait_until_ready(tiny_gguf.stem)
        shown = httpx.get(f"{running.url}/engines/{tiny_gguf.stem}", trust_env=False).json()
        assert shown["status"] == "loaded"
        with connection_to(running.url) as connection:
            Socket(connection).generate(message="Hi", max_new_tokens=1_000_000)
            assert running.stop() == 0, running.log
            with contextlib.suppress(ConnectionClosed):
                while True:
                    connection.recv(DEADLINE_S)
            assert connection.close_code == 1001
        assert (tmp_path / "inference_server.log").read_text(encoding="utf-8") == running.log
        assert "engine.loaded" in running.log
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.process.kill()
        running.process.wait(DEADLINE_S)


def test_W12_an_unknown_kind_of_attention_aborts_the_start(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("INFERENCE_ATTN_IMPLEMENTATION=paged\n")
    running = Daemon.start(tmp_path, "--port", "0")
    assert running.process.wait(DEADLINE_S) == 2
    assert "INFERENCE_ATTN_IMPLEMENTATION: must be one of sdpa, flash_attention_2, eager" in running.log
