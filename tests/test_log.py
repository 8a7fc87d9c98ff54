"""Log lines: for people, for programs, in a file that is rotated, and with the id of the request at hand."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import orjson
import pytest

from kolosal.config.logging import LoggingSettings
from kolosal.log import configure_logging, log_file_problem
from kolosal.observe.context import REQUEST, RequestContext

log = logging.getLogger("kolosal.test")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Handlers as they were: pytest has its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kolosal.log"


def to(path: Path, **others: Any) -> LoggingSettings:
    return LoggingSettings(file=str(path), file_count=2, **others)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_a_line_for_people_goes_to_stderr_and_to_the_file(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(to(path))
    log.info("engine.loaded", extra={"engine_id": "a", "why": "two words"})
    log.debug("engine.unimportant")
    [line] = lines(path)
    assert line.endswith("INFO engine.loaded engine_id=a why='two words'")
    assert capsys.readouterr().err == line + "\n"


def test_a_line_for_programs_is_one_object(path: Path) -> None:
    configure_logging(to(path, level="debug", format="json"))
    log.warning("engine.died", extra={"engine_id": "a", "streams": 3, "text": "line\nbreak", "of": Path("x")})
    log.warning("odd", extra={"text": "\ud800"})
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        log.exception("request.failed")
    first, odd, failed = map(orjson.loads, lines(path))
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning", "event": "engine.died", "engine_id": "a", "streams": 3, "text": "line\nbreak", "of": "x",
    }  # fmt: skip
    assert odd["event"] == "odd"
    assert "RuntimeError: broken" in failed["exception"]


def test_lines_have_the_request_they_belong_to(path: Path) -> None:
    configure_logging(to(path, format="json"))
    log.info("daemon.started")
    token = REQUEST.set(RequestContext("req-1"))
    log.info("engine.loaded")
    log.info("request.finished", extra={"request_id": "req-2"})
    REQUEST.reset(token)
    assert [orjson.loads(line).get("request_id") for line in lines(path)] == [None, "req-1", "req-2"]


def test_a_file_is_put_aside_when_it_is_long_and_the_oldest_is_deleted(path: Path) -> None:
    configure_logging(to(path, file_bytes=4096))
    for number in range(400):
        log.info("something.happened", extra={"number": number})
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["kolosal.log", "kolosal.log.1", "kolosal.log.2"]
    assert max(file.stat().st_size for file in files) <= 4096
    assert lines(path)[-1].endswith("number=399")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX kinds of files")
def test_a_pipe_in_place_of_the_file_is_not_waited_for(path: Path) -> None:
    assert sys.platform != "win32"  # for the type checker
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file, but a pipe"):
        configure_logging(to(path))


class FullDisk(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_told_once_and_no_more_when_it_has_room(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging(to(path))
    [handler] = [one for one in logging.getLogger().handlers if isinstance(one, RotatingFileHandler)]
    with monkeypatch.context() as patch:
        patch.setattr(handler, "stream", FullDisk())
        for number in range(2):
            log.warning("disk.full", extra={"number": number})
        assert log_file_problem() == "The log file cannot be written: No space left on device"
    log.warning("room.again")
    assert log_file_problem() is None
    assert capsys.readouterr().err.count("The log file cannot be written") == 1
    assert [line.split()[-1] for line in lines(path)] == ["room.again"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        configure_logging(to(tmp_path / "no" / "a.log"))


def test_a_field_cannot_write_to_the_terminal_or_begin_a_line_of_its_own(path: Path) -> None:
    configure_logging(to(path))
    log.info("request.finished", extra={"path": "/\x1b[2J\r\n2026-11-20 ERROR forged", "nothing": ""})
    [line] = lines(path)
    assert line.endswith(r"path='/\x1b[2J\r\n2026-11-20 ERROR forged' nothing=''")
