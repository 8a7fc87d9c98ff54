"""A daemon's HTTP API over dictionaries: what the command line talks to in these tests.

Also a program, `python -m tests.commands.stub_daemon --host H --port P`: a child that `kolosal run` can start.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class StubDaemon(ThreadingHTTPServer):
    """Scripted by its attributes; `received` has every request as (method, path, body)."""

    daemon_threads = False  # the test ends when every answer has
    block_on_close = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.engines: dict[str, dict[str, Any]] = {}
        self.received: list[tuple[str, str, Any]] = []
        self.authorizations: list[str | None] = []
        """The header of each request."""
        self.events: list[str] = ['{"choices": [{"delta": {"content": "Hi"}}]}', "[DONE]"]
        """What a chat is answered with, as the data of events."""
        self.refusal: tuple[int, Any] | None = None
        """Status and body for everything but health."""
        self.is_daemon = True
        """False: answers everything with a page of HTML."""
        self.hold: threading.Event | None = None
        """A chat waits for this after its first event; one that is never set waits until the client leaves."""
        self.client_left = threading.Event()
        self.dies = False
        """A chat ends the process."""
        self.load_steps: list[float] = []
        """A load is answered when this many looks at its progress have been answered, with these."""
        self.looked = threading.Event()
        self.happenings: list[str] = ["event: hello\ndata: {}"]
        """What `/v1/events` and a followed log send before they end."""
        self.log_lines: list[str] = []
        self.answers: dict[str, Any] = {}
        """What else is answered, by path."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self, method: str, path: str) -> list[Any]:
        return [body for m, p, body in self.received if (m, p) == (method, path)]


class _Handler(BaseHTTPRequestHandler):
    server: StubDaemon

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is http.server's
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self._serve(self._get)

    def do_POST(self) -> None:
        if self.path.endswith("/unload"):
            self._serve(self._unload)
        elif self.path in self.server.answers:
            self._serve(self._get)
        else:
            self._serve(self._chat if self.path == "/v1/chat/completions" else self._add)

    def do_DELETE(self) -> None:
        self._serve(self._remove)

    def _unload(self, _body: Any) -> None:
        engine_id = unquote(self.path.split("/")[2])
        self._send(200, self.server.engines[engine_id] | {"state": "unloaded"})

    def _serve(self, answer: Any) -> None:
        length = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.received.append((self.command, self.path, body))
        self.server.authorizations.append(self.headers.get("authorization"))
        if not self.server.is_daemon:
            self._send(200, "<html>")
        elif self.server.refusal is not None and self.path != "/v1/health":
            self._send(*self.server.refusal)
        else:
            answer(body)

    def _get(self, _body: Any) -> None:
        engines = self.server.engines
        if self.path == "/v1/health":
            rows = [{"engine_id": name, "status": "loaded"} for name in engines]
            self._send(200, {"status": "healthy", "server": {"version": "9.9"}, "engines": rows})
        elif self.path == "/v1/events" or "follow=true" in self.path:
            events = "".join(f": a comment\n\nid: 1-1\n{text}\n\n" for text in self.server.happenings)
            self._send(200, events, "text/event-stream; charset=utf-8")
        elif self.path.partition("?")[0].endswith("/logs"):
            self._send(200, {"engine_id": "tiny", "lines": self.server.log_lines, "dropped": 0})
        elif (path := self.path.partition("?")[0]) in self.server.answers:
            self._send(200, self.server.answers[path])
        elif self.path == "/engines":
            self._send(200, {"engines": [{"engine_id": name} for name in engines]})
        elif self._engine_id in engines and "gone" not in engines[self._engine_id]:
            self._send(200, self._facts(self._engine_id))
        else:
            self._send_error("Engine not found", 404)

    def _facts(self, engine_id: str) -> dict[str, Any]:
        facts = {
            "engine_id": engine_id,
            "status": "loaded",
            "state": "ready",
            **self.server.engines[engine_id],
        }
        if self.server.load_steps:
            facts |= {"state": "loading", "load_progress": self.server.load_steps.pop(0)}
            if not self.server.load_steps:
                self.server.looked.set()
        return facts

    def _add(self, body: dict[str, Any]) -> None:
        self.server.engines[body["engine_id"]] = {"model_path": body["model_path"]}
        if self.server.load_steps:
            self.server.looked.wait(30)
        self._send(201, {"engine_id": body["engine_id"], "status": "loaded"})

    def _remove(self, _body: Any) -> None:
        if self.path in self.server.answers:
            self._send(200, self.server.answers[self.path])
            return
        if self.server.engines.pop(self._engine_id, None) is None:
            self._send_error("Engine not found", 404)
        else:
            self._send(200, {"engine_id": self._engine_id, "status": "removed"})

    def _chat(self, _body: Any) -> None:
        if self.server.dies:
            sys.stderr.write("out of luck\n")
            os._exit(3)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.end_headers()
        first, *others = self.server.events
        self._event(first)
        if self.server.hold is not None:
            self.connection.settimeout(30)
            if self.connection.recv(1) == b"":  # the client hung up
                self.server.client_left.set()
                return
        for data in others:
            self._event(data)

    def _event(self, data: str) -> None:
        self.wfile.write(f": a comment\n\ndata: {data}\n\n".encode())
        self.wfile.flush()

    def _send(self, status: int, body: Any, content_type: str = "application/json") -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_error(self, message: str, status: int) -> None:
        self._send(status, {"error": {"message": message, "type": "x", "param": None, "code": None}})

    @property
    def _engine_id(self) -> str:
        return unquote(self.path.removeprefix("/engines/"))


def main() -> None:
    stub = StubDaemon(int(sys.argv[sys.argv.index("--port") + 1]))
    stub.dies = "--die" in sys.argv
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stub.shutdown).start())
    stub.serve_forever(poll_interval=0.02)
    stub.server_close()


if __name__ == "__main__":
    main()
