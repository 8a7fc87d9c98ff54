"""What has expired is deleted: files, responses, sessions, and what is in vector stores."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from kolosal.errors import KolosalError
from kolosal.store.collections import FILES, SESSIONS, VECTOR_STORES
from kolosal.store.store import ObjectStore

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

log = logging.getLogger(__name__)

INTERVAL_S: Final = 60.0
"""How often it is looked for."""

_AT_ONCE: Final = 100
"""Objects of each kind that one transaction deletes."""


async def drop_expired(store: ObjectStore, owner: str | None, now: int | None = None) -> None:
    """Delete what an owner has that has expired.

    Raises:
        StoreUnavailable: the store cannot be used.
    """
    now = int(time.time()) if now is None else now
    while True:
        async with store.reading(
            owner
        ) as session:  # so that nobody needs the right to write where nothing has
            if not await session.has_expired(now):
                return
        async with store.writing(owner) as session:
            await _drop_some(session, now)


async def drop_everyones(store: ObjectStore, now: int) -> None:
    """The same for all owners, also those that never come back."""
    async with store.reading(None) as session:
        owners = await session.owners_of_expired(now)
    for owner in owners:
        await drop_expired(store, owner, now)


async def drop_expired_regularly(store: ObjectStore) -> None:
    """The same, again and again, while the database is open. Ends with its task."""
    while True:
        await asyncio.sleep(INTERVAL_S)
        if store.is_open:
            try:
                await drop_everyones(store, int(time.time()))
            except KolosalError as exc:
                log.warning("store.expiry_failed", extra={"reason": exc.message})


async def _drop_some(session: StoreSession, now: int) -> None:
    for collection in (FILES, SESSIONS):
        for object_id in await session.expired(collection, now, _AT_ONCE):
            await session.delete(collection, object_id)
    for vector_store_id in await session.expired(VECTOR_STORES, now, _AT_ONCE):
        await session.documents.empty(vector_store_id)
    await session.responses.drop_expired(now, _AT_ONCE)
