"""H5, H6: requests that no honest client sends, byte by byte, against a daemon in a process of its own."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
import pytest

from tests.faults.sockets import MIB, bytes_read, connected, deadlines, port_of, received, rss, said_to
from tests.http.test_daemon import daemon

Sized = Callable[[int, int], int]
Seen = Callable[[str], None]
Daemon = tuple[subprocess.Popen[str], str]

MAX_GROWTH_BYTES = 5 * MIB

LIMIT_BYTES = 512 * 1024
"""Of a body, in these tests."""

READ_BYTES = 256_000
"""What uvloop reads at a time. A body whose length nobody told is known to be too long only after that."""

HOST = b"host: localhost\r\n"
CHUNKED = HOST + b"transfer-encoding: chunked\r\n"
SMUGGLED = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with daemon(
        preamble=deadlines(header=0.5, body=0.5), max_body_bytes=LIMIT_BYTES, access_log=False
    ) as running:
        httpx.get(f"{running[1]}/health")
        said_to(port_of(running[1]), post(HOST + b"content-length: 2\r\n", b"{}"))
        yield running


def get(target: bytes, headers: bytes = HOST) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + headers + b"\r\n"


def post(headers: bytes, body: bytes = b"", target: bytes = b"/v1/completions") -> bytes:
    return b"POST " + target + b" HTTP/1.1\r\n" + headers + b"\r\n" + body


MALFORMED = {
    "a header of 65 KiB": get(b"/health", HOST + b"a: " + b"b" * 66_560 + b"\r\n"),
    "a header's name of 65 KiB": get(b"/health", HOST + b"a" * 66_560 + b": b\r\n"),
    "10,000 headers": get(b"/health", HOST + b"a: b\r\n" * 10_000),
    "201 headers": get(b"/health", HOST + b"a: b\r\n" * 200),
    "a target of 65 KiB": get(b"/" + b"x" * 66_560),
    "headers without end": get(b"/health", HOST + b"a: " + b"b" * MIB)[:-2],
    "a chunk that says no length": post(CHUNKED, b"zz\r\n{}\r\n0\r\n\r\n"),
    "a chunk of a negative length": post(CHUNKED, b"-2\r\n{}\r\n0\r\n\r\n"),
    "a chunk of 2^120 bytes": post(CHUNKED, b"f" * 30 + b"\r\n{}"),
    "a chunk that is longer than it says": post(CHUNKED, b"1\r\n{}\r\n0\r\n\r\n"),
    "a chunk with an endless extension": post(CHUNKED, b"2;" + b"x" * MIB),
    "endless trailers": post(CHUNKED, b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 200_000),
    "two lengths": post(HOST + b"content-length: 2\r\ncontent-length: 3\r\n", b"{}x"),
    "a length and chunks": post(CHUNKED + b"content-length: 4\r\n", b"0\r\n\r\n" + SMUGGLED),
    "chunks and a length": post(HOST + b"content-length: 4\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n"),
    "chunks in chunks": post(HOST + b"transfer-encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    "an encoding of its own": post(HOST + b"transfer-encoding: gzip\r\n"),
    "a length of -1": post(HOST + b"content-length: -1\r\n"),
    "a length of +2": post(HOST + b"content-length: +2\r\n", b"{}"),
    "a length of 2^70": post(HOST + b"content-length: 1180591620717411303424\r\n", b"{}"),
    "a length in other digits": post(HOST + "content-length: ٢\r\n".encode(), b"{}"),
    "two hosts": get(b"/health", HOST + HOST),
    "no host": get(b"/health", b""),
    "a blank before a colon": get(b"/health", HOST + b"content-length : 2\r\n"),
    "a NUL in a header": get(b"/health", HOST + b"a: \x00\r\n"),
    "a bare CR in a header": get(b"/health", HOST + b"a: b\rc: d\r\n"),
    "a NUL in the path": get(b"/heal\x00th"),
    "a blank in the path": get(b"/heal th"),
    "no version": b"GET /health\r\n" + HOST + b"\r\n",
    "a verb that is none": b"G\x01T /health HTTP/1.1\r\n" + HOST + b"\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an upgrade to HTTP/2": get(b"/health", HOST + b"connection: upgrade\r\nupgrade: h2c\r\n" + b"a: b\r\n" * 300),
    "a path that climbs": get(b"/docs/../../../../etc/passwd"),
    "a path that climbs in disguise": get(b"/docs/%2e%2e/%2e%2e/%2e%2e/etc/passwd"),
    "a path that climbs with its slashes in disguise": get(b"/docs/..%2f..%2f..%2fetc%2fpasswd"),
    "a path that climbs in a double disguise": get(b"/docs/%252e%252e%252fetc%252fpasswd"),
    "a path that climbs backwards": get(b"/docs/..%5c..%5cetc%5cpasswd"),
    "a NUL in a path, in disguise": get(b"/docs/index.html%00.css"),
    "a path that is no UTF-8": get(b"/docs/%ff%fe"),
    "an address as a path": get(b"http://169.254.169.254/latest/meta-data"),
}  # fmt: skip


@pytest.mark.fault("H5")
@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed_is_refused_or_dropped(served: Daemon, what: str) -> None:
    answer = said_to(port_of(served[1]), MALFORMED[what])
    assert re.match(rb"HTTP/1\.1 (4\d\d|505) ", answer) or answer == b""
    assert b"HTTP/1.1 2" not in answer  # nor is what follows taken for another request
    assert b"root:" not in answer
    assert httpx.get(f"{served[1]}/health").status_code == 200


@pytest.mark.fault("H5")
def test_nothing_is_answered_after_a_request_whose_end_is_unclear(served: Daemon) -> None:
    """The sender does not say that it is done: the daemon must close by itself."""
    with connected(port_of(served[1])) as connection:
        connection.sendall(MALFORMED["a length and chunks"])
        answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"connection: close\r\n" in answer


@pytest.mark.fault("H5")
def test_all_of_it_leaves_no_memory_behind(served: Daemon, sized: Sized, seen: Seen) -> None:
    process, url = served
    rounds = sized(2, 50)
    for request in MALFORMED.values():
        said_to(port_of(url), request)
    before = rss(process)
    for _ in range(rounds):
        for request in MALFORMED.values():
            said_to(port_of(url), request)
    growth = rss(process) - before
    assert growth < sized(4, 1) * MAX_GROWTH_BYTES
    seen(f"{rounds * len(MALFORMED)} malformed requests refused or dropped, RSS +{growth / MIB:.1f} MiB")


def flood(connection: socket.socket, n_bytes: int, *, chunked: bool = False) -> None:
    """Send that many bytes, or as many as the other side takes before it closes."""
    block = b" " * 65_536
    piece = b"%x\r\n%b\r\n" % (len(block), block) if chunked else block
    with suppress(ConnectionError):
        for _ in range(n_bytes // len(block)):
            connection.sendall(piece)


@pytest.mark.fault("H6")
@pytest.mark.skipif(sys.platform != "linux", reason="Linux says how much a process has read")
@pytest.mark.parametrize(("headers", "status"), [
    (HOST + b"content-length: 104857600\r\n", b"413"),
    (CHUNKED, b"413"),
    (HOST + b"content-length: 104857600\r\nexpect: 100-continue\r\n", b"413"),
    (HOST + b"content-length: 104857600\r\ncontent-encoding: gzip\r\n", b"4"),
    (CHUNKED + b"content-encoding: gzip\r\n", b"415"),
    (CHUNKED + b"content-encoding: identity, br\r\n", b"415"),
])  # fmt: skip
@pytest.mark.parametrize("target", [b"/v1/chat/completions", b"/engines", b"/nowhere"])
def test_a_body_that_is_too_long_is_not_read(
    served: Daemon, seen: Seen, target: bytes, headers: bytes, status: bytes
) -> None:
    process, url = served
    before, held = bytes_read(process), rss(process)
    with connected(port_of(url)) as connection:
        connection.sendall(post(headers, target=target))
        flood(connection, 100 * MIB, chunked=b"chunked" in headers)
        answer = received(connection)
    taken = bytes_read(process) - before
    expected = b"404" if target == b"/nowhere" else status
    assert answer.startswith(b"HTTP/1.1 " + expected) or answer == b""  # a reset may outrun it
    unknown = 2 * READ_BYTES if b"chunked" in headers else 0
    assert taken <= LIMIT_BYTES + 64 * 1024 + unknown
    assert rss(process) - held < 4 * MAX_GROWTH_BYTES  # of 100 MiB
    if target == b"/engines" and b"encoding: gzip" not in headers:
        seen(f"{taken / 1024:.0f} KiB read of 100 MiB")


@pytest.mark.fault("H6")
@pytest.mark.parametrize("n_bytes", [LIMIT_BYTES + 1, 20 * MIB])
def test_an_honest_client_that_sends_too_much_reads_why(served: Daemon, n_bytes: int) -> None:
    answer = httpx.post(f"{served[1]}/v1/completions", content=b" " * n_bytes)
    assert answer.status_code == 413
    assert httpx.get(f"{served[1]}/health").status_code == 200


@pytest.mark.fault("H6")
@pytest.mark.parametrize("request_", [
    post(HOST + b"content-length: 1000\r\n", b'{"model": "a"'),
    post(HOST + b"content-length: 2\r\n", b'{}{"model": "a"}'),
    post(HOST + b"content-length: 0\r\n", b"{}"),
    post(HOST, b'{"model": "a"}'),
], ids=["longer than it is", "shorter than it is", "none", "not given"])  # fmt: skip
def test_a_length_that_lies_is_refused_or_dropped(served: Daemon, request_: bytes) -> None:
    answer = said_to(port_of(served[1]), request_)
    assert re.match(rb"HTTP/1\.1 4\d\d ", answer) or answer == b""
    assert b"HTTP/1.1 2" not in answer
