"""Digests of model files: right, computed once, and computed for whoever still waits."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from kolosal.models import file_cache
from kolosal.models.file_cache import ModelFileCache, sha256_of
from tests.fakes import eventually


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pieces that were hashed, each of 4 bytes at most."""
    sizes: list[int] = []
    hash_piece = file_cache._hash_piece

    def counted(file: object, update: object) -> bool:
        sizes.append(1)
        return hash_piece(file, update)  # type: ignore[arg-type]

    monkeypatch.setattr(file_cache, "_PIECE_BYTES", 4)
    monkeypatch.setattr(file_cache, "_hash_piece", counted)
    return sizes


async def test_a_digest_is_that_of_the_file_and_is_computed_once(tmp_path: Path, reads: list[int]) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF and so on")
    known = ModelFileCache(sha256_of, 1024)
    first, second = await asyncio.gather(known.of(file), known.of(file))
    assert first is not None
    assert first == second == await known.of(file)
    assert first[1] == hashlib.sha256(b"GGUF and so on").hexdigest()
    assert (first[0].size, len(reads)) == (14, 5)


async def test_a_file_that_was_written_is_another(tmp_path: Path) -> None:
    file, known = tmp_path / "a.gguf", ModelFileCache(sha256_of, 1024)
    file.write_bytes(b"one")
    before = await known.of(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(0, 1))
    after = await known.of(file)
    assert before is not None
    assert after is not None
    assert after[1] == hashlib.sha256(b"two").hexdigest() != before[1]
    assert after[0].modified_at.year == 1970


async def test_who_leaves_ends_nothing(tmp_path: Path, reads: list[int]) -> None:
    file, known = tmp_path / "a.gguf", ModelFileCache(sha256_of, 1024)
    file.write_bytes(b"GGUF" * 50)
    leaving = asyncio.create_task(known.of(file))
    await eventually(lambda: reads)
    leaving.cancel()
    await asyncio.wait([leaving])
    found = await known.of(file)
    assert found is not None
    assert found[1] == hashlib.sha256(b"GGUF" * 50).hexdigest()
    assert len(reads) == 51


async def test_a_file_that_is_gone_has_none(tmp_path: Path) -> None:
    known = ModelFileCache(sha256_of, 1024)
    assert await known.of(tmp_path / "none.gguf") is None
    assert await known.of(tmp_path) is None  # a folder can be looked at, but not read


async def test_only_so_many_are_kept(tmp_path: Path, reads: list[int]) -> None:
    known = ModelFileCache(sha256_of, 1)
    for name in ("a", "b", "a"):
        (tmp_path / name).touch()
        assert await known.of(tmp_path / name) is not None
    assert len(reads) == 3
