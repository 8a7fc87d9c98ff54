"""A client that leaves frees what it had: nothing is generated for nobody."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.helpers import DEADLINE_S, ChatStream, Daemon, chat, in_flight, wait_until

pytestmark = pytest.mark.model

WITHOUT_END = chat("Tell me a long story about a lighthouse.", max_tokens=4000, ignore_eos=True)
"""Takes longer than the deadline where it is not given up."""


@pytest.mark.fault("H2")
def test_leaving_a_stream_frees_its_sequence(http: httpx.Client) -> None:
    stream = ChatStream.open(http, WITHOUT_END)
    stream.read_some()
    assert in_flight(http) == 1
    stream.close()
    wait_until(lambda: in_flight(http) == 0)


@pytest.mark.fault("H2")
def test_leaving_before_a_whole_answer_frees_its_sequence(daemon: Daemon, http: httpx.Client) -> None:
    body = json.dumps(WITHOUT_END).encode()
    address = urlsplit(daemon.url)
    assert address.hostname is not None
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port or 80), DEADLINE_S) as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: in_flight(http) == 1)
    wait_until(lambda: in_flight(http) == 0)


@pytest.mark.fault("H2")
def test_the_place_of_one_who_left_is_given_to_the_next(http: httpx.Client) -> None:
    streams = [ChatStream.open(http, WITHOUT_END) for _ in range(4)]  # all that run at the same time
    for stream in streams:
        stream.close()
    assert http.post("/v1/chat/completions", json=chat("Hello", max_tokens=1)).status_code == 200
    wait_until(lambda: in_flight(http) == 0)
