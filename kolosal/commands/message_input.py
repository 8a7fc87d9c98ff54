"""How a message is typed at the prompt of `kolosal run`: one line or several, with editing and a history.

`continued`, `message_of` and `command_of` are the rules, and pure. `PromptReader` reads by them. Knows nothing of models.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kolosal.files.atomic import write_file
from kolosal.files.regular import is_regular, read_regular

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

QUOTES = '"""'
MORE_PROMPT = "... "
MAX_HISTORY_BYTES = 1 << 20
"""A history that has grown beyond this loses its older half when it is next opened."""

_MAX_READ_BYTES = 64 * MAX_HISTORY_BYTES
"""A history that is longer still is none, and stays as it is."""

_COMMAND = re.compile(r"/(?:[A-Za-z]+|\?)(?:\s|$)")
_ENTRY = b"\n# "
"""What an entry of prompt_toolkit's history file begins with: a line with its time."""


def continued(text: str) -> str | None:
    r"""The text to go on with after Enter, where it is not complete: three quotes are open, or it ends with `\`; else None."""
    if text.lstrip().startswith(QUOTES):
        return f"{text}\n" if text.count(QUOTES) % 2 else None
    return f"{text[:-1]}\n" if text.endswith("\\") else None


def message_of(text: str) -> str:
    """What is said to the model: without blank ends, or exactly what stands between three quotes and three quotes."""
    text = text.strip()
    if text.count(QUOTES) == 2 and text.startswith(QUOTES) and text.endswith(QUOTES):
        return text.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
    return text


def command_of(text: str) -> str | None:
    """The command that a line is, such as `/bye`. A path and text of several lines are none."""
    text = text.strip()
    return text.split(maxsplit=1)[0] if "\n" not in text and _COMMAND.match(text) else None


class PromptReader:
    """Reads messages from this process's terminal. What was typed before is in `history_file`, if there is one."""

    def __init__(self, history_file: Path | None = None) -> None:
        self._history_file = history_file
        self._session: PromptSession[str] | None = None

    def read(self, prompt: str) -> str:
        """One message as it was typed.

        Raises:
            EOFError: there is no more.
            KeyboardInterrupt: Ctrl-C, with nothing typed.
        """
        if self._session is None:
            try:
                self._session = _new_session(self._history_file)
            except (OSError, AssertionError):  # on Windows, a window that is no console, such as mintty's
                return read_lines(prompt, input)
        text: str = self._session.prompt(prompt)
        return text


def read_lines(prompt: str, read_line: Callable[[str], str]) -> str:
    """One message, line by line, where the terminal can do no more."""
    text = read_line(prompt)
    while (more := continued(text)) is not None:
        text = more + read_line(MORE_PROMPT)
    return text


def _new_session(history_file: Path | None) -> PromptSession[str]:
    from prompt_toolkit import PromptSession  # noqa: PLC0415 - a tenth of a second, for conversations only
    from prompt_toolkit.output import create_output  # noqa: PLC0415

    return PromptSession(
        multiline=True,  # so that pasted lines stay lines; Enter is ours
        prompt_continuation=MORE_PROMPT,
        key_bindings=_keys(),
        history=_history(history_file),
        enable_suspend=True,
        output=create_output(always_prefer_tty=True),  # answers may be piped
    )


def _keys() -> KeyBindings:
    from prompt_toolkit.application.current import get_app  # noqa: PLC0415
    from prompt_toolkit.document import Document  # noqa: PLC0415
    from prompt_toolkit.filters import Condition  # noqa: PLC0415
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent  # noqa: PLC0415

    keys = KeyBindings()
    something_typed = Condition(lambda: bool(get_app().current_buffer.text))

    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        more = continued(buffer.text)
        if more is None:
            buffer.validate_and_handle()
        else:
            buffer.document = Document(more)

    keys.add("enter", filter=Condition(lambda: not get_app().layout.is_searching))(enter)
    keys.add("escape", "enter")(lambda event: event.current_buffer.newline(copy_margin=False))
    keys.add("c-c", filter=something_typed)(lambda event: event.current_buffer.reset())
    return keys


def _history(file: Path | None) -> History:
    """Kept in the file where that can be read and written, else for this conversation only."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory  # noqa: PLC0415

    if file is None or not _usable_history(file):
        return InMemoryHistory()
    return FileHistory(file)


def _usable_history(file: Path) -> bool:
    """Make the file if need be, for its owner only, and keep it within its bound."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        if not is_regular(file) or not os.access(file, os.R_OK | os.W_OK):
            return False
        if file.stat().st_size > MAX_HISTORY_BYTES:
            write_file(file, newer_half(read_regular(file, _MAX_READ_BYTES)))
    except OSError:
        return False
    return True


def newer_half(history: bytes) -> bytes:
    """The newer entries of a history, half of its bound at most."""
    tail = history[-MAX_HISTORY_BYTES // 2 :]
    return tail[tail.find(_ENTRY) :] if _ENTRY in tail else b""
