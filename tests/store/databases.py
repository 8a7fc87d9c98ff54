"""Databases that have their tables already: making those takes longer than most tests."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from kolosal.store.store import ObjectStore
from tests.settings import settings_of


@contextmanager
def empty_database() -> Iterator[str]:
    """The URL of a SQLite database with nothing in it, which is deleted in the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kolosal.db"
        path.write_bytes(_with_tables())
        yield f"sqlite:///{path}"


@cache
def _with_tables() -> bytes:
    async def make(url: str) -> None:
        store = ObjectStore(settings_of(store_url=url).store)
        await store.open()
        await store.close()

    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "kolosal.db"
        with ThreadPoolExecutor(1) as thread:  # a test's own loop may run here
            thread.submit(asyncio.run, make(f"sqlite:///{path}")).result()
        return path.read_bytes()
    finally:
        shutil.rmtree(folder)
