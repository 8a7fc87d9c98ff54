"""Bringing a database to the tables of this version.

All migrations that are missing run in one transaction, which only one process at a time can have: one that is killed leaves the
database as it was, and the next start does it again. Alembic is imported only where something is missing.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

HEAD = "0005"
"""The last migration, which a test compares with the folder."""

_LOCK_ID = 0x6B6F6C6F73616C
"""Of PostgreSQL's advisory lock for migrations."""


class NewerDatabase(Exception):
    """The database was made by a later version, or by something else."""


def version_of(connection: Connection) -> str | None:
    """The last migration that a database had; None: it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def upgrade(connection: Connection) -> None:
    """Run what is missing, in the transaction of this connection. On SQLite that has the right to write already.

    Raises:
        NewerDatabase: it has a migration that is not known here.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
    version = version_of(connection)
    if version == HEAD:  # another process was faster
        return
    from alembic import command  # noqa: PLC0415 - needed once for each version
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if version is not None and version not in known:
        raise NewerDatabase(
            f"its tables are of version {version}, and those of this program of version {HEAD}"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
