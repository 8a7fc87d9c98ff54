"""What is opened: regular files. Nothing else is waited for."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from kolosal.files.deadline import NoAnswer, within
from kolosal.files.in_thread import in_thread
from kolosal.files.regular import FileTooLong, NotRegular, is_regular, open_regular, read_regular


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100_000)
    assert read_regular(path, 100_000) == b"x" * 100_000
    assert is_regular(path)
    with pytest.raises(FileTooLong, match="longer than 99999 bytes"):
        read_regular(path, 99_999)


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "a", 10)
    with pytest.raises(ValueError, match="null"):
        read_regular(Path("a\0b"), 10)
    assert not is_regular(Path("a\0b"))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX kinds of files")
def test_nothing_but_a_regular_file_is_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    for path, kind in ((pipe, "pipe"), (link, "pipe"), (tmp_path, "folder"), (Path(os.devnull), "device")):
        with pytest.raises(NotRegular, match=f"not a regular file, but a {kind}"):
            read_regular(path, 10)
        assert not is_regular(path)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX kinds of files")
def test_a_file_that_becomes_a_pipe_at_the_last_moment_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.touch()
    look = os.stat

    def swapped(found: Path, **named: bool) -> os.stat_result:
        before = look(found, **named)
        if found == path:  # other threads look at files too
            path.unlink()
            os.mkfifo(path)
        return before

    monkeypatch.setattr("os.stat", swapped)
    with pytest.raises(NotRegular):
        open_regular(path)


def test_a_call_that_does_not_return_is_left_behind() -> None:
    back = threading.Event()
    with pytest.raises(NoAnswer, match=r"did not answer within 0\.01 seconds"):
        within(0.01, back.wait)
    back.set()
    assert within(10, lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 // 0)


async def test_the_event_loop_waits_no_longer_either() -> None:
    back = threading.Event()
    with pytest.raises(NoAnswer):
        await in_thread(back.wait, limit_s=0.01)
    back.set()
    assert await in_thread(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)
