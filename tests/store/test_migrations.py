"""Migrations end at the tables that the code knows, run once, and leave a newer database alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

import kolosal.store
from kolosal.errors import StoreUnavailable
from kolosal.store.collections import VECTOR_STORES
from kolosal.store.migrate import HEAD
from kolosal.store.store import ObjectStore
from kolosal.store.tables import METADATA
from tests.settings import settings_of

Stores = Callable[..., ObjectStore]


def _differences(connection: Connection) -> Any:
    return compare_metadata(MigrationContext.configure(connection), METADATA)


def _alembic() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(kolosal.store.__file__).with_name("migrations")))
    return config


async def test_the_tables_are_those_that_the_code_knows(stores: Stores) -> None:
    async with stores().reading(None) as session:
        assert await session.connection.run_sync(_differences) == []


def test_the_last_migration_is_the_one_that_is_looked_for() -> None:
    assert ScriptDirectory.from_config(_alembic()).get_heads() == [HEAD]


async def test_a_newer_database_is_left_alone(stores: Stores) -> None:
    newer = stores()
    async with newer.writing(None) as session:
        await session.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await newer.close()

    with pytest.raises(StoreUnavailable, match="its tables are of version 9999"):
        async with stores().reading(None):
            pass


async def test_vector_stores_of_older_databases_expire_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kolosal.db'}"
    config = _alembic()
    engine = create_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        rule = {"anchor": "last_active_at", "days": 2}
        for seq, expires_after in enumerate((rule, None)):
            data = {"id": f"vs_{seq}", "last_active_at": 1000, "expires_after": expires_after}
            row = {"seq": seq, "id": f"vs_{seq}", "data": json.dumps(data)}
            insert = (
                "INSERT INTO vector_stores (seq, id, owner, size, data) VALUES (:seq, :id, 'key_1', 1, :data)"
            )
            connection.execute(text(insert), row)
    engine.dispose()

    store = ObjectStore(settings_of(store_url=url).store)
    async with store.reading("key_1") as session:
        assert await session.expired(VECTOR_STORES, 1000 + 2 * 86_400 - 1, 10) == []
        assert await session.expired(VECTOR_STORES, 1000 + 2 * 86_400, 10) == ["vs_0"]
    await store.close()
