"""QuickConnection: aiosqlite's connection with as few trips to its thread as there can be. On a busy machine a trip takes longer than
most statements do, and SQLAlchemy would make four for each: to make a cursor, to execute, to fetch and to close.

Here a statement is one trip, and in a transaction what only writes waits for the next statement that reads, or for the end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import aiosqlite

Work: TypeAlias = Callable[[sqlite3.Cursor], Any]

_CHUNK = 64
"""Rows that aiosqlite's own cursors fetch at once; not used here."""


class QuickConnection(aiosqlite.Connection):
    """As SQLAlchemy's dialect uses connections. What a statement that waits fails with is raised by the one that it goes with."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._waiting: list[Work] = []
        self._defers = False

    def begin_to_write(self, *, defers: bool) -> None:
        """The next statement is the first of a transaction that writes. `defers`: nobody asks how many rows a statement changed."""
        # at once: who reads first cannot wait for another writer later
        self._waiting, self._defers = [lambda cursor: cursor.execute("BEGIN IMMEDIATE")], defers

    def cursor(self) -> QuickCursor:  # type: ignore[override] # no trip is needed to make one
        """A cursor that has no cursor of the database yet."""
        return QuickCursor(self)

    async def rollback(self) -> None:
        """Nothing where nothing was begun."""
        self._waiting, self._defers = [], False
        if self.in_transaction:
            await super().rollback()

    async def commit(self) -> None:
        """Nothing where nothing was begun."""
        self._defers = False
        if self._waiting or self.in_transaction:
            await self.carry_out(lambda cursor: cursor.connection.commit())

    def can_wait(self, statement: str) -> bool:
        """Whether a statement gives nothing that its caller looks at."""
        return (
            self._defers
            and statement.startswith(("INSERT", "UPDATE", "DELETE"))
            and "RETURNING" not in statement
        )

    def put_off(self, work: Work) -> None:
        """Have this wait for the next trip."""
        self._waiting.append(work)

    async def carry_out(self, work: Work) -> Any:
        """The result of this in the connection's thread, after what waits."""
        steps, self._waiting = [*self._waiting, work], []
        return await self._execute(_in_turn, self._conn, steps)  # type: ignore[no-untyped-call]


def _in_turn(connection: sqlite3.Connection, steps: Sequence[Work]) -> Any:
    cursor = connection.cursor()
    try:
        results = [step(cursor) for step in steps]
    finally:
        cursor.close()
    return results[-1]


class QuickCursor:
    """One statement at a time, and its rows."""

    description: Any = None
    rowcount = -1
    lastrowid: int | None = None
    arraysize = 1

    def __init__(self, connection: QuickConnection) -> None:
        self._connection = connection
        self._rows: Sequence[Any] = ()

    async def __aenter__(self) -> QuickCursor:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """Execute a statement and fetch what it gives."""
        await self._run(statement, lambda cursor: cursor.execute(statement, parameters))

    async def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Execute a statement for each of several sets of parameters."""
        await self._run(statement, lambda cursor: cursor.executemany(statement, parameters))

    async def fetchall(self) -> Sequence[Any]:
        """The rows that were fetched."""
        return self._rows

    async def close(self) -> None:
        """Forget them."""
        self._rows = ()

    async def _run(self, statement: str, work: Work) -> None:
        if self._connection.can_wait(statement):
            self._connection.put_off(work)
        else:
            await self._connection.carry_out(partial(self._fetch, work))

    def _fetch(self, work: Work, cursor: sqlite3.Cursor) -> None:
        work(cursor)
        self._rows = cursor.fetchall()
        self.description, self.rowcount = cursor.description, cursor.rowcount
        self.lastrowid = cursor.lastrowid


def quick_connection(path: str, **options: Any) -> QuickConnection:
    """A connection that is to be awaited. The process does not wait for its thread."""
    connection = QuickConnection(lambda: sqlite3.connect(path, **options), _CHUNK)
    connection._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy does with those it makes
    return connection
