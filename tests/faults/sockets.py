"""Connections without an HTTP client: what they send, how slowly, and when they were closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

MIB = 1024 * 1024


def port_of(url: str) -> int:
    """The port of a daemon's address."""
    port = urlsplit(url).port
    assert port is not None
    return port


def deadlines(**seconds: float) -> str:
    """A preamble that gives a daemon's connections shorter deadlines: `deadlines(header=1.0, write=0.5)`."""
    lines = [f"GuardedProtocol.{name}_deadline_s = {value}" for name, value in seconds.items()]
    return "\n".join(["from kolosal.http.protocol import GuardedProtocol", *lines])


class Lifetime(NamedTuple):
    """How long a connection was kept, in seconds: a client knows it only by when it asked for one and when it had it."""

    least: float
    most: float


async def lifetime(port: int, first: bytes, trickle: bytes = b"", *, pace_s: float = 1.0) -> Lifetime:
    """How long the daemon keeps a connection that sends `first` at once and then one byte of `trickle` every `pace_s`."""
    asked = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    writer.write(first)
    sending = asyncio.create_task(_send_slowly(writer, trickle, pace_s))
    try:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        return Lifetime(time.monotonic() - began, time.monotonic() - asked)
    finally:
        sending.cancel()
        await asyncio.wait((sending,))
        await closed(writer)


async def _send_slowly(writer: asyncio.StreamWriter, data: bytes, pace_s: float) -> None:
    for byte in data:
        await asyncio.sleep(pace_s)
        writer.write(bytes([byte]))


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever state it is in."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.contextmanager
def connected(port: int, *, receive_buffer: int | None = None) -> Iterator[socket.socket]:
    """A blocking socket; with `receive_buffer` one whose kernel holds hardly anything for a reader that does not read."""
    with socket.socket() as connection:
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(30)
        connection.connect(("127.0.0.1", port))
        yield connection


def said_to(port: int, data: bytes) -> bytes:
    """What the daemon answers to these bytes, until it closes or the sender has no more to say."""
    with connected(port) as connection:
        with contextlib.suppress(OSError):  # it may be closed already
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    content = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65_536):
            content += chunk
    return content


def rss(process: subprocess.Popen[str]) -> int:
    """Bytes of memory that a process has."""
    return int(psutil.Process(process.pid).memory_info().rss)


def bytes_read(process: subprocess.Popen[str]) -> int:
    """Bytes that a process has read from files and sockets, as Linux counts them."""
    lines = Path(f"/proc/{process.pid}/io").read_text().splitlines()
    return int(next(line.partition(":")[2] for line in lines if line.startswith("rchar")))
