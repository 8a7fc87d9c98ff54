"""Server-sent events as our own clients read them: parsed by httpx-sse, and bounded here, because that bounds nothing.

What answers at an address may be no daemon at all. The format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from httpx_sse import ServerSentEvent

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Bytes of one event; a longer one is no answer of ours."""

PLAIN = {"accept-encoding": "identity"}
"""Headers of a request whose answer is read here: of what was compressed, no bound could be kept."""

_NO_EVENTS = "What answers at this address is not a Kolosal daemon"


class EventStreamError(Exception):
    """What answers sends something else than events, or one that is too long. The message is for the user."""


def iter_events(response: httpx.Response) -> Iterator[ServerSentEvent]:
    """The events of an answer whose body was not read yet.

    Raises:
        EventStreamError: it is no stream of events, or one of them is too long.
        httpx.HTTPError: the connection broke.
    """
    from httpx_sse import EventSource, SSEError  # noqa: PLC0415 - few commands read events

    bounded = _bounded(response)
    try:
        for event in EventSource(response).iter_sse():
            bounded.n_bytes = 0
            if event.data:  # after an event with an id, httpx-sse makes one of each comment
                yield event
    except SSEError as exc:
        raise EventStreamError(_NO_EVENTS) from exc


async def aiter_events(response: httpx.Response) -> AsyncIterator[ServerSentEvent]:
    """As `iter_events`, for asynchronous clients."""
    from httpx_sse import EventSource, SSEError  # noqa: PLC0415 - as above

    bounded = _bounded(response)
    try:
        async for event in EventSource(response).aiter_sse():
            bounded.n_bytes = 0
            if event.data:  # as above
                yield event
    except SSEError as exc:
        raise EventStreamError(_NO_EVENTS) from exc


def _bounded(response: httpx.Response) -> _BoundedStream:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise EventStreamError(_NO_EVENTS)
    response.stream = bounded = _BoundedStream(response.stream)
    return bounded


class _BoundedStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The bytes of an answer, as long as events come of them."""

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        self.n_bytes = 0
        """Since the last event."""
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._stream, httpx.SyncByteStream)  # noqa: S101 - httpx.Client gives such
        for chunk in self._stream:
            self._count(chunk)
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._stream, httpx.AsyncByteStream)  # noqa: S101 - httpx.AsyncClient gives such
        async for chunk in self._stream:
            self._count(chunk)
            yield chunk

    def _count(self, chunk: bytes) -> None:
        self.n_bytes += len(chunk)
        if self.n_bytes > MAX_EVENT_BYTES:
            raise EventStreamError(f"The daemon sent an event of more than {MAX_EVENT_BYTES >> 20} MiB")

    def close(self) -> None:
        if isinstance(self._stream, httpx.SyncByteStream):
            self._stream.close()

    async def aclose(self) -> None:
        if isinstance(self._stream, httpx.AsyncByteStream):
            await self._stream.aclose()
