"""KeptSessions: sessions in the store, with what was said in them, where `sessions.keep_history` asks for it.

What is kept is what one `generate` added, once its last turn is complete: an exchange. Bounded for each session by exchanges and bytes, the
oldest goes first; for each API key by sessions, and by `store.max_bytes_per_key` with all else.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import orjson
from pydantic import TypeAdapter

from kolosal.config.sessions import SessionSettings
from kolosal.http.decode import decode_body
from kolosal.http.large import in_thread_if_large
from kolosal.routes.jsonrpc.history import HistoryMessage
from kolosal.routes.jsonrpc.tools import to_tools
from kolosal.routes.websocket.create_session import SessionBody
from kolosal.routes.websocket.sessions import Session
from kolosal.store.collections import EXCHANGES, SESSIONS
from kolosal.store.pages import StoredRow
from kolosal.store.store import ObjectStore

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

MAX_EXCHANGES: Final = 1000
"""Of one session."""

MAX_HISTORY_BYTES: Final = 4 * 1024 * 1024
"""What the exchanges of one session take."""

_FORGOTTEN_AT_ONCE: Final = 10
"""Sessions that a new one takes the place of at most."""

EVERYTHING: Final = 2**62
"""Later than all that is kept."""


@cache
def _turns() -> TypeAdapter[tuple[HistoryMessage, ...]]:
    """Made when first used, as it takes milliseconds."""
    return TypeAdapter(tuple[HistoryMessage, ...])


@dataclass(frozen=True, slots=True)
class Exchange:
    """What one `generate` added to a conversation, from the user's message to the model's last word."""

    seq: int
    """Its place in the order in which they were kept."""
    turns: tuple[HistoryMessage, ...]


@dataclass(slots=True)
class Recalled:
    """What was said in a session, as far as there is room for it."""

    exchanges: list[Exchange]
    forget_until: int | None = None
    """The last exchange that is to be forgotten."""

    @property
    def turns(self) -> tuple[HistoryMessage, ...]:
        """All of it."""
        return tuple(turn for exchange in self.exchanges for turn in exchange.turns)

    def forget_half(self) -> None:
        """The older half does not fit any more."""
        n_forgotten = (len(self.exchanges) + 1) // 2
        self.forget_until = self.exchanges[n_forgotten - 1].seq
        self.exchanges = self.exchanges[n_forgotten:]


class KeptSessions:
    """The sessions of all clients."""

    def __init__(self, store: ObjectStore, limits: SessionSettings) -> None:
        self._store = store
        self._limits = limits

    @property
    def is_on(self) -> bool:
        """Whether sessions are kept."""
        return self._limits.keep_history

    async def add(self, session: Session) -> None:
        """Keep a new session, and forget its owner's oldest ones where these are too many.

        Raises:
            KolosalError: it cannot be kept.
        """
        async with self._store.writing(session.owner) as rows:
            await self._insert(rows, session)
            for session_id in await rows.beyond(SESSIONS, self._limits.max_count, _FORGOTTEN_AT_ONCE):
                await rows.delete(SESSIONS, session_id)

    async def find(self, session_id: str, owner: str | None) -> Session | None:
        """A session that this daemon has not in memory; None where there is none.

        Raises:
            StoreUnavailable: it cannot be looked for.
        """
        async with self._store.reading(owner) as rows:
            found = await rows.find(SESSIONS, session_id)
        if found is None or found["expires_at"] <= time.time():
            return None
        written = orjson.dumps(found["body"])
        body = decode_body(written, SessionBody)
        return Session(session_id, owner, to_tools(body.tools or ()), body.model, len(written))

    async def recall(self, session: Session) -> Recalled:
        """What was said in a session.

        Raises:
            StoreUnavailable: it cannot be read.
        """
        async with self._store.reading(session.owner) as rows:
            found = await rows.newest(EXCHANGES, MAX_EXCHANGES, session_id=session.id)
        size = sum(row.data["bytes"] for row in found)
        return Recalled(await in_thread_if_large(size, partial(_exchanges, found)))

    async def remember(
        self, session: Session, turns: Sequence[HistoryMessage], forget_until: int | None
    ) -> None:
        """Keep what was said now; of what was said before all up to this exchange is forgotten.

        Raises:
            KolosalError: it cannot be kept.
        """
        size = sum(len(turn.content or "") for turn in turns)
        said = await in_thread_if_large(size, partial(_turns().dump_python, tuple(turns), mode="json"))
        async with self._store.writing(session.owner) as rows:
            found, expires_at = await rows.find(SESSIONS, session.id, lock=True), self._expires_at()
            if found is None:  # its time was over while its client was connected and silent
                await self._insert(rows, session)
            else:
                await rows.replace(SESSIONS, {**found, "expires_at": expires_at}, expires_at=expires_at)
            if forget_until is not None:
                await rows.delete_up_to(EXCHANGES, forget_until, session_id=session.id)
            exchange = {"id": EXCHANGES.new_id(), "bytes": size, "turns": said}
            await rows.insert(EXCHANGES, exchange, session_id=session.id)
            await rows.keep_newest(EXCHANGES, MAX_EXCHANGES, MAX_HISTORY_BYTES, session_id=session.id)

    async def _insert(self, rows: StoreSession, session: Session) -> None:
        expires_at = self._expires_at()
        value = {"id": session.id, "expires_at": expires_at, "body": _body_of(session)}
        await rows.insert(SESSIONS, value, expires_at=expires_at)

    def _expires_at(self) -> int:
        return int(time.time() + self._limits.ttl_s)


def _exchanges(rows: Sequence[StoredRow]) -> list[Exchange]:
    """The oldest first."""
    return [
        Exchange(row.seq, _turns().validate_json(orjson.dumps(row.data["turns"]))) for row in reversed(rows)
    ]


def _body_of(session: Session) -> dict[str, Any]:
    """What would make the same session again."""
    tools = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
        for tool in session.tools
    ]
    return {"tools": tools, "model": session.model}
