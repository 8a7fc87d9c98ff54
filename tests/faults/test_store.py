"""D1 and D2: the disk of the store is full at any statement, and the daemon is killed while it writes or migrates."""

from __future__ import annotations

import itertools
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kolosal.store import database
from kolosal.store.maintenance import check
from tests.fakes import FakeEngine, app_with, http_client, says

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9")

USER = {"role": "user", "content": "x" * 3000}

WRITER = """
import asyncio, itertools, sys
from kolosal.config.settings import Settings
from kolosal.store.collections import ASSISTANTS, MESSAGES, THREADS
from kolosal.store.responses import ResponseTurn
from kolosal.store.store import ObjectStore

async def main():
    store = ObjectStore(Settings.model_validate({"store": {"url": sys.argv[1]}}).store)
    previous = None
    for n in itertools.count():
        name = f"{sys.argv[2]}_{n}"
        async with store.writing(None) as session:
            await session.insert(THREADS, {"id": f"thread_{name}"})
            await session.insert_all(
                MESSAGES,
                [({"id": f"msg_{name}_{m}", "text": "x" * 2000}, {"thread_id": f"thread_{name}"}) for m in range(5)],
            )
        async with store.writing(None) as session:
            turn = ResponseTurn(f"resp_{name}", b"{}", b"[]", b"[]", [f"item_{name}"], 2**40)
            await session.responses.keep(turn, previous, lambda: b"[]")
            rows = await session.responses.conversation(turn.response_id, 0)
            previous = None if n % 10 == 0 else rows[-1].seq
            await session.responses.forget((await session.responses.usage())[0] - 20, 0)
        print(name, flush=True)

print("started", flush=True)
asyncio.run(main())
"""
"""Keeps threads of five messages and responses that follow each other, and says which were acknowledged."""


@pytest.mark.fault("D1")
async def test_a_disk_that_is_full_at_any_statement_loses_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sized: Callable[[int, int], int],
    seen: Callable[[str], None],
) -> None:
    """Room for one page more each time: from where not even the tables fit to where all does."""
    statuses: dict[int, int] = {}
    step = sized(6, 1)
    for number, pages in enumerate(itertools.count(4, step)):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.setattr(database, "_PRAGMAS", (*PRAGMAS, f"PRAGMA max_page_count = {pages}"))
        url = f"sqlite:///{folder / 'kolosal.db'}"
        app = app_with(FakeEngine("fake", says("y" * 6000)), store_url=url, sessions_keep_history=True)
        kept: list[str] = []
        async with http_client(app) as client:
            answers = []
            for path, body in (("assistants", {"model": "fake"}), ("threads", {"messages": [USER] * 4})):
                answer = await client.post(f"/v1/{path}", json=body)
                answers.append(answer.status_code)
                if answer.status_code == 200:
                    kept.append(f"{path}/{answer.json()['id']}")
            if len(kept) == 2:
                started = {"assistant_id": kept[0].partition("/")[2], "stream": True}
                answer = await client.post(f"/v1/{kept[1]}/runs", json=started)
                answers.append(answer.status_code)
                answers.append(507 if "insufficient_storage" in answer.text else 200)
            asked = {"model": "fake", "input": "Hello", "store": True}
            for _ in range(2):
                answer = await client.post("/v1/responses", json=asked)
                answers.append(answer.status_code)
                if answer.status_code == 200:
                    kept.append(f"responses/{answer.json()['id']}")
                    asked |= {"previous_response_id": answer.json()["id"]}
            tools = [{"name": "f", "description": "x" * 6000}]
            answers.append((await client.post("/create_session", json={"tools": tools})).status_code)
            chat = {"model": "fake", "messages": [{"role": "user", "content": "Hello"}]}
            assert (await client.post("/v1/chat/completions", json=chat)).status_code == 200
            for path in kept:
                assert (await client.get(f"/v1/{path}")).status_code == 200
        for status in answers:
            statuses[status] = statuses.get(status, 0) + 1
        await app.state.services.runs.close()
        await app.state.services.responses.close()
        await app.state.services.store.close()
        monkeypatch.undo()
        findings = check(folder / "kolosal.db")
        assert findings == [] or "version None" in findings[0]
        if answers == [200] * 7:
            break
    assert statuses.keys() == {200, 507}
    seen(f"{number + 1} sizes of disk: {statuses[507]} x 507, the rest kept; integrity ok; chats answered")


PRAGMAS = database._PRAGMAS


@pytest.mark.fault("D2")
def test_a_kill_while_it_writes_or_migrates_loses_nothing(
    tmp_path: Path, sized: Callable[[int, int], int], seen: Callable[[str], None]
) -> None:
    """Killed at a random moment, in every fourth round while the tables are made."""
    chance = random.Random(2)  # noqa: S311 - when
    rounds, acknowledged, path = sized(3, 200), 0, tmp_path / "0.db"
    for number in range(rounds):
        migrates = number % 4 == 0
        if migrates:
            path = tmp_path / f"{number}.db"
        command = [sys.executable, "-c", WRITER, f"sqlite:///{path}", str(number)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        if not migrates:
            process.stdout.readline()
        time.sleep(chance.uniform(0, 1.0 if migrates else 0.2))
        process.send_signal(signal.SIGKILL)
        names = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        acknowledged += len(names)
        if not path.exists():
            assert not names
            continue
        findings = check(path)
        assert findings == [] or (not names and "version None" in findings[0])
        if names:
            connection = sqlite3.connect(path)
            found = {row[0] for row in connection.execute("SELECT id FROM threads")}
            messages: Any = connection.execute("SELECT thread_id, count(*) FROM messages GROUP BY thread_id")
            assert {count for _, count in messages} == {5}
            responses = {row[0] for row in connection.execute("SELECT id FROM responses")}
            connection.close()
            last = names[-19:]  # of 20 that are kept one may be there that was not acknowledged
            assert {f"resp_{name}" for name in last} <= responses
            assert {f"thread_{name}" for name in names} <= found
    seen(f"{rounds} kills: integrity ok, {acknowledged} acknowledged transactions, none lost")
