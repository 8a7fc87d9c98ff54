"""Debian's PostgreSQL, started for the tests where it is installed."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

_USER = "postgres"


def programs() -> Path | None:
    """The folder of the newest server's programs; None where none is installed."""
    if os.name != "posix":
        return None
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return found[-1].parent if found else None


@contextmanager
def postgres_server(bin_folder: Path) -> Iterator[str]:
    """A server of its own, as the URL of its database. It refuses to run as root, so then it is another user's."""
    folder = Path(tempfile.mkdtemp(prefix="kolosal-pg-"))  # the path of its socket must be short
    as_user: dict[str, object] = {}
    if os.geteuid() == 0:
        as_user = {"user": _USER, "group": _USER}
        shutil.chown(folder, _USER, _USER)
    data, port = folder / "data", _free_port()

    def call(program: str, *arguments: str) -> None:
        command = [str(bin_folder / program), *arguments]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **as_user)  # type: ignore[call-overload]

    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    call("initdb", "-D", str(data), "-U", "kolosal", "-A", "trust", "-E", "UTF8", "--no-sync")
    call("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-w", "-o", options, "start")
    try:
        yield f"postgresql://kolosal:secret@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server for all tests of this process."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    with postgres_server(found) as url:
        yield url


def emptied(url: str) -> str:
    """The same URL, whose database has nothing in it."""

    async def empty() -> None:
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
        async with engine.begin() as connection:
            await connection.execute(text("DROP SCHEMA public CASCADE"))
            await connection.execute(text("CREATE SCHEMA public"))
        await engine.dispose()

    asyncio.run(empty())
    return url


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
