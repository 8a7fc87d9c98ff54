"""Server-sent events, and lines of JSON: a response that streams frames and gives up everything the moment its reader is gone.

Owns the pings, the watch for a disconnect and the end of a stream that fails half-way. Knows no protocol's events: frames
and the encoding of an error are handed in. A reader that stops reading is dropped by `protocol.GuardedProtocol`, and is a
disconnect here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kolosal.errors import InternalError, KolosalError
from kolosal.http.disconnect import disconnected, end_tasks, unless_revoked
from kolosal.http.request_log import request_id
from kolosal.observe.context import note_error

log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
"""How an OpenAI stream says that it is complete."""

PING_INTERVAL_S = 15.0
"""After this long without an event a ping is sent, so that proxies and clients do not give up on a long prompt."""

EVENTS = "text/event-stream; charset=utf-8"
"""Server-sent events."""

NDJSON = "application/x-ndjson"
"""One JSON value a line."""

PING = b": ping\n\n"
"""A comment, which every reader of events skips."""


def event_frame(event: Mapping[str, object]) -> bytes:
    """One event as a frame that says the event's `type` twice, as Anthropic's and OpenAI's Responses clients want it."""
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event))


def data_frame(event: object) -> bytes:
    """One event as a frame."""
    return b"data: " + orjson.dumps(event) + b"\n\n"


class EventStream(Response):
    """Sends `frames` as they come, then ends the response.

    `close` is called exactly once and synchronously, however the response ends: complete, failed, disconnected or
    cancelled, also when not one frame was taken. It must stop whatever makes the frames. An error that `frames` raises is
    sent as the last frame, made by `encode_error`.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        close: Callable[[], None],
        encode_error: Callable[[KolosalError], bytes],
        *,
        ping: bytes | Callable[[], bytes] | None = PING,
        ping_interval_s: float = PING_INTERVAL_S,
        media_type: str = EVENTS,
    ) -> None:
        """`ping` is the frame, or makes the frame, that is sent while there is nothing else to send; None: nothing is."""
        self.status_code = 200
        self.background = None
        # nginx keeps an answer back until there is much of it, unless it says otherwise
        self.init_headers(
            {"content-type": media_type, "cache-control": "no-cache", "x-accel-buffering": "no"}
        )
        self._frames = frames
        self._close = close
        self._encode_error = encode_error
        self._ping_frame = (lambda: ping) if isinstance(ping, bytes) else ping
        self._ping_interval_s = ping_interval_s
        self._last_sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tasks: list[asyncio.Task[None]] = []
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            self._last_sent_at = asyncio.get_running_loop().time()
            watch = asyncio.create_task(disconnected(receive))
            pump = asyncio.create_task(self._pump(scope, send))
            tasks += [watch, pump]
            if self._ping_frame is not None:
                tasks.append(asyncio.create_task(self._ping(send, self._ping_frame)))
            await asyncio.wait((watch, pump), return_when=asyncio.FIRST_COMPLETED)
            finished = pump.done() and not pump.cancelled()
        finally:
            self._close()
            await end_tasks(*tasks)
        if finished:
            pump.result()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, scope: Scope, send: Send) -> None:
        try:
            await unless_revoked(scope, self._send_all(send))
        except KolosalError as exc:
            note_error(exc)
            log.warning("stream.failed", extra={"request_id": request_id(scope), "reason": exc.message})
            await self._send(send, self._encode_error(exc))
        except Exception:
            log.exception("stream.failed", extra={"request_id": request_id(scope)})
            error = InternalError()
            note_error(error)
            await self._send(send, self._encode_error(error))

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._frames) as frames:
            async for frame in frames:
                await self._send(send, frame)

    async def _ping(self, send: Send, frame: Callable[[], bytes]) -> None:
        """Frames and pings may wait for the same full buffer; each is written whole, so they cannot mix."""
        now = asyncio.get_running_loop().time
        while True:
            silent_s = now() - self._last_sent_at
            if silent_s >= self._ping_interval_s:
                await self._send(send, frame())
            else:
                await asyncio.sleep(self._ping_interval_s - silent_s)

    async def _send(self, send: Send, frame: bytes) -> None:
        await send({"type": "http.response.body", "body": frame, "more_body": True})
        self._last_sent_at = asyncio.get_running_loop().time()
