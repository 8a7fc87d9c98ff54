from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.bench.errors import BenchError
from kolosal.bench.http_stream import MAX_BUFFER_BYTES, StreamReader

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = [b'{"a": "one"}', b'{"b": "\xe2\x80\xa8 two"}', b"[DONE]"]


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


WHOLE = HEAD + chunked(*(b": ping\n\ndata: %s\r\n\n" % event for event in EVENTS))


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_events_are_the_same_however_the_bytes_arrive(cuts: list[int]) -> None:
    reader = StreamReader()
    edges = [0, *sorted(cuts), len(WHOLE)]
    found = [event for a, b in pairwise(edges) for event in reader.feed(WHOLE[a:b])]
    assert found == EVENTS
    assert reader.finished


def test_a_body_without_chunks_is_read_too() -> None:
    reader = StreamReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\ndata: x\nda") == [b"x"]
    assert reader.feed(b"ta: y\n") == [b"y"]


def test_an_error_body_is_kept() -> None:
    reader = StreamReader()
    assert reader.feed(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ndata: x\n") == []
    assert (reader.status, bytes(reader.body)) == (404, b"data: x\n")


@pytest.mark.parametrize("data", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", HEAD + b"zz\r\n"])
def test_what_is_not_http_is_refused(data: bytes) -> None:
    with pytest.raises(BenchError):
        StreamReader().feed(data)


def test_a_head_without_end_is_refused() -> None:
    with pytest.raises(BenchError, match="16 MiB"):
        StreamReader().feed(b"x" * (MAX_BUFFER_BYTES + 1))
