"""PendingCalls: the calls of one turn that wait for their results."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from kolosal.errors import InvalidRequest
from kolosal.routes.common.tool_turn import ClientToolCall
from kolosal.routes.jsonrpc.history import HistoryMessage
from kolosal.routes.websocket.params import SessionToolResult


class PendingCalls:
    """Results may come in any order and in several messages; the turns they make are in the order of the calls."""

    def __init__(self, calls: Sequence[ClientToolCall]) -> None:
        self._calls = calls
        self._turns: dict[int, HistoryMessage] = {}
        self._complete = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether no call waits any more."""
        return self._complete.is_set()

    async def turns(self) -> tuple[HistoryMessage, ...]:
        """All results, once they are there."""
        await self._complete.wait()
        return tuple(self._turns[index] for index in range(len(self._calls)))

    def match(self, results: Sequence[SessionToolResult]) -> dict[int, HistoryMessage]:
        """The turns that results make, by the position of the call they answer; for `put`.

        Raises:
            InvalidRequest: one answers no call, or none that waits for its result.
        """
        found: dict[int, HistoryMessage] = {}
        for number, result in enumerate(results):
            index = self._answered_by(result, found)
            if index is None:
                given = result.tool_call_id or result.tool_name or ""
                raise InvalidRequest(
                    f"results.{number} must answer a call that waits for its result, not {given[:60]!r}",
                    param=f"results.{number}",
                )
            found[index] = result.to_turn(self._calls[index].tool)
        return found

    def put(self, turns: Mapping[int, HistoryMessage]) -> None:
        """Take results."""
        self._turns |= turns
        if len(self._turns) == len(self._calls):
            self._complete.set()

    def _answered_by(self, result: SessionToolResult, found: Mapping[int, HistoryMessage]) -> int | None:
        waiting = (
            (index, call)
            for index, call in enumerate(self._calls)
            if index not in self._turns and index not in found
        )
        if result.tool_call_id is not None:
            return next((index for index, call in waiting if call.id == result.tool_call_id), None)
        return next((index for index, call in waiting if call.tool == result.tool_name), None)
