"""ActiveResponse: one response being generated, sent and kept, and stopped when somebody cancels it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from kolosal.errors import KolosalError
from kolosal.http.sse import event_frame
from kolosal.routes.common.generation import Generation
from kolosal.routes.openai.responses.encode import ResponseObject
from kolosal.routes.openai.responses.events import ResponseEvent, ResponseWriter
from kolosal.routes.openai.responses.items import Item
from kolosal.routes.openai.responses.kept import ResponseKeeper, StoredResponse


class ActiveResponse:
    """A response whose turn starts. Either `whole` or `frames`, then `cancel`, which is idempotent."""

    def __init__(
        self,
        generation: Generation,
        writer: ResponseWriter,
        keeper: ResponseKeeper | None,
        input_items: tuple[Item, ...],
    ) -> None:
        """Without a `keeper` it is not kept."""
        self._generation = generation
        self._writer = writer
        self._keeper = keeper
        self._input_items = input_items
        self._last: list[ResponseEvent] = []

    def snapshot(self) -> StoredResponse:
        """What there is of it."""
        return StoredResponse(self._writer.response(), self._input_items)

    def cancel(self) -> None:
        """Stop, and keep what there is as cancelled, unless it has ended; its own connection sends the last events."""
        if self._writer.begun and not self._writer.ended:
            self._last = self._writer.cancel()
            self._keep()
        self._generation.abort()

    async def whole(self) -> ResponseObject:
        """The whole response.

        Raises:
            KolosalError: the generation failed, and nothing is kept; or it cannot be kept, and its client asked for that.
            ClientDisconnect: the client left; nothing is kept, and nothing runs on.
        """
        await self._generation.finish(self._write())
        if not await self._is_kept():
            self._writer.disown()
        return self._writer.response()

    async def _write(self) -> None:
        async for _, event in self._generation.events():
            self._writer.push(event)

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The frames of its stream. While they come, the response can be read and cancelled.

        Raises:
            KolosalError: the generation failed; `encode_error` gives the last frames then.
        """
        if self._keeper is not None:
            self._keeper.start(self)
        for first in self._writer.begin():
            yield event_frame(first)
        async for _, event in self._generation.events():
            if self._writer.ended:  # cancelled, and this was generated before
                continue
            pushed = self._writer.push(event)
            if self._writer.ended:  # before the last frame is sent: who has it may follow up at once
                pushed = [*pushed[:-1], *await self._end(pushed[-1])]
            for each in pushed:
                yield event_frame(each)
        for last in self._last:
            yield event_frame(last)

    def encode_error(self, error: KolosalError) -> bytes:
        """The last frames of a stream that failed; all of it where it had not begun."""
        if not self._writer.ended:
            first = [] if self._writer.begun else self._writer.begin()
            self._last = [*first, *self._writer.fail(error)]
            self._keep()
        return b"".join(event_frame(event) for event in self._last)

    async def _end(self, last: ResponseEvent) -> list[ResponseEvent]:
        """Keep the response; what is sent in place of its last event."""
        try:
            if await self._is_kept():
                return [last]
        except KolosalError as exc:
            return self._writer.fail_in_place_of(last, exc)
        self._writer.disown()
        return [self._writer.told_again(last)]

    async def _is_kept(self) -> bool:
        """Keep it, also where the client leaves meanwhile; false where it could not be kept."""
        keeping = self._keep()
        return keeping is None or await asyncio.shield(keeping)

    def _keep(self) -> asyncio.Task[bool] | None:
        return None if self._keeper is None else self._keeper.keep(self.snapshot())
