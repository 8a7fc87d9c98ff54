"""ObjectStore: what the daemon keeps for its clients. Opens its database when it is first used; an idle daemon pays nothing for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kolosal.config.store import StoreSettings
from kolosal.errors import StoreUnavailable
from kolosal.files.in_thread import in_thread

if TYPE_CHECKING:  # heavy
    from kolosal.store.database import Database
    from kolosal.store.session import StoreSession

FILE_NAME = "kolosal.db"

_IMPORT_LIMIT_S = 60.0


class ObjectStore:
    """The only maker of sessions.

    A session is a transaction in the name of an API key's id, or of None where no keys are used.
    """

    def __init__(self, settings: StoreSettings, folder: Path | None = None) -> None:
        """`folder` is where the database is unless the settings say otherwise."""
        self._settings = settings
        self._folder = folder
        self._database: Database | None = None
        self._opening: asyncio.Task[Database] | None = None
        self.on_opened: Callable[[], None] = lambda: None
        """Called whenever the database was opened."""

    @property
    def is_open(self) -> bool:
        """Whether the database is open."""
        return self._database is not None

    async def open(self) -> None:
        """Open the database now. Idempotent.

        Raises:
            StoreUnavailable: it cannot be used.
        """
        if self._database is None:
            await self._opened()

    @contextlib.asynccontextmanager
    async def reading(self, owner: str | None) -> AsyncIterator[StoreSession]:
        """A session that changes nothing.

        Raises:
            StoreUnavailable: the database cannot be used.
        """
        database = self._database or await self._opened()
        async with database.reading(owner or "") as session:
            yield session

    @contextlib.asynccontextmanager
    async def writing(self, owner: str | None) -> AsyncIterator[StoreSession]:
        """A session all of whose changes are kept when this ends, or none where it raises.

        Raises:
            StoreUnavailable: the database cannot be used.
            StorageFull: there is no room on its disk.
            InvalidRequest: the owner would have more than it may.
        """
        database = self._database or await self._opened()
        async with database.writing(owner or "") as session:
            yield session

    async def close(self) -> None:
        """Give the database back. Idempotent; it would be opened again if it were used."""
        if self._opening is not None:
            await asyncio.wait((self._opening,))
        database, self._database = self._database, None
        if database is not None:
            await database.close()

    async def _opened(self) -> Database:
        """All who come while it is being opened share what comes of it, so that nobody waits for the failures of others one by one."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="open store")
            self._opening.add_done_callback(self._no_longer_opening)
        return await asyncio.shield(self._opening)

    async def _open(self) -> Database:
        url = database_url(self._settings, self._folder)
        database = await in_thread(_database_type, limit_s=_IMPORT_LIMIT_S)
        self._database = await database.open(url, self._settings.max_bytes_per_key)
        self.on_opened()
        return self._database

    def _no_longer_opening(self, task: asyncio.Task[Database]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # whoever waited for it has it


def database_url(settings: StoreSettings, folder: Path | None) -> str:
    """Where the database is.

    Raises:
        StoreUnavailable: nobody says where it is to be.
    """
    if settings.url is not None:
        return settings.url.get_secret_value()
    if folder is None:
        raise StoreUnavailable(
            "store.url or server.state_dir is needed, because the environment does not tell where your home is"
        )
    return f"sqlite:///{folder / FILE_NAME}"


def _database_type() -> type[Database]:
    from kolosal.store.database import Database  # noqa: PLC0415 - in a thread, when it is needed

    return Database
