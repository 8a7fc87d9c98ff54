from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kolosal.files.atomic import replace_file


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A new file, and the old one that it is for."""
    new, old = tmp_path / "new", tmp_path / "old"
    new.write_text("new", encoding="utf-8")
    old.write_text("old", encoding="utf-8")
    return new, old


class Reader:
    """Has the old file open, as far as renaming is concerned, until it was waited for so many times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pauses: int) -> None:
        self.pauses = pauses
        rename = Path.replace

        def replace(new: Path, old: Path) -> Path:
            if self.pauses:
                raise PermissionError(13, "somebody has it open")
            return rename(new, old)

        monkeypatch.setattr(Path, "replace", replace)

    def wait(self, _seconds: float) -> None:
        self.pauses -= 1


def test_a_file_that_is_read_for_a_moment_is_replaced(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = files
    replace_file(new, old, tries=4, pause=Reader(monkeypatch, 3).wait)

    assert old.read_text(encoding="utf-8") == "new"
    assert not new.exists()


def test_a_file_that_stays_open_is_left_as_it_is(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = files
    with pytest.raises(PermissionError):
        replace_file(new, old, tries=4, pause=Reader(monkeypatch, 99).wait)

    assert old.read_text(encoding="utf-8") == "old"


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere an open file can be replaced")
def test_windows_replaces_a_file_when_its_reader_is_done(files: tuple[Path, Path]) -> None:
    new, old = files
    reader = old.open("rb")
    try:
        replace_file(new, old, pause=lambda _: reader.close())
    finally:
        reader.close()

    assert old.read_text(encoding="utf-8") == "new"
