from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.bench.answer import Answer
from kolosal.bench.answer_reader import AnswerReader
from kolosal.bench.errors import BenchError, Refused

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = ["one", "\u2028 two", "three"]
EVENTS = [b'{"choices": [{"text": "%b"}]}' % piece.encode() for piece in PIECES]


def reader() -> AnswerReader:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    connection.send(h11.EndOfMessage())
    return AnswerReader(connection, 0.0)


def read(*parts: bytes) -> Answer:
    reading = reader()
    for at, part in enumerate(parts):
        reading.feed(float(at), part)
    return reading.answer()


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


WHOLE = HEAD + chunked(*(b": ping\n\ndata: %s\r\n\n" % event for event in [*EVENTS, b"[DONE]"]))


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_the_text_is_the_same_however_the_bytes_arrive(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    answer = read(*(WHOLE[a:b] for a, b in pairwise(edges) if a < b))
    assert answer.text == "".join(PIECES)
    assert len(answer.arrivals) == len(PIECES)


def test_a_body_without_chunks_is_read_too() -> None:
    parts = (b"HTTP/1.1 200 OK\r\n\r\ndata: %s\nda" % EVENTS[0], b"ta: %s\ndata: [DONE]\n" % EVENTS[2])
    answer = read(*parts)
    assert (answer.text, answer.arrivals, answer.ended_at) == ("onethree", (0.0, 1.0), 1.0)


def test_a_body_that_ended_needs_no_mark_where_the_text_has_an_end() -> None:
    last = b'data: {"choices": [{"text": "x", "finish_reason": "stop"}]}\n\n'
    assert read(HEAD, chunked(last)).text == "x"
    with pytest.raises(BenchError, match="before the answer's end"):
        read(HEAD, chunked(last).removesuffix(b"0\r\n\r\n"))


def test_an_error_body_is_told() -> None:
    with pytest.raises(Refused, match="HTTP 404: data: x"):
        read(b"HTTP/1.1 404 Not Found\r\ncontent-length: 8\r\n\r\ndata: x\n")


@pytest.mark.parametrize(
    "data", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * 2**17, HEAD + b"zz\r\n"]
)
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with pytest.raises(BenchError, match=r"does not speak HTTP/1\.1|malformed chunk"):
        read(data)
