"""Conversations that outlive their worker, in files: after an unload, a crash, and a restart, which is a new engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.command import WorkerCommand
from tests.engines.helpers import config, eventually, loaded
from tests.engines.test_crash import kill
from tests.engines.worker.helpers import ask, counting
from tests.settings import with_settings

PROMPT = f"first {'x' * 300} 5:"


def kv_files(folder: Path) -> list[Path]:
    return [*folder.rglob("*.kv")]


async def cached_of_next_turn(engine: Engine) -> int:
    await engine.ensure_ready()
    completion = await engine.generate(ask(f"{PROMPT}6 7 8 9 10", max_tokens=10)).collect()
    assert completion.text == counting(5, 20)[10:]
    return completion.usage.cached_tokens


async def test_unload_crash_and_restart_lose_no_conversation(
    tmp_path: Path, fake_worker: Callable[..., WorkerCommand]
) -> None:
    command = with_settings(
        replace(fake_worker(), saved_folder=tmp_path / "kv-cache"), cache_disk_bytes=1_000_000
    )
    sizes = config(n_ctx=400)
    async with loaded(command, sizes) as engine:
        await engine.generate(ask(PROMPT, max_tokens=10)).collect()
        await engine.unload()
        assert await cached_of_next_turn(engine) >= 300
        [first] = kv_files(tmp_path)

        await eventually(lambda: kv_files(tmp_path) not in ([], [first]) and not first.exists())
        kill(engine)
        await eventually(lambda: engine.worker_pid is None)
        assert await cached_of_next_turn(engine) >= 300
        assert engine.saved.restores == 2
        assert engine.saved.tokens >= 600
        assert engine.saved.disk_bytes > 0
    async with loaded(command, sizes) as engine:
        assert await cached_of_next_turn(engine) >= 300


async def test_off_leaves_nothing(tmp_path: Path, fake_worker: Callable[..., WorkerCommand]) -> None:
    command = replace(fake_worker(), saved_folder=tmp_path / "kv-cache")
    async with loaded(command, config(n_ctx=400)) as engine:
        await engine.generate(ask(PROMPT, max_tokens=10)).collect()
        await engine.unload()
        assert await cached_of_next_turn(engine) == 0
    assert kv_files(tmp_path) == []
