"""Accepting goes on, whatever a connection does while it is accepted. The last test needs Windows; the others run anywhere."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from collections.abc import Awaitable, Callable

import pytest

from kolosal.loop_windows import accepted, told

DEADLINE_S = 30.0
GONE = ConnectionResetError("the client is gone")


class Pauses:
    """Waits for nothing, and remembers for how long it should have."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def gives(*results: object) -> Callable[[], Awaitable[object]]:
    """A listening socket that gives one after the other; a tuple holds an error of its own."""
    left = iter(results)

    async def accept() -> object:
        result = next(left)
        if isinstance(result, tuple):
            raise result[0]
        return result

    return accept


async def test_clients_that_left_are_passed_over_at_once(caplog: pytest.LogCaptureFixture) -> None:
    pauses = Pauses()

    assert await accepted(gives(GONE, GONE, "a client"), lambda: True, pauses) == "a client"
    assert pauses.seconds == [0, 0]
    assert caplog.records == []


async def test_an_error_of_the_listening_socket_is_told_and_followed_by_a_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pauses = Pauses()

    assert await accepted(gives((OSError("no memory"),), "a client"), lambda: True, pauses) == "a client"
    assert pauses.seconds == [1.0]
    assert [(one.levelno, one.message) for one in caplog.records] == [
        (logging.WARNING, "server.accept_failed")
    ]


async def test_a_listening_socket_that_was_closed_ends_it() -> None:
    with pytest.raises(ConnectionResetError):
        await accepted(gives(GONE), lambda: False, Pauses())


def test_an_error_that_is_told_is_not_raised() -> None:
    cleaned_up = []

    def fails(*_arguments: object) -> str:
        raise GONE

    assert told(fails, lambda: cleaned_up.append(1))(1, 2, 3) is GONE
    assert cleaned_up == [1]
    assert told(lambda a, b: a + b, lambda: cleaned_up.append(2))(1, 2) == 3
    assert cleaned_up == [1]


if sys.platform == "win32":
    from kolosal.loop_windows import new_event_loop

    def test_a_server_outlives_clients_that_reset_before_they_are_accepted() -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            assert runner.run(_answer_after_resets(50)) == b"hello"

    async def _answer_after_resets(count: int) -> bytes:
        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()

        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        for _ in range(count):  # the loop does not run meanwhile: all are gone before it accepts them
            client = socket.create_connection(address, DEADLINE_S)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh", 1, 0))
            client.close()
        async with server, asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection(*address)
            answer = await reader.read()
            writer.close()
            return answer
