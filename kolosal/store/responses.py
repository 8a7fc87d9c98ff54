"""ResponseRows: what is asked of the tables of responses and their conversations. As heavy as `StoreSession`, which has one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, text, update

from kolosal.store.collections import can_be_id
from kolosal.store.tables import MAX_ITEM_ID_CHARS, RESPONSE_ITEMS, RESPONSE_TURNS, RESPONSES

if TYPE_CHECKING:
    from kolosal.store.session import StoreSession

_ROW_BYTES = 256
"""What a response or a turn counts besides its content."""

_ITEM_BYTES = 128
"""What an item counts besides its turn's JSON."""

_AT_ONCE = 500
"""Values that one statement looks for at most."""

_CONVERSATION = text(
    "WITH RECURSIVE chain (seq, previous) AS ("
    " SELECT t.seq, t.previous FROM responses r JOIN response_turns t ON t.seq = r.seq"
    " WHERE r.id = :id AND r.owner = :owner AND r.expires_at > :now"
    " UNION ALL SELECT t.seq, t.previous FROM response_turns t JOIN chain ON t.seq = chain.previous)"
    " SELECT t.seq, t.input, t.output FROM chain JOIN response_turns t ON t.seq = chain.seq ORDER BY t.seq"
)

_DROP_TURNS = text(
    "DELETE FROM response_turns WHERE seq IN ("
    " WITH RECURSIVE unused (seq, previous) AS ("
    " SELECT t.seq, t.previous FROM response_turns t WHERE t.seq = :seq"
    " AND NOT EXISTS (SELECT 1 FROM response_turns n WHERE n.previous = t.seq)"
    " UNION ALL SELECT t.seq, t.previous FROM response_turns t JOIN unused ON t.seq = unused.previous"
    " WHERE NOT EXISTS (SELECT 1 FROM responses r WHERE r.seq = t.seq)"
    " AND NOT EXISTS (SELECT 1 FROM response_turns n WHERE n.previous = t.seq AND n.seq <> unused.seq))"
    " SELECT seq FROM unused) RETURNING size"
)
"""A turn that no response has any more, and those before it that only it needed."""

_INSERT_TURN, _INSERT_RESPONSE, _INSERT_ITEMS = map(insert, (RESPONSE_TURNS, RESPONSES, RESPONSE_ITEMS))
_NOTE_USE = update(RESPONSES).where(RESPONSES.c.seq == bindparam("seq_is")).values(used=bindparam("used_now"))
_LOCK_TURN = select(RESPONSE_TURNS.c.seq).where(RESPONSE_TURNS.c.seq == bindparam("seq_is")).with_for_update()
_USAGE = text(
    "SELECT (SELECT count(*) FROM responses WHERE owner = :owner_is) AS n_responses,"
    " (SELECT coalesce(sum(size), 0) FROM responses WHERE owner = :owner_is) AS responses,"
    " (SELECT coalesce(sum(size), 0) FROM response_turns WHERE owner = :owner_is) AS turns,"
    " coalesce((SELECT bytes FROM usage WHERE owner = :owner_is), 0) AS used"
)


@dataclass(frozen=True, slots=True)
class ResponseTurn:
    """What a request added to a conversation, and what came of it; all of it as JSON."""

    response_id: str
    response: bytes
    """Without its output."""
    input: bytes
    output: bytes
    item_ids: Sequence[str]
    expires_at: int

    @property
    def own_size(self) -> int:
        """What the turn counts, without its response."""
        return len(self.input) + len(self.output) + _ROW_BYTES + _ITEM_BYTES * len(self.item_ids)

    @property
    def response_size(self) -> int:
        """What the response counts."""
        return len(self.response) + _ROW_BYTES

    @property
    def size(self) -> int:
        """What both count."""
        return self.own_size + self.response_size


class ResponseRows:
    """Rows of the owner of a session."""

    def __init__(self, session: StoreSession) -> None:
        self._session = session

    async def find(self, response_id: str, now: int) -> Row[*tuple[Any, ...]] | None:
        """`data`, `input` and `output` of a response; None where there is none."""
        if not can_be_id(response_id):
            return None
        query = (
            select(RESPONSES.c.data, RESPONSE_TURNS.c.input, RESPONSE_TURNS.c.output)
            .join(RESPONSE_TURNS, RESPONSE_TURNS.c.seq == RESPONSES.c.seq)
            .where(
                RESPONSES.c.id == response_id,
                RESPONSES.c.owner == self._session.owner,
                RESPONSES.c.expires_at > now,
            )
        )
        return (await self._session.connection.execute(query)).first()

    async def conversation(self, response_id: str, now: int) -> Sequence[Row[Any]]:
        """`seq`, `input` and `output` of a response's turn and of all before it, the first one first; none where there is no such
        response."""
        if not can_be_id(response_id):
            return ()
        values = {"id": response_id, "owner": self._session.owner, "now": now}
        return (await self._session.connection.execute(_CONVERSATION, values)).all()

    async def turns_with(self, item_ids: Iterable[str], now: int) -> list[int]:
        """The `seq` of the turns that first had these items, and whose responses are there."""
        ids = [each for each in dict.fromkeys(item_ids) if _can_be_kept(each)]
        first: dict[str, int] = {}
        for start in range(0, len(ids), _AT_ONCE):
            query = (
                select(RESPONSE_ITEMS.c.id, func.min(RESPONSE_ITEMS.c.turn).label("turn"))
                .join(RESPONSES, RESPONSES.c.seq == RESPONSE_ITEMS.c.turn)
                .where(
                    RESPONSE_ITEMS.c.owner == self._session.owner,
                    RESPONSE_ITEMS.c.id.in_(ids[start : start + _AT_ONCE]),
                    RESPONSES.c.expires_at > now,
                )
                .group_by(RESPONSE_ITEMS.c.id)
            )
            first |= {row.id: row.turn for row in await self._session.connection.execute(query)}
        return sorted(set(first.values()))

    async def turn(self, seq: int) -> Row[*tuple[Any, ...]] | None:
        """`input` and `output` of a turn."""
        query = select(RESPONSE_TURNS.c.input, RESPONSE_TURNS.c.output).where(
            RESPONSE_TURNS.c.seq == seq, RESPONSE_TURNS.c.owner == self._session.owner
        )
        return (await self._session.connection.execute(query)).first()

    async def keep(self, turn: ResponseTurn, previous: int | None, earlier: Callable[[], bytes]) -> int:
        """Keep a response, whose turn follows this one; the bytes that this takes. Where that turn is gone meanwhile, `earlier` gives
        what was before as a JSON array."""
        added = turn.size
        if previous is not None and not await self._follow(previous):
            before = earlier()
            added += len(before) + _ROW_BYTES
            previous = await self._insert_turn(before, b"[]", None, len(before) + _ROW_BYTES)
        seq = await self._insert_turn(turn.input, turn.output, previous, turn.own_size)
        row = {
            "seq": seq,
            "id": turn.response_id,
            "owner": self._session.owner,
            "expires_at": turn.expires_at,
            "used": seq,
            "size": turn.response_size,
            "data": turn.response.decode(),
        }
        await self._session.connection.execute(_INSERT_RESPONSE, row)
        ids = [each for each in dict.fromkeys(turn.item_ids) if _can_be_kept(each)]
        if ids:
            rows = [{"turn": seq, "id": each, "owner": self._session.owner} for each in ids]
            await self._session.connection.execute(_INSERT_ITEMS, rows)
        self._session.charge(added)
        return added

    async def usage(self) -> tuple[int, int, int]:
        """How many responses there are, what they take with their conversations, and what all that is the owner's takes."""
        row = (await self._session.connection.execute(_USAGE, {"owner_is": self._session.owner})).one()
        return int(row.n_responses), int(row.responses) + int(row.turns), int(row.used)

    async def forget(self, n_responses: int, n_bytes: int) -> None:
        """Forget at least so many responses, and so many bytes of them and of their conversations: those that were used least recently."""
        while n_responses > 0 or n_bytes > 0:
            query = (
                select(RESPONSES.c.seq)
                .where(RESPONSES.c.owner == self._session.owner)
                .order_by(RESPONSES.c.used)
                .limit(_AT_ONCE)
            )
            oldest = [*(await self._session.connection.scalars(query))]
            if not oldest:
                return
            for seq in oldest:
                if n_responses <= 0 and n_bytes <= 0:
                    return
                n_bytes -= await self._drop(seq)
                n_responses -= 1

    async def delete(self, response_id: str, now: int) -> bool:
        """Forget a response; whether there was one. Its part of conversations that follow it stays."""
        if not can_be_id(response_id):
            return False
        query = select(RESPONSES.c.seq).where(
            RESPONSES.c.id == response_id,
            RESPONSES.c.owner == self._session.owner,
            RESPONSES.c.expires_at > now,
        )
        seq = await self._session.connection.scalar(query)
        if seq is not None:
            await self._drop(seq)
        return seq is not None

    async def drop_expired(self, now: int, limit: int) -> int:
        """Forget this many responses at most whose time is over; how many there were."""
        query = (
            select(RESPONSES.c.seq)
            .where(RESPONSES.c.expires_at <= now, RESPONSES.c.owner == self._session.owner)
            .limit(limit)
        )
        expired = [*(await self._session.connection.scalars(query))]
        for seq in expired:
            await self._drop(seq)
        return len(expired)

    # --- inside ---

    async def _insert_turn(self, given: bytes, output: bytes, previous: int | None, size: int) -> int:
        row = {
            "seq": (seq := self._session.next_seq()),
            "owner": self._session.owner,
            "previous": previous,
            "size": size,
            "input": given.decode(),
            "output": output.decode(),
        }
        await self._session.connection.execute(_INSERT_TURN, row)
        return seq

    async def _follow(self, seq: int) -> bool:
        """Note that a turn is followed up; whether it is there."""
        values = {"seq_is": seq, "used_now": self._session.next_seq()}
        await self._session.connection.execute(_NOTE_USE, values)
        return await self._session.connection.scalar(_LOCK_TURN, {"seq_is": seq}) is not None

    async def _drop(self, seq: int) -> int:
        """The bytes that are given back."""
        execute = self._session.connection.execute
        own = await execute(delete(RESPONSES).where(RESPONSES.c.seq == seq).returning(RESPONSES.c.size))
        turns = await execute(_DROP_TURNS, {"seq": seq})
        freed = sum(int(size) for (size,) in itertools.chain(own.all(), turns.all()))
        self._session.charge(-freed)
        return freed


def _can_be_kept(item_id: str) -> bool:
    """Whether an item can be looked for by its id. PostgreSQL has no texts with a zero."""
    return len(item_id) <= MAX_ITEM_ID_CHARS and "\x00" not in item_id
