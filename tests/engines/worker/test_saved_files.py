"""Conversations in files: found again by the next worker, never given back damaged, foreign or beyond the bound."""

from __future__ import annotations

import errno
import os
import random
import stat
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.worker.file_cache import FileCache
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.engines.worker.saved_files import SUFFIX, SavedFiles
from tests.engines.worker.helpers import InProcessWorker, ask, counting, engine_config, fake_backend
from tests.engines.worker.test_saved_conversations import PRECISE, cached, turn
from tests.tiny_gguf import write_tiny_gguf

TOKENS, STATE = [5, 1 << 20, 0, -1], memoryview(bytes(range(256)) * 9)
PROMPT = f"first {'x' * 300} 5:"


def files(root: Path, *, max_bytes: int = 1 << 30, key: bytes = b"fake") -> SavedFiles:
    return SavedFiles(root, max_bytes, key)


def paths(root: Path) -> list[Path]:
    return sorted(root.rglob(f"*{SUFFIX}"))


def run(root: Path, *, max_bytes: int = 1 << 30, saved_bytes: int = 0) -> InProcessWorker:
    """A worker as it is after a restart."""
    worker = InProcessWorker(
        fake_backend(n_ctx=400, n_parallel=1, kv_pool_tokens=400),
        saved_bytes=saved_bytes,
        open_files=partial(FileCache, files(root, max_bytes=max_bytes)),
    )
    worker.loop._files.busy_s = float("inf")  # type: ignore[union-attr]
    return worker


def end(worker: InProcessWorker) -> None:
    worker.loop.stop()
    worker.loop.run()


# --- the files themselves ---


def test_what_was_written_is_read_by_its_owner_only(tmp_path: Path) -> None:
    path = files(tmp_path).write(TOKENS, "key/ä", STATE)
    assert path is not None
    [found] = files(tmp_path).scan()
    assert (found.path, found.tokens, found.scope) == (path, TOKENS, "key/ä")
    assert files(tmp_path).read(path) == STATE
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@given(data=st.data())
def test_what_is_damaged_is_deleted_and_never_read(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("kv")
    path = files(root).write(TOKENS, "scope", STATE)
    assert path is not None
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "grow"]))
    if change == "flip":
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[:at] if change == "cut" else content + b"x" * (change == "grow"))
    assert files(root).read(path) is None
    assert not path.exists()


def test_files_of_another_model_are_another_folder_and_deleted_in_this_one(tmp_path: Path) -> None:
    path = files(tmp_path).write(TOKENS, "", STATE)
    other = files(tmp_path, key=b"other").write(TOKENS, "", STATE)
    assert path is not None
    assert other is not None
    assert [each.path for each in files(tmp_path).scan()] == [path]
    path.write_bytes(other.read_bytes())
    assert [*files(tmp_path).scan()] == []
    assert paths(tmp_path) == [other]


def test_the_bound_is_of_all_and_the_longest_unused_go_first(tmp_path: Path) -> None:
    one = files(tmp_path).write([1], "", STATE)
    two = files(tmp_path, key=b"other").write([2], "", STATE)
    assert one is not None
    assert two is not None
    for age, path in enumerate((two, one)):
        os.utime(path, (1000 - age, 1000 - age))
    bound = one.stat().st_size * 2
    assert files(tmp_path).read(one) == STATE  # and so it was used
    three = files(tmp_path, max_bytes=bound).write([3], "", STATE)
    assert paths(tmp_path) == sorted([one, three])  # type: ignore[type-var]
    assert files(tmp_path, max_bytes=100).write([4], "", STATE) is None


# --- with an engine ---


def test_a_restarted_worker_goes_on_from_them(tmp_path: Path) -> None:
    worker = run(tmp_path)
    worker.answer(ask(PROMPT, max_tokens=10))
    end(worker)
    assert len(paths(tmp_path)) == 1
    worker = run(tmp_path)
    answer = worker.answer(ask(f"{PROMPT}6 7 8 9 10", max_tokens=10))
    assert answer.text == counting(5, 20)[10:]
    assert cached(answer) >= 300
    end(worker)
    [path] = paths(tmp_path)  # the longer one took the place of the other
    assert len(next(files(tmp_path).scan()).tokens) > 320
    assert path.stat().st_size < 4000


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    worker = run(tmp_path)
    worker.answer(ask(PROMPT, max_tokens=10))
    end(worker)
    worker = run(tmp_path)
    [path] = paths(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    answer = worker.answer(ask(f"{PROMPT}6 7 8 9 10", max_tokens=10))
    assert answer.text == counting(5, 20)[10:]
    assert cached(answer) == 0
    assert paths(tmp_path) == []


def test_what_had_to_make_room_is_written_and_comes_back(tmp_path: Path) -> None:
    worker = run(tmp_path, saved_bytes=1 << 20)
    for name in ("first", "second", "third"):
        worker.answer(ask(f"{name} {'x' * 300} 5:", max_tokens=10))
    end(worker)
    assert len(paths(tmp_path)) == 3
    worker = run(tmp_path, saved_bytes=1 << 20)
    for name in ("second", "first", "third", "second"):
        answer = worker.answer(ask(f"{name} {'x' * 300} 5:6 7 8 9 10", max_tokens=5))
        assert answer.text == counting(5, 15)[10:]
        assert cached(answer) >= 300


def test_an_idle_worker_writes_what_was_left_alone(tmp_path: Path) -> None:
    worker = run(tmp_path)
    worker.loop._files.rest_s = 0  # type: ignore[union-attr]
    worker.answer(ask(PROMPT, max_tokens=10))
    worker.loop.step()  # idle, until the file is there
    assert len(paths(tmp_path)) == 1


def test_what_was_just_read_does_not_go_for_what_it_takes_the_cells_of(tmp_path: Path) -> None:
    worker = run(tmp_path)
    worker.answer(ask(PROMPT, max_tokens=10))
    end(worker)
    worker = run(tmp_path, saved_bytes=12 * 340)  # one conversation
    worker.answer(ask(f"second {'x' * 300} 5:", max_tokens=10))
    answer = worker.answer(ask(f"{PROMPT}6 7 8 9 10", max_tokens=10))
    assert answer.text == counting(5, 20)[10:]
    assert cached(answer) >= 300


def test_a_full_disk_is_tried_once_and_harms_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def refuse(_self: SavedFiles, _tokens: list[int], scope: str, _state: memoryview) -> Path:
        tries.append(scope)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(SavedFiles, "write", refuse)
    worker = run(tmp_path)
    worker.loop._files.rest_s = 0  # type: ignore[union-attr]
    worker.answer(ask(PROMPT, max_tokens=10))
    worker.loop.step()  # idle, until it was tried
    assert worker.answer(ask(PROMPT, max_tokens=10)).text == counting(5, 10)
    end(worker)
    assert len(tries) == 1


@pytest.mark.parametrize("kind", ["llama", "gemma3", "mamba"])
def test_what_is_restored_is_what_is_computed_afresh(tmp_path: Path, kind: Any) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf", kind)
    talk = [random.Random(4).randrange(20, 200) for _ in range(300)]  # noqa: S311 - a test's prompt
    config = engine_config(str(tmp_path / "tiny.gguf"), **PRECISE)
    for turn_number in range(2):
        backend, other = (LlamaCppBackend(config, lambda _: None) for _ in range(2))
        assert backend.state_key() == other.state_key()
        saved = SavedFiles(tmp_path / "kv", 1 << 30, backend.state_key())
        worker = InProcessWorker(backend, open_files=partial(FileCache, saved))
        answer = worker.answer(turn(talk))
        assert cached(answer) >= 300 * turn_number
        assert answer.tokens == InProcessWorker(other).answer(turn(talk, use_cache=False)).tokens
        talk += [*answer.tokens, 7, 8, 9]
        end(worker)
        backend.close()
        other.close()


def test_other_weights_and_parameters_have_other_states(tmp_path: Path) -> None:
    keys = set()
    for seed, changes in ((1, {}), (2, {}), (1, {"cache_type_k": "f16"})):
        write_tiny_gguf(tmp_path / f"{seed}.gguf", seed=seed)
        config = engine_config(str(tmp_path / f"{seed}.gguf"), **PRECISE | changes)
        backend = LlamaCppBackend(config, lambda _: None)
        keys.add(backend.state_key())
        backend.close()
    assert len(keys) == 3
