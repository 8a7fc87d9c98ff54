"""Whether there is a newer version: only asked where the operator names an address."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kolosal.updates import newer, watch


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"version": "1.10.0"}', "1.10.0"),
        (b'{"info": {"version": "1.9.1"}, "releases": {}}', "1.9.1"),
        (b'{"version": "v2.0"}', "2.0"),
        (b'{"version": "1.9.0"}', None),
        (b'{"version": "1.9"}', None),
        (b'{"version": "0.99.9"}', None),
        (b'{"version": "2.0.0rc1"}', None),
    ],
)
def test_only_a_newer_release_is_told(answer: bytes, expected: str | None) -> None:
    assert newer(answer, "1.9.0") == expected


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"info": null}', b"<html>"])
def test_an_answer_without_a_version_is_an_error(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"version|JSON|[Ii]nput|character"):
        newer(answer)


@pytest.fixture
def answers() -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """A server, and what it answers next."""
    planned: list[tuple[int, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = planned.pop(0) if len(planned) > 1 else planned[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", planned
        server.shutdown()
        thread.join()


async def test_it_is_asked_again_also_after_an_error(
    answers: tuple[str, list[tuple[int, bytes]]], caplog: pytest.LogCaptureFixture
) -> None:
    url, planned = answers
    planned += [(503, b"busy"), (200, b'{"version": "999.0"}')]
    told = asyncio.Event()
    found: list[str | None] = []

    def note(version: str | None) -> None:
        found.append(version)
        told.set()

    task = asyncio.create_task(watch(url, note, every_s=0))
    await told.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert found == ["999.0"]
    assert "update.not_known" in caplog.messages[0]
