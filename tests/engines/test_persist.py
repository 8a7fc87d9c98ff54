"""The file of engines that come back after a restart: what is written is read, and no file is fatal."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kolosal.engines import persist
from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import CacheType, EngineConfig, LoadingParameters
from kolosal.engines.persist import FILE_NAME, EngineFile, StoredEngine, load_stored, store
from tests.engines.helpers import eventually


def config(engine_id: str = "test", **parameters: Any) -> EngineConfig:
    return EngineConfig(engine_id, "fake.gguf", LoadingParameters(**parameters))


ENGINES = [
    StoredEngine(config("a"), Rules()),
    StoredEngine(
        config("b é", n_ctx=512, tensor_split=(1.0, 2.0), flash_attn="off"),
        Rules(idle_ttl_s=5.0, pin=True, max_queued=3),
    ),
]


def test_what_was_stored_is_there_again(tmp_path: Path) -> None:
    store(tmp_path / "not" / "yet", ENGINES)
    assert load_stored(tmp_path / "not" / "yet").engines == ENGINES


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert load_stored(tmp_path).engines == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"version": 2, "engines": []}',
        b'{"version": 1}',
        b"\0" * 4096,
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(data)
    assert load_stored(tmp_path).engines == []
    assert [path.name for path in tmp_path.iterdir()] == [f"{FILE_NAME}.damaged"]
    store(tmp_path, ENGINES)
    assert load_stored(tmp_path).engines == ENGINES


def test_an_entry_that_is_not_valid_is_left_out(tmp_path: Path) -> None:
    store(tmp_path, ENGINES)
    body = json.loads((tmp_path / FILE_NAME).read_bytes())
    body["engines"][0]["config"]["parameters"]["n_ctx"] = -1
    (tmp_path / FILE_NAME).write_text(json.dumps(body))
    assert load_stored(tmp_path).engines == ENGINES[1:]
    assert (tmp_path / f"{FILE_NAME}.damaged").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2000), junk=st.binary(max_size=20))
def test_no_file_is_fatal(tmp_path: Path, position: int, junk: bytes) -> None:
    store(tmp_path, ENGINES)
    data = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(data[:position] + junk + data[position + len(junk) :])
    for engine in load_stored(tmp_path).engines:
        assert isinstance(engine.config.parameters, LoadingParameters)
    for aside in tmp_path.glob("*.damaged"):
        aside.unlink()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, ENGINES)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            store(tmp_path, [])
    assert load_stored(tmp_path).engines == ENGINES
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    store(tmp_path / "state", ENGINES)
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state" / FILE_NAME).stat().st_mode & 0o077 == 0


async def test_the_last_state_is_written(tmp_path: Path) -> None:
    engine_file = EngineFile(tmp_path)
    for n in range(20):
        engine_file.save([StoredEngine(config(f"e{n}"), Rules())])
    engine_file.save(ENGINES)
    assert await engine_file.close()
    assert load_stored(tmp_path).engines == ENGINES


async def test_a_write_that_failed_is_tried_again_until_it_succeeds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    engine_file = EngineFile(tmp_path / "state", delays_s=(0.001,))
    engine_file.save(ENGINES)
    await eventually(lambda: engine_file.failures >= 3)
    assert engine_file.problem == "Engines added at run time are not saved: its folder is a file"
    assert not engine_file.is_saved

    (tmp_path / "state").unlink()
    await eventually(lambda: engine_file.is_saved)
    assert engine_file.problem is None
    assert {record.message for record in caplog.records} == {"engines.not_saved"}
    assert load_stored(tmp_path / "state").engines == ENGINES
    assert await engine_file.close()


async def test_the_end_does_not_wait_for_the_next_try(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    engine_file = EngineFile(tmp_path / "file" / "folder", delays_s=(3600,))
    engine_file.save(ENGINES)
    assert not await engine_file.close()
    assert 1 <= engine_file.failures <= 2
    assert await EngineFile(tmp_path).close()


async def test_an_engine_that_no_file_can_hold_does_not_stop_the_others_for_ever(tmp_path: Path) -> None:
    engine_file = EngineFile(tmp_path, delays_s=(3600,))
    broken = StoredEngine(EngineConfig("a", "\udcff.gguf", LoadingParameters()), Rules())
    engine_file.save([broken])
    await eventually(lambda: engine_file.failures > 0)
    engine_file.save(ENGINES)
    assert await engine_file.close()
    assert load_stored(tmp_path).engines == ENGINES


async def test_a_second_daemon_writes_nothing_over_the_engines_of_the_first(tmp_path: Path) -> None:
    first, second = EngineFile(tmp_path), EngineFile(tmp_path, delays_s=(3600,))
    assert await first.restore() == []
    first.save(ENGINES)
    await eventually(lambda: first.is_saved)
    assert await second.restore() == ENGINES
    second.save([])
    assert not await second.close()
    assert second.problem is not None
    assert "another daemon" in second.problem
    assert await first.close()
    third = EngineFile(tmp_path)
    assert await third.restore() == ENGINES
    assert third.problem is None
    await third.close()


async def test_what_a_kill_left_behind_is_removed(tmp_path: Path) -> None:
    store(tmp_path, ENGINES)
    (tmp_path / f"{FILE_NAME}.abc.tmp").write_text("half a fi")
    (tmp_path / "another.tmp").write_text("not ours")
    engine_file = EngineFile(tmp_path)
    assert await engine_file.restore() == ENGINES
    assert set(os.listdir(tmp_path)) == {FILE_NAME, f"{FILE_NAME}.lock", "another.tmp"}  # noqa: PTH208 - names
    await engine_file.close()


async def test_a_file_set_aside_is_told_and_never_written_over(tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / FILE_NAME).write_text(f"damaged {n}")
        engine_file = EngineFile(tmp_path)
        assert await engine_file.restore() == []
        assert "set aside" in str(engine_file.problem)
        await engine_file.close()
    for n, name in enumerate((".damaged", ".damaged.2")):
        assert (tmp_path / f"{FILE_NAME}{name}").read_text() == f"damaged {n}"


async def test_more_engines_than_the_file_holds_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persist, "MAX_STORED", 1)
    engine_file = EngineFile(tmp_path)
    engine_file.save(ENGINES)
    assert await engine_file.close()
    assert engine_file.problem == (
        "Engines added at run time are not saved: there are 2, and 1 fit into the file"
    )


names = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\?#"), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))
cache_types: st.SearchStrategy[CacheType] = st.sampled_from(["f16", "q8_0"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names, n_ctx=st.integers(1, 10**6), kind=cache_types, ttl=st.none() | st.floats(0, 1e6))
def test_any_engine_survives(
    tmp_path: Path, name: str, n_ctx: int, kind: CacheType, ttl: float | None
) -> None:
    parameters = LoadingParameters(n_ctx=n_ctx, cache_type_k=kind)
    engine = StoredEngine(EngineConfig(name, f"/models/{name}.gguf", parameters), Rules(idle_ttl_s=ttl))
    store(tmp_path, [engine])
    assert load_stored(tmp_path).engines == [engine]
