"""What the end-to-end tests share: the daemon as a process, a stream as a client reads it, and waiting with a bound."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[2]

ENGINE = "smollm2"
"""The engine that the daemon of the session is started with."""

DEADLINE_S = 60.0
"""Longest wait for what must happen: generous, because other work shares the machine."""

if sys.platform == "win32":  # a statement, because mypy does not see the condition in an expression
    _NEW_GROUP = subprocess.CREATE_NEW_PROCESS_GROUP
    """Ctrl-Break goes to a whole group, which must not be the one of the tests."""
else:
    _NEW_GROUP = 0


def wait_until(condition: Callable[[], bool]) -> None:
    """Look until it is so, for `DEADLINE_S` at most."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# --- processes ---


def user_environment(home: Path) -> dict[str, str]:
    """The environment of a user who has configured nothing but that there is no spare worker, which many tests would pay for. What
    lets coverage see into processes stays.

    Models get one thread: threads that wait for each other are many times slower when anything else is running.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KOLOSAL_")}
    names = ("HOME", "APPDATA", "LOCALAPPDATA", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
    home_variables = dict.fromkeys(names, str(home))
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "OMP_THREAD_LIMIT": "1"}
    return inherited | home_variables | ours | {"KOLOSAL_SPARE_WORKER": "false"}


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that a user has started in a folder of its own."""

    process: subprocess.Popen[bytes]
    folder: Path
    environment: dict[str, str]

    @classmethod
    def start(cls, folder: Path, *arguments: str) -> Daemon:
        environment = user_environment(folder)
        command = [sys.executable, "-m", "kolosal", "serve", *arguments]
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment,
                creationflags=_NEW_GROUP,
            )
        return cls(process, folder, environment)

    @property
    def url(self) -> str:
        """The address it says that it listens at; empty before that."""
        first, end, _ = (self.folder / "stdout").read_text(encoding="utf-8").partition("\n")
        return first.split()[-1] if first.startswith("Kolosal is listening on http") and end else ""

    @property
    def log(self) -> str:
        return (self.folder / "stderr").read_text(encoding="utf-8")

    def wait_until_listening(self) -> None:
        """It answers at its address."""
        wait_until(lambda: bool(self._alive() and self.url))

    def wait_until_ready(self, engine_id: str, key: str | None = None) -> None:
        """It listens, and the model it was started with is loaded."""
        self.wait_until_listening()
        headers = {} if key is None else {"x-api-key": key}
        with httpx.Client(base_url=self.url, headers=headers, timeout=DEADLINE_S) as http:
            wait_until(lambda: self._alive() and _loaded(http.get(f"/engines/{engine_id}").json()))

    def stop(self) -> int:
        """Ask it to end, as a service manager does; its exit status."""
        if sys.platform == "win32":
            self.process.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def _alive(self) -> bool:
        assert self.process.poll() is None, self.log
        return True


def _loaded(engine: dict[str, Any]) -> bool:
    assert engine["last_error"] is None, engine["last_error"]
    return bool(engine["status"] == "loaded")


# --- engines ---


def add_engine(http: httpx.Client, engine_id: str, path: Path, **parameters: object) -> None:
    """Load a model over HTTP. The `http` fixture removes it."""
    answer = http.post("/engines", json={"engine_id": engine_id, "model_path": path.as_posix(), **parameters})
    assert answer.status_code == 201, answer.text


def worker_of(http: httpx.Client, engine_id: str = ENGINE) -> psutil.Process:
    """The process of an engine's model. While it is suspended, no answer of it goes on or ends."""
    return psutil.Process(int(http.get(f"/engines/{engine_id}").json()["worker_pid"]))


def in_flight(http: httpx.Client, engine_id: str = ENGINE) -> int:
    """Generations of an engine that run or wait."""
    return int(http.get(f"/engines/{engine_id}").json()["in_flight"])


def chat(prompt: str, model: str = ENGINE, **fields: object) -> dict[str, object]:
    """The body of a chat request that takes the most probable answer."""
    return {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, **fields}


def content_of(answer: httpx.Response) -> str:
    """What the assistant said in a whole answer."""
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


# --- streams ---


@dataclass(slots=True)
class ChatStream:
    """A streamed chat answer, read event by event as a client does."""

    response: httpx.Response
    chunks: list[dict[str, Any]] = field(default_factory=list)
    """The events read so far, an error among them, without `[DONE]`."""
    done: bool = False
    """`[DONE]` was read."""
    _events: Iterator[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self._events = _events(self.response)

    @classmethod
    def open(cls, http: httpx.Client, body: dict[str, object]) -> ChatStream:
        """Send the request; returns with the status line, which waits for the first token."""
        whole = {**body, "stream": True, "stream_options": {"include_usage": True}}
        response = http.send(http.build_request("POST", "/v1/chat/completions", json=whole), stream=True)
        if response.status_code != httpx.codes.OK:
            response.read()
            raise AssertionError(response.text)
        return cls(response)

    def read_some(self) -> None:
        """Read until there is text."""
        while not self.text:
            self._read(next(self._events))

    def read_all(self) -> None:
        """Read to the end of the response."""
        for event in self._events:
            self._read(event)

    def close(self) -> None:
        """Close the connection, whatever is still to come."""
        self.response.close()

    @property
    def text(self) -> str:
        return "".join(choice["delta"]["content"] for choice in self._choices())

    @property
    def finish_reasons(self) -> list[str]:
        return [choice["finish_reason"] for choice in self._choices() if choice["finish_reason"]]

    @property
    def usage(self) -> dict[str, Any]:
        """The usage of the last chunk, which is the only one that may have any."""
        assert [chunk.get("usage") for chunk in self.chunks[:-1]] == [None] * (len(self.chunks) - 1)
        return dict(self.chunks[-1]["usage"])

    def check_form(self, finish_reason: str) -> None:
        """The stream is whole: one id, the role first, one finish reason, usage, `[DONE]`."""
        assert self.done
        assert len({(chunk["id"], chunk["object"], chunk["created"]) for chunk in self.chunks}) == 1
        first, *_, last, with_usage = self.chunks
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert (last["choices"][0]["delta"], with_usage["choices"]) == ({"content": ""}, [])
        assert self.finish_reasons == [finish_reason]
        usage = self.usage
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    def _choices(self) -> Iterator[dict[str, Any]]:
        return (choice for chunk in self.chunks for choice in chunk.get("choices", ()))

    def _read(self, event: bytes) -> None:
        assert not self.done, f"after [DONE]: {event!r}"
        if event == b"[DONE]":
            self.done = True
        else:
            self.chunks.append(json.loads(event))


def _events(response: httpx.Response) -> Iterator[bytes]:
    """The data of server-sent events. Not httpx's lines, which also end at U+2028."""
    rest = b""
    for received in response.iter_bytes():
        *frames, rest = (rest + received).split(b"\n\n")
        for frame in frames:
            if not frame.startswith(b":"):  # a ping
                assert frame.startswith(b"data: ")
                yield frame.removeprefix(b"data: ")
    assert rest == b""
