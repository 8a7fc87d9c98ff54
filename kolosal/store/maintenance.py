"""Copies and checks of a store, by another process than the daemon that has it. Blocks; for SQLite only, as PostgreSQL has tools of its own."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL, create_engine, func, make_url, select, text

from kolosal.files.atomic import replace_file
from kolosal.store.migrate import HEAD, version_of
from kolosal.store.tables import METADATA

_MAX_FINDINGS = 20


def sqlite_path(url: str) -> Path | None:
    """The file of a database; None where it is none."""
    parsed = make_url(url)
    return Path(str(parsed.database)).expanduser() if parsed.get_backend_name() == "sqlite" else None


def back_up(source: Path, target: Path) -> int:
    """Copy a database while a daemon works with it, as it is at one moment, and check the copy; its bytes.

    Raises:
        OSError, sqlite3.Error: it cannot be done; what was at the target is untouched.
    """
    new = target.with_name(f"{target.name}.new")
    new.unlink(missing_ok=True)
    try:
        with _opened(source) as database, contextlib.closing(sqlite3.connect(new)) as copy:
            new.chmod(0o600)
            database.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file
            if findings := _integrity(copy):
                raise sqlite3.DatabaseError(f"the copy is damaged: {findings[0]}")
        replace_file(new, target)
    finally:
        new.unlink(missing_ok=True)
    return target.stat().st_size


def check(path: Path) -> list[str]:
    """What is wrong with a database, in sentences; nothing where all is well.

    Raises:
        OSError, sqlite3.Error: it cannot be read at all.
    """
    with _opened(path) as database:
        findings = _integrity(database)
        findings += [
            f"a row of {row[0]} refers to a row of {row[2]} that is not there"
            for row in database.execute("PRAGMA foreign_key_check").fetchmany(_MAX_FINDINGS)
        ]
    return findings or _wrong_tables(path)


def _wrong_tables(path: Path) -> list[str]:
    engine = create_engine(URL.create("sqlite", database=str(path)))
    try:
        with engine.connect() as connection:
            version = version_of(connection)
            if version != HEAD:
                return [
                    f"its tables are of version {version}, and this program's of {HEAD}: starting the daemon brings older ones up to it"
                ]
            sizes: dict[str, int] = {}
            for table in METADATA.tables.values():
                if "size" not in table.c:
                    continue
                rows = connection.execute(
                    select(table.c.owner, func.sum(table.c.size)).group_by(table.c.owner)
                )
                for owner, size in rows:
                    sizes[owner] = sizes.get(owner, 0) + size
            used: dict[str, int] = {
                row.owner: row.bytes for row in connection.execute(text("SELECT owner, bytes FROM usage"))
            }
            return [
                f"{used.get(owner, 0)} bytes are counted for the key '{owner}', which has {sizes.get(owner, 0)}"
                for owner in sorted({*sizes, *used})
                if used.get(owner, 0) != sizes.get(owner, 0)
            ][:_MAX_FINDINGS]
    finally:
        engine.dispose()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A database that is there, in no transaction."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: nothing has been kept yet")
    with contextlib.closing(sqlite3.connect(path, timeout=5.0, isolation_level=None)) as database:
        yield database


def _integrity(database: sqlite3.Connection) -> list[str]:
    found = [str(row[0]) for row in database.execute(f"PRAGMA integrity_check({_MAX_FINDINGS})")]
    return [] if found == ["ok"] else found
