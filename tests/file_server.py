"""A server of files on loopback, with what goes wrong with servers of files: for fakes of the hub, its CDN and registries.

A real HTTP server in threads: ranges, ETags, redirects. Faults are scripted by path and used up one by one.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class ServedFile:
    """A file, and how it is served."""

    data: bytes
    etag: str | None = None
    """None: none is sent."""
    knows_ranges: bool = True
    said_length: int | None = None
    """In place of the right one."""
    sent: bytes | None = None
    """In place of the right content."""
    cut_after: int | None = None
    """Bytes after which each connection is closed."""
    bytes_per_s: float | None = None
    statuses: list[int] = field(default_factory=list)
    """Answered first, one a request."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Seen:
    """A request that was made."""

    method: str
    path: str
    headers: Mapping[str, str]


class FileServer:
    """Serves `files` by path. A subclass answers other paths in `answer`. Use as a context manager."""

    def __init__(self, port: int = 0) -> None:
        self.files: dict[str, ServedFile] = {}
        self.redirects: dict[str, str] = {}
        self.seen: list[Seen] = []
        self.sent: defaultdict[str, int] = defaultdict(int)
        """Bytes of bodies by path."""
        self._http = _Server(("127.0.0.1", port), Handler)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self._http.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    def __enter__(self) -> FileServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def settle(self) -> None:
        """Return when no connection is open: clients that leave are noticed a moment later."""
        with self._http.changed:
            assert self._http.changed.wait_for(lambda: not self._http.active, 5)

    def serve_forever(self) -> None:
        """For programs: until Ctrl-C."""
        self._http.serve_forever()

    def requests(self, path: str) -> list[Seen]:
        """Those for one path."""
        return [each for each in self.seen if urlsplit(each.path).path == path]

    def answer(self, handler: Handler, path: str, query: str) -> bool:
        """Whether the request was answered here."""
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    owner: FileServer

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.active = 0
        self.changed = threading.Condition()

    def process_request_thread(self, *args: Any) -> None:
        with self.changed:
            self.active += 1
        try:
            super().process_request_thread(*args)
        finally:
            with self.changed:
                self.active -= 1
                self.changed.notify_all()

    def handle_error(self, *_: object) -> None:
        """Clients leave, as tests have them do."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        owner = self.server.owner
        owner.seen.append(Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        if owner.answer(self, path, parts.query):
            return
        if path in owner.redirects:
            self.send(302, headers={"Location": owner.redirects[path]})
        elif path in owner.files:
            self._send_file(path, owner.files[path])
        else:
            self.send(404)

    do_HEAD = do_GET  # noqa: N815 - the standard library's word

    def send(self, status: int, body: Any = b"", headers: Mapping[str, str] | None = None) -> None:
        """An answer: bytes, or anything as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _send_file(self, path: str, file: ServedFile) -> None:
        if self.command == "GET" and file.statuses:
            self.send(file.statuses.pop(0), headers={"Retry-After": "0"})
            return
        content = file.data if file.sent is None else file.sent
        start, total = self._start(file), len(content)
        if start > total:
            self.send(416, headers={"Content-Range": f"bytes */{total}"})
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str((file.said_length or total) - start))
        if file.etag is not None:
            self.send_header("ETag", file.etag)
        self.end_headers()
        self.wfile.flush()
        if self.command == "GET":
            self._send_body(path, file, memoryview(content)[start:])

    def _start(self, file: ServedFile) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or not file.knows_ranges:
            return 0
        if self.headers.get("If-Range", file.etag) != file.etag:
            return 0
        return int(asked[1])

    def _send_body(self, path: str, file: ServedFile, body: memoryview) -> None:
        end = len(body) if file.cut_after is None else min(len(body), file.cut_after)
        step = 1 << 16 if file.bytes_per_s is None else max(1, int(file.bytes_per_s / 50))
        if file.bytes_per_s is None and file.cut_after is None:
            step = 1 << 20
        for at in range(0, end, step):
            self.connection.sendall(body[at : min(end, at + step)])
            self.server.owner.sent[path] += min(end, at + step) - at
            if file.bytes_per_s is not None:
                time.sleep(step / file.bytes_per_s)
        if end < len(body) or file.said_length is not None:
            self.close_connection = True
