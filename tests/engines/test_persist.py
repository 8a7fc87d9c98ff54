"""The file of engines that come back after a restart: what is written is read, and no file is fatal."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kolosal.engines.memory.policy import Rules
from kolosal.engines.parameters import CacheType, EngineConfig, LoadingParameters
from kolosal.engines.persist import FILE_NAME, EngineFileWriter, StoredEngine, load_stored, store
from tests.engines.helpers import config

ENGINES = [
    StoredEngine(config("a"), Rules()),
    StoredEngine(
        config("b é", n_ctx=512, tensor_split=(1.0, 2.0), flash_attn="off"),
        Rules(idle_ttl_s=5.0, pin=True, max_queued=3),
    ),
]


def test_what_was_stored_is_there_again(tmp_path: Path) -> None:
    store(tmp_path / "not" / "yet", ENGINES)
    assert load_stored(tmp_path / "not" / "yet") == ENGINES


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert load_stored(tmp_path) == []


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
    assert load_stored(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [f"{FILE_NAME}.damaged"]
    store(tmp_path, ENGINES)
    assert load_stored(tmp_path) == ENGINES


def test_an_entry_that_is_not_valid_is_left_out(tmp_path: Path) -> None:
    store(tmp_path, ENGINES)
    body = json.loads((tmp_path / FILE_NAME).read_bytes())
    body["engines"][0]["config"]["parameters"]["n_ctx"] = 0
    (tmp_path / FILE_NAME).write_text(json.dumps(body))
    assert load_stored(tmp_path) == ENGINES[1:]
    assert (tmp_path / f"{FILE_NAME}.damaged").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2000), junk=st.binary(max_size=20))
def test_no_file_is_fatal(tmp_path: Path, position: int, junk: bytes) -> None:
    store(tmp_path, ENGINES)
    data = (tmp_path / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(data[:position] + junk + data[position + len(junk) :])
    for engine in load_stored(tmp_path):
        assert isinstance(engine.config.parameters, LoadingParameters)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, ENGINES)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            store(tmp_path, [])
    assert load_stored(tmp_path) == ENGINES
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    store(tmp_path / "state", ENGINES)
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state" / FILE_NAME).stat().st_mode & 0o077 == 0


async def test_the_last_state_is_written(tmp_path: Path) -> None:
    engine_file = EngineFileWriter(tmp_path)
    for n in range(20):
        engine_file.save([StoredEngine(config(f"e{n}"), Rules())])
    engine_file.save(ENGINES)
    await engine_file.flush()
    assert load_stored(tmp_path) == ENGINES


async def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    engine_file = EngineFileWriter(tmp_path / "file" / "folder")
    engine_file.save(ENGINES)
    await engine_file.flush()
    await EngineFileWriter(tmp_path).flush()


names = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\?#"), min_size=1, max_size=20
)
cache_types: st.SearchStrategy[CacheType] = st.sampled_from(["f16", "q8_0"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=names, n_ctx=st.integers(1, 10**6), kind=cache_types, ttl=st.none() | st.floats(0, 1e6))
def test_any_engine_survives(
    tmp_path: Path, name: str, n_ctx: int, kind: CacheType, ttl: float | None
) -> None:
    parameters = LoadingParameters(n_ctx=n_ctx, cache_type_k=kind)
    engine = StoredEngine(EngineConfig(name, f"/models/{name}.gguf", parameters), Rules(idle_ttl_s=ttl))
    store(tmp_path, [engine])
    assert load_stored(tmp_path) == [engine]
