"""ActiveResponse: one response being generated, sent and kept, and stopped when somebody cancels it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from kolosal.errors import KolosalError
from kolosal.http.sse import event_frame
from kolosal.routes.common.generation import Generation
from kolosal.routes.openai.responses.encode import ResponseObject
from kolosal.routes.openai.responses.events import ResponseEvent, ResponseWriter
from kolosal.routes.openai.responses.items import Item
from kolosal.routes.openai.responses.store import StoredResponse


class ActiveResponse:
    """A response whose turn has started. Either `whole` or `frames`, then `cancel`, which is idempotent."""

    def __init__(
        self,
        generation: Generation,
        writer: ResponseWriter,
        keep: Callable[[StoredResponse], None],
        earlier: tuple[Item, ...],
        input_items: tuple[Item, ...],
    ) -> None:
        """`keep` is called with what there is of it, once, when it has ended."""
        self._generation = generation
        self._writer = writer
        self._keep = keep
        self._earlier = earlier
        self._input_items = input_items
        self._last: list[ResponseEvent] = []

    def snapshot(self) -> StoredResponse:
        """What there is of it."""
        return StoredResponse(self._writer.response(), self._earlier, self._input_items, self._writer.output)

    def cancel(self) -> None:
        """Stop, and keep what there is as cancelled, unless it has ended; its own connection sends the last events."""
        if not self._writer.ended:
            self._last = self._writer.cancel()
            self._keep(self.snapshot())
        self._generation.abort()

    async def whole(self) -> ResponseObject:
        """The whole response.

        Raises:
            KolosalError: the generation failed; nothing is kept.
            ClientDisconnect: the client left; nothing is kept, and nothing runs on.
        """
        await self._generation.finish(self._write())
        self._keep(self.snapshot())
        return self._writer.response()

    async def _write(self) -> None:
        async for _, event in self._generation.events():
            self._writer.push(event)

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The frames of its stream. While they come, the response can be read and cancelled.

        Raises:
            KolosalError: the generation failed; `encode_error` gives the last frames then.
        """
        for first in self._writer.begin():
            yield event_frame(first)
        async for _, event in self._generation.events():
            if self._writer.ended:  # cancelled, and this was generated before
                continue
            pushed = self._writer.push(event)
            if self._writer.ended:  # before the last frame is sent: who has it may follow up at once
                self._keep(self.snapshot())
            for each in pushed:
                yield event_frame(each)
        for last in self._last:
            yield event_frame(last)

    def encode_error(self, error: KolosalError) -> bytes:
        """The last frames of a stream that failed."""
        if not self._writer.ended:
            self._last = self._writer.fail(error)
            self._keep(self.snapshot())
        return b"".join(event_frame(event) for event in self._last)
