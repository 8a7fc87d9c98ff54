"""Copies are whole while a daemon writes, and a check sees what is wrong."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kolosal.cli import app
from kolosal.store.collections import ASSISTANTS, MESSAGES, THREADS
from kolosal.store.maintenance import back_up, check
from kolosal.store.store import ObjectStore
from tests.settings import settings_of


def store_in(folder: Path) -> ObjectStore:
    return ObjectStore(settings_of(store_url=f"sqlite:///{folder / 'kolosal.db'}").store)


async def test_a_copy_is_whole_while_a_daemon_writes(tmp_path: Path) -> None:
    store, copy = store_in(tmp_path), tmp_path / "copy.db"
    acknowledged = 0

    async def write() -> None:
        nonlocal acknowledged
        for n in range(300):
            async with store.writing(None) as session:
                await session.insert(ASSISTANTS, {"id": f"asst_{n}", "text": "x" * 1000})
            acknowledged += 1

    async with store.reading(None):
        pass
    writing = asyncio.create_task(write())
    while not writing.done():
        before = acknowledged
        await asyncio.to_thread(back_up, tmp_path / "kolosal.db", copy)
        assert await asyncio.to_thread(check, copy) == []
        database = sqlite3.connect(copy)
        (found,) = database.execute("SELECT count(*) FROM assistants").fetchone()
        database.close()
        assert before <= found <= acknowledged + 1
    await writing
    await store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [  # noqa: ASYNC240
        "copy.db",
        "kolosal.db",
        "kolosal.db.lock",
    ]


async def test_a_check_says_what_is_wrong(tmp_path: Path) -> None:
    store, path = store_in(tmp_path), tmp_path / "kolosal.db"
    async with store.writing("key_1") as session:
        await session.insert(THREADS, {"id": "thread_1"})
        await session.insert(MESSAGES, {"id": "msg_1"}, thread_id="thread_1")
    await store.close()
    assert check(path) == []
    database = sqlite3.connect(path)
    database.execute("DELETE FROM threads")
    database.commit()
    assert check(path) == ["a row of messages refers to a row of threads that is not there"]
    database.execute("DELETE FROM messages")
    database.commit()
    assert "which has 0" in check(path)[0]
    database.execute("UPDATE alembic_version SET version_num = '0'")
    database.commit()
    database.close()
    assert "its tables are of version 0" in check(path)[0]


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOLOSAL_STORE_URL", f"sqlite:///{tmp_path / 'kolosal.db'}")
    copy, run = str(tmp_path / "copy.db"), CliRunner().invoke
    assert "nothing has been kept yet" in run(app, ["store", "check"]).output
    store = store_in(tmp_path)

    async def begin() -> None:
        async with store.reading(None):
            pass
        await store.close()

    asyncio.run(begin())
    assert run(app, ["store", "check"]).exit_code == 0
    assert "checked" in run(app, ["store", "backup", copy]).output
    again = run(app, ["store", "backup", copy])
    assert (again.exit_code, "--force" in again.output) == (1, True)
    assert run(app, ["store", "backup", copy, "--force"]).exit_code == 0
    database = sqlite3.connect(tmp_path / "kolosal.db")
    database.execute("INSERT INTO usage VALUES ('key_1', 5)")
    database.commit()
    database.close()
    assert run(app, ["store", "check"]).exit_code == 1
    monkeypatch.setenv("KOLOSAL_STORE_URL", "postgresql://a:b@c/d")
    assert "tools of its own" in run(app, ["store", "backup", copy]).output
