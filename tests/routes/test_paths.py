"""`model_path` to the one file it means, or a code and a sentence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from kolosal.errors import ModelFileError
from kolosal.paths import model_file

CONTENT = b"GGUF\x03\x00\x00\x00"
"""Enough for the path; `tests/test_gguf.py` looks at what is in the file."""


def make(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).write_bytes(CONTENT)


def refusal(path: object) -> ModelFileError:
    with pytest.raises(ModelFileError) as caught:
        model_file(str(path))
    assert caught.value.param == "model_path"
    assert len(caught.value.message) < 400
    return caught.value


def test_a_file_is_itself(tmp_path: Path) -> None:
    make(tmp_path, "a.gguf", "B.GGUF")
    assert model_file(str(tmp_path / "a.gguf")) == tmp_path / "a.gguf"
    assert model_file(str(tmp_path / "B.GGUF")) == tmp_path / "B.GGUF"


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.gguf")
    monkeypatch.chdir(tmp_path)
    assert model_file("a.gguf") == tmp_path / "a.gguf"


@pytest.mark.parametrize("names", [
    ["only.gguf"], ["only.gguf", "mmproj-model-f16.gguf", "readme.md"],
    ["only-00001-of-00003.gguf", "only-00002-of-00003.gguf", "only-00003-of-00003.gguf"],
])  # fmt: skip
def test_a_directory_with_one_model_is_that_model(tmp_path: Path, names: list[str]) -> None:
    make(tmp_path, *names)
    assert model_file(str(tmp_path)) == tmp_path / names[0]


def test_a_directory_with_several_models_names_them(tmp_path: Path) -> None:
    make(tmp_path, *(f"m{i:02}.gguf" for i in range(20)))
    error = refusal(tmp_path)
    assert error.code == "model_file_ambiguous"
    assert "holds 20 models ('m00.gguf', 'm01.gguf'" in error.message
    assert "and 12 more" in error.message


@pytest.mark.parametrize(
    "path", ["", "a\0b.gguf", "/no/such/file.gguf", "~/x.gguf", "x" * 100_000, "/" + "y/" * 5000]
)
def test_what_does_not_exist_is_not_found(path: str) -> None:
    assert refusal(path).code == "model_path_not_found"


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    make(tmp_path, "mmproj-a.gguf", "a-00002-of-00002.gguf")
    (tmp_path / "d.gguf").mkdir()
    assert refusal(tmp_path).code == "model_file_not_found"


def test_what_is_no_gguf_file(tmp_path: Path) -> None:
    make(tmp_path, "a.bin", "a-00002-of-00003.gguf")
    (tmp_path / "text.gguf").write_text("I am a text")
    (tmp_path / "empty.gguf").touch()
    messages = {
        "a.bin": "is not a .gguf file",
        "text.gguf": "has the name of a GGUF model, but is something else",
        "empty.gguf": "is empty",
        "a-00002-of-00003.gguf": "is part 2 of 3 of a model: give the path of part 1",
    }
    for name, message in messages.items():
        error = refusal(tmp_path / name)
        assert error.code == "invalid_model_format"
        assert message in error.message


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX devices, pipes and modes")
def test_devices_and_pipes_are_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "null.gguf").symlink_to("/dev/null")
    for path in (tmp_path / "pipe.gguf", tmp_path / "null.gguf", "/dev/zero"):
        assert refusal(path).code == "invalid_model_path_type"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_links_are_followed_and_kept(tmp_path: Path) -> None:
    make(tmp_path, "blob")
    (tmp_path / "link.gguf").symlink_to(tmp_path / "blob")
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    assert model_file(str(tmp_path / "link.gguf")) == tmp_path / "link.gguf"
    assert refusal(tmp_path / "loop.gguf").code == "model_path_not_found"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    make(tmp_path, "a.gguf")
    (tmp_path / "a.gguf").chmod(0)
    assert refusal(tmp_path / "a.gguf").code == "model_path_access_denied"


def test_what_fails_to_open_is_access_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.gguf")

    def denied(*_args: object, **_kwargs: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", denied)
    assert refusal(tmp_path / "a.gguf").code == "model_path_access_denied"
    monkeypatch.setattr(Path, "iterdir", denied)
    assert refusal(tmp_path).code == "model_path_access_denied"
    monkeypatch.setattr(Path, "stat", denied)
    assert refusal(tmp_path / "a.gguf").code == "model_path_access_denied"
