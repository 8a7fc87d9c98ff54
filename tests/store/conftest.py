"""Stores over an empty database: SQLite, and PostgreSQL where it is installed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from kolosal.store.store import ObjectStore
from tests.settings import settings_of
from tests.store.postgres import emptied, postgres_url

__all__ = ["postgres_url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'kolosal.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return emptied(url)


@pytest.fixture
async def stores(store_url: str) -> AsyncIterator[Callable[..., ObjectStore]]:
    """Makes a store over the same database, as one daemon after the other has it; all are closed in the end."""
    made: list[ObjectStore] = []

    def make(**settings: object) -> ObjectStore:
        made.append(ObjectStore(settings_of(store_url=store_url, **settings).store))
        return made[-1]

    yield make
    for each in made:
        await each.close()
