"""Windows PowerShell 5.1's Invoke-RestMethod, byte by byte, against the running daemon and a real model."""

from __future__ import annotations

import json
import socket
from email.message import Message
from io import BufferedReader
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.helpers import DEADLINE_S, ENGINE, Daemon

pytestmark = pytest.mark.model

USER_AGENT = "Mozilla/5.0 (Windows NT; Windows NT 10.0; fr-FR) WindowsPowerShell/5.1.19041.4291"
BODY = (
    f'{{"model": "{ENGINE}", "prompt": "café, café, café, café, café,", "max_tokens": 12, "temperature": 0}}'
)


class InvokeRestMethod:
    """One connection, which .NET keeps and uses again."""

    def __init__(self, connection: socket.socket, reader: BufferedReader, host: str) -> None:
        self._connection = connection
        self._reader = reader
        self._host = host

    def post(self, path: str, body: str, content_type: str) -> str:
        """Send the headers, wait to be told to go on, send the body; the answer's text as .NET decodes it."""
        data = body.encode("iso-8859-1")
        head = (
            f"POST {path} HTTP/1.1\r\n"
            f"User-Agent: {USER_AGENT}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Host: {self._host}\r\n"
            f"Content-Length: {len(data)}\r\n"
            "Expect: 100-continue\r\n"
            "Connection: Keep-Alive\r\n\r\n"
        )
        self._connection.sendall(head.encode())
        assert self._head()[0].split()[:2] == ["HTTP/1.1", "100"]
        self._connection.sendall(data)
        status, headers = self._head()
        assert status.split()[:2] == ["HTTP/1.1", "200"]
        assert headers.get_content_type() == "application/json"
        return self._reader.read(int(headers["content-length"])).decode(
            headers.get_content_charset("iso-8859-1")
        )

    def _head(self) -> tuple[str, Message]:
        status = self._reader.readline().decode()
        headers = Message()
        while line := self._reader.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name] = value.strip()
        return status, headers


def test_an_accent_survives_the_way_there_and_back(daemon: Daemon, http: httpx.Client) -> None:
    address = urlsplit(daemon.url)
    assert address.hostname is not None
    with (
        socket.create_connection((address.hostname, address.port or 80), DEADLINE_S) as connection,
        connection.makefile("rb") as reader,
    ):
        powershell = InvokeRestMethod(connection, reader, address.netloc)
        answers = [
            json.loads(powershell.post("/v1/completions", BODY, content_type))
            # The second is what it sends when its user says none.
            for content_type in ("application/json", "application/x-www-form-urlencoded")
        ]
    in_utf8 = http.post("/v1/completions", content=BODY.encode()).json()
    for answer in answers:
        assert answer["choices"][0]["text"].startswith(" café, café,")
        assert answer["usage"]["prompt_tokens"] == in_utf8["usage"]["prompt_tokens"]


def test_the_same_bytes_from_another_client_are_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/completions", content=BODY.encode("iso-8859-1"))
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
