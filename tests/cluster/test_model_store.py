"""Model files on a machine of the cluster: found where the head has them, else sent and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from kolosal.cluster.model_store import ModelStore, files_of, with_digests
from kolosal.engines.parameters import FittedConfig, FittedParameters


def config_of(path: Path, draft: Path | None = None) -> FittedConfig:
    parameters = FittedParameters(draft_model_path=None if draft is None else str(draft))
    return FittedConfig("e", str(path), parameters)


def test_a_file_of_the_same_name_and_length_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"a" * 1000)
    files = files_of(config_of(path))
    store = ModelStore(tmp_path / "cache")
    assert store.missing(files) == ()
    path.write_bytes(b"b" * 1000)
    assert store.missing(files) == files


def test_what_is_missing_is_sent_in_pieces(tmp_path: Path) -> None:
    parts = [tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    draft = tmp_path / "d.gguf"
    contents = {path: path.name.encode() * 100 for path in (*parts, draft)}
    for path, content in contents.items():
        path.write_bytes(content)
    config = config_of(parts[0], draft)
    files = with_digests(files_of(config))
    for path in contents:
        path.unlink()
    store = ModelStore(tmp_path / "cache")
    assert store.missing(files) == files
    for file in files:
        content = contents[Path(file.path)]
        store.receive(file, 0, content[:500])
        store.receive(file, 500, content[500:])
    assert store.missing(files) == ()
    there = store.with_paths_of_here(config, files)
    assert Path(there.model_path).read_bytes() == contents[parts[0]]
    assert Path(there.model_path).with_name(parts[1].name).read_bytes() == contents[parts[1]]
    assert Path(there.parameters.draft_model_path or "").read_bytes() == contents[draft]


def test_a_file_that_was_changed_on_its_way_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"a" * 1000)
    files = with_digests(files_of(config_of(path)))
    path.unlink()
    store = ModelStore(tmp_path / "cache")
    with pytest.raises(ValueError, match="SHA-256 differs"):
        store.receive(files[0], 0, b"b" * 1000)
    with pytest.raises(ValueError, match="0 bytes are there"):
        store.receive(files[0], 500, b"a" * 500)
    assert store.missing(files) == files
