"""How a message is typed: the rules, and the keys of a real prompt over a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from kolosal.commands import message_input
from kolosal.commands.message_input import (
    MAX_HISTORY_BYTES,
    PromptReader,
    command_of,
    continued,
    message_of,
    newer_half,
    read_lines,
)

PASTE = "\x1b[200~{}\x1b[201~"
ALT_ENTER = "\x1b\r"
CTRL_C = "\x03"
CTRL_D = "\x04"
UP = "\x1b[A"


def typed(keys: str, history: Path | None = None) -> str:
    """What one message is when these keys are pressed."""
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        keyboard.send_text(keys)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("prompt_toolkit.output.create_output", lambda **_: DummyOutput())
            return PromptReader(history).read(">>> ")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("one\r", "one"),
        ("one\\\rtwo\r", "one\ntwo"),
        ('"""\rone\r\r/bye\r"""\r', '"""\none\n\n/bye\n"""'),
        ('"""one\\\rtwo"""\r', '"""one\\\ntwo"""'),
        (PASTE.format("one\r\n  two \\\r\nthree") + "\r", "one\n  two \\\nthree"),
        (PASTE.format("one\ntwo\n") + "three\r", "one\ntwo\nthree"),
        (f"one{ALT_ENTER}two\r", "one\ntwo"),
        (f"wrong{CTRL_C}right\r", "right"),
        ("two\x01one \x05!\r", "one two!"),
    ],
)
def test_keys_make_a_message(keys: str, text: str) -> None:
    assert typed(keys) == text


@pytest.mark.parametrize(("keys", "end"), [(CTRL_C, KeyboardInterrupt), (CTRL_D, EOFError)])
def test_with_nothing_typed_they_leave(keys: str, end: type[BaseException]) -> None:
    with pytest.raises(end):
        typed(keys)


def test_what_was_typed_comes_again_in_the_next_conversation(tmp_path: Path) -> None:
    file = tmp_path / "state" / "history"
    typed("first\\\rsecond line\r", file)
    assert typed(f"{UP}\r", file) == "first\nsecond line"
    assert file.stat().st_mode & 0o077 == 0


def test_a_history_that_cannot_be_kept_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "history"):  # a folder, and one that cannot be made
        assert typed("one\r", path) == "one"


def test_a_long_history_loses_its_older_half(tmp_path: Path) -> None:
    entry = b"\n# 2026-01-01 00:00:00.000000\n+%05d\n"
    old = b"".join(entry % number for number in range(MAX_HISTORY_BYTES // len(entry % 0) + 1))
    file = tmp_path / "history"
    file.write_bytes(old)
    typed("newest\r", file)
    kept = file.read_bytes()
    assert kept.startswith(b"\n# ")
    assert kept.endswith(b"+newest\n")
    assert len(kept) < MAX_HISTORY_BYTES // 2 + 100
    assert newer_half(b"one entry without an end " * MAX_HISTORY_BYTES) == b""


@pytest.fixture
def lines() -> Iterator[str]:
    return iter(["one\\", '"""', "\\", '"""'])


def test_a_terminal_that_can_no_more_reads_by_the_same_rules(lines: Iterator[str]) -> None:
    asked: list[str] = []

    def read_line(prompt: str) -> str:
        asked.append(prompt)
        return next(lines)

    assert read_lines(">>> ", read_line) == 'one\n"""'
    assert asked == [">>> ", "... "]


def test_a_window_that_is_no_console_is_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_console(_file: Path | None) -> None:
        raise OSError("no console")

    monkeypatch.setattr(message_input, "_new_session", no_console)
    monkeypatch.setattr("builtins.input", lambda _prompt: "hello")
    assert PromptReader().read(">>> ") == "hello"


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("one", None),
        ("", None),
        ("one\\", "one\n"),
        ("a \\\nb", None),
        ('"""', '"""\n'),
        ('  """one\\', '  """one\\\n'),
        ('"""one"""', None),
        ('what is """', None),
    ],
)
def test_what_is_not_complete_goes_on(text: str, more: str | None) -> None:
    assert continued(text) == more


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  one \n two \n", "one \n two"),
        ('"""\n  one\n\n"""', "  one"),
        ('"""/bye"""', "/bye"),
        ('"""Doc."""\ncode()', '"""Doc."""\ncode()'),
        ('""""""', ""),
    ],
)
def test_quotes_are_taken_off(text: str, message: str) -> None:
    assert message_of(text) == message


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (" /bye ", "/bye"),
        ("/?", "/?"),
        ("/clear now", "/clear"),
        ("/etc/passwd is what?", None),
        ("/* a comment */", None),
        ("/bye\nand more", None),
        ('"""/bye"""', None),
        ("bye", None),
    ],
)
def test_a_command_is_one_word_with_a_slash(text: str, command: str | None) -> None:
    assert command_of(text) == command
