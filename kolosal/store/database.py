"""Database: the engine of SQLAlchemy, its connections and transactions, and what their failures mean to a client.

Heavy to import: `ObjectStore` does so when it is first used.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from kolosal.errors import StorageFull, StoreUnavailable
from kolosal.files.atomic import FileLock, make_folder
from kolosal.files.in_thread import in_thread
from kolosal.store.migrate import HEAD, NewerDatabase, upgrade, version_of
from kolosal.store.session import StoreSession
from kolosal.store.sqlite_connection import QuickConnection, quick_connection
from kolosal.store.tables import METADATA

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 5.0
"""How long a transaction waits for another process that writes to the same SQLite database, e.g. `kolosal store`."""

TRANSACTION_LIMIT_S = 30.0
"""How long one may take. A database on a mount whose server is gone answers never."""

CONNECT_LIMIT_S = 10.0
"""How long a server may take to let us in."""

_CONNECTIONS = 8
_WRITES = "kolosal_writes"
_SESSION, _MIGRATION = "session", "migration"
_ONE_DAEMON = 0x6B6F6C6F73616D
"""Of PostgreSQL's advisory lock that says which daemon has the database."""

_DISK_FULL_SQLSTATE = "53100"
_TOO_MANY_CONNECTIONS_SQLSTATE = "53300"

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",  # what was acknowledged outlives the process; not a loss of power in the last moments
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}",
    f"PRAGMA journal_size_limit = {64 * 1024 * 1024}",
)


class Database:
    """An open database, which no other daemon has. `close()` is idempotent."""

    def __init__(self, engine: AsyncEngine, file_lock: FileLock | None, max_bytes: int) -> None:
        self._engine = engine
        self._file_lock = file_lock
        self._lock_connection: AsyncConnection | None = None
        """Has PostgreSQL's lock for as long as it is open."""
        self._max_bytes = max_bytes
        self._writer = asyncio.Lock() if engine.dialect.name == "sqlite" else None
        """SQLite has one writer at a time: the next one waits here, and not in a thread."""
        self._last_seq = 0

    @classmethod
    async def open(cls, url: str, max_bytes: int) -> Database:
        """Take the database, and bring its tables to this version.

        Raises:
            StoreUnavailable: it cannot be reached or read, or another daemon has it.
            StorageFull: there is no room on its disk.
        """
        with failures():
            parsed = _with_driver(make_url(url))
            is_sqlite = parsed.get_backend_name() == "sqlite"
            lock = await in_thread(_take_file, Path(str(parsed.database))) if is_sqlite else None
            database = cls(_engine(parsed), lock, max_bytes)
            try:
                await database._prepare()
            except BaseException:
                await database.close()
                raise
        log.info("store.opened", extra={"backend": parsed.get_backend_name()})
        return database

    async def close(self) -> None:
        """Give the database back. What is under way fails."""
        if self._lock_connection is not None:
            with contextlib.suppress(SQLAlchemyError, OSError):
                await self._lock_connection.close()
        await self._engine.dispose()
        if self._file_lock is not None:
            self._file_lock.close()

    @contextlib.asynccontextmanager
    async def reading(self, owner: str) -> AsyncIterator[StoreSession]:
        """A session that changes nothing."""
        with failures():
            async with asyncio.timeout(TRANSACTION_LIMIT_S), self._engine.connect() as connection:
                yield self._session(connection, owner)

    @contextlib.asynccontextmanager
    async def writing(self, owner: str) -> AsyncIterator[StoreSession]:
        """A session all of whose changes are kept when this ends, or none where it raises."""
        with failures():
            async with (
                asyncio.timeout(TRANSACTION_LIMIT_S),
                self._writer or contextlib.nullcontext(),
                self._engine.execution_options(**{_WRITES: _SESSION}).begin() as connection,
            ):
                session = self._session(connection, owner)
                yield session
                await session.settle()

    def _session(self, connection: AsyncConnection, owner: str) -> StoreSession:
        return StoreSession(connection, owner, self._next_seq, self._max_bytes)

    def _next_seq(self) -> int:
        """Later than all before, also where the clock was put back."""
        self._last_seq = max(self._last_seq + 1, time.time_ns() // 1000)
        return self._last_seq

    async def _prepare(self) -> None:
        if self._file_lock is None:
            self._lock_connection = await self._engine.connect()
            await _lock_out_others(self._lock_connection)
        async with self._engine.connect() as connection:
            version = await connection.run_sync(version_of)
        if version != HEAD:
            await in_thread(_import_alembic, limit_s=60.0)
            async with self._engine.execution_options(**{_WRITES: _MIGRATION}).begin() as connection:
                await connection.run_sync(upgrade)
            log.info("store.migrated", extra={"from": version, "to": HEAD})
        async with self._engine.connect() as connection:
            for table in METADATA.tables.values():
                if "seq" in table.c:
                    last = await connection.scalar(text(f"SELECT max(seq) FROM {table.name}"))  # noqa: S608 - our own names
                    self._last_seq = max(self._last_seq, last or 0)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Whatever the database fails with, as an error for clients; the cause goes to the log.

    Raises:
        StorageFull: there is no room on its disk.
        StoreUnavailable: all else.
    """
    try:
        yield
    except (SQLAlchemyError, OSError, TimeoutError, NewerDatabase, ImportError) as exc:
        log.error("store.failed", extra={"reason": f"{type(exc).__name__}: {exc}"[:500]})  # noqa: TRY400 - it is raised on
        if _is_full(exc):
            raise StorageFull(
                "There is no room left on the disk of the store: nothing more can be kept"
            ) from exc
        raise StoreUnavailable(f"The store cannot be used now: {_reason(exc)}") from exc


def _is_full(error: BaseException) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(cause, "sqlstate", None) == _DISK_FULL_SQLSTATE


def _reason(error: BaseException) -> str:
    """In words that give nothing away: neither paths nor addresses."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if isinstance(cause, BlockingIOError):
        return "another daemon has its database; store.url gives this one its own"
    if isinstance(cause, NewerDatabase):
        return str(cause)
    if isinstance(cause, ImportError):
        return "PostgreSQL needs the extra 'postgresql': pip install 'kolosal[postgresql]'"
    if isinstance(cause, TimeoutError):
        return "its database does not answer"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "its database is damaged; `kolosal store check` tells more"
    if code == sqlite3.SQLITE_BUSY:
        return "another process is writing to its database"
    if code == sqlite3.SQLITE_READONLY:
        return "its database cannot be written"
    return "its database cannot be reached or read; the log says why"


def _with_driver(url: URL) -> URL:
    """With the driver for an event loop: `postgres://` is what some platforms write."""
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database)).expanduser().absolute()
        return url.set(drivername="sqlite+aiosqlite", database=str(path))
    return url.set(drivername="postgresql+asyncpg")


def _take_file(path: Path) -> FileLock:
    """The right to a file that SQLite may open. Only its owner can read one that is made here. Blocks."""
    lock = FileLock(path)
    lock.take()
    try:
        make_folder(path.parent)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))
    except BaseException:
        lock.close()
        raise
    return lock


async def _lock_out_others(connection: AsyncConnection) -> None:
    async with asyncio.timeout(TRANSACTION_LIMIT_S):
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        if not await connection.scalar(text("SELECT pg_try_advisory_lock(:id)"), {"id": _ONE_DAEMON}):
            raise BlockingIOError(errno.EAGAIN, "another daemon has the database")


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() != "sqlite":
        return create_async_engine(
            url,
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=TRANSACTION_LIMIT_S,
            pool_pre_ping=True,
            connect_args={"timeout": CONNECT_LIMIT_S},
        )
    engine = create_async_engine(
        url,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=TRANSACTION_LIMIT_S,
        pool_reset_on_return=None,  # each transaction ends before its connection goes back
        connect_args={
            "async_creator_fn": quick_connection,
            "isolation_level": None,  # transactions begin where this module says
            "timeout": BUSY_TIMEOUT_S,
        },
    )
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin(connection: Connection) -> None:
    """What reads has no transaction: each statement sees the database as it is."""
    writes = connection.get_execution_options().get(_WRITES)
    if writes is not None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, QuickConnection)  # noqa: S101 - as `_engine` has it
        driver.begin_to_write(defers=writes == _SESSION)


def _import_alembic() -> None:
    """In a thread, so that the event loop does not wait for it."""
    import alembic.command  # noqa: F401, PLC0415
