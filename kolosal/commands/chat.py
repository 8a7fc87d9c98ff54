"""A conversation in the terminal: read a message, show the answer as it is made, again.

Owns the messages of the conversation and the commands that begin with a slash. Knows nothing of daemons, engines or
files: it is given a model's name and a client.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass

from kolosal.commands.answers import Body
from kolosal.commands.client import DaemonClient
from kolosal.commands.errors import CommandError
from kolosal.commands.message_input import PromptReader, command_of, message_of
from kolosal.commands.text import printable
from kolosal.config.load import process_environment, state_folder
from kolosal.config.settings import Settings
from kolosal.sampling import MAX_TOKENS_LIMIT

PROMPT = ">>> "

HELP = """\
/clear        forget the conversation (a system prompt stays)
/help         show this
/bye          leave (so do Ctrl-D, and Ctrl-C where nothing is typed)
\\ and Enter   another line; so does Alt-Enter
\"""           begins and ends a message of several lines, which is sent as it is
Up, Ctrl-R    what was typed before
Ctrl-C        stop the answer that is being made, or take back what is typed
"""


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where messages come from and text goes. `read` raises EOFError at the end and KeyboardInterrupt on Ctrl-C."""

    read: Callable[[str], str]
    write: Callable[[str], None]
    note: Callable[[str], None]
    """For what is not part of an answer."""


class Chat:
    """One conversation with one model. An answer that was stopped stays in it as far as it came."""

    def __init__(self, client: DaemonClient, model: str, system: str | None, options: Body) -> None:
        self._client = client
        self._model = model
        # the API's own default is 128 tokens, which cuts an answer short
        self._options: Body = {"max_tokens": MAX_TOKENS_LIMIT, **options}
        self._system: list[Body] = [{"role": "system", "content": system}] if system else []
        self.messages: list[Body] = [*self._system]

    async def answer(self, text: str, write: Callable[[str], None]) -> None:
        """Ask, and write the answer piece by piece. When it fails the question is taken back."""
        self.messages.append({"role": "user", "content": text})
        pieces: list[str] = []
        try:
            async with aclosing(self._client.chat(self._model, self.messages, self._options)) as stream:
                async for piece in stream:
                    pieces.append(piece)
                    write(printable(piece))
        except CommandError:
            self.messages.pop()
            raise
        except BaseException:  # stopped: what has been said stays said
            self._keep(pieces)
            raise
        self._keep(pieces)

    def clear(self) -> None:
        """Forget all but the system prompt."""
        self.messages = [*self._system]

    def _keep(self, pieces: list[str]) -> None:
        self.messages.append({"role": "assistant", "content": "".join(pieces)})


def converse(chat: Chat, terminal: Terminal, run: Callable[[Coroutine[None, None, None]], None]) -> None:
    """Talk until the user leaves. `run` completes one answer and raises KeyboardInterrupt when Ctrl-C stopped it."""
    terminal.note("Type a message; /help shows the commands.\n")
    while True:
        try:
            text = terminal.read(PROMPT)
        except (EOFError, KeyboardInterrupt):
            terminal.write("\n")
            return
        command = command_of(text)
        if command == "/bye":
            return
        if command is not None:
            _obey(command, chat, terminal)
        elif message := message_of(text):
            _answer(message, chat, terminal, run)


def _answer(
    message: str, chat: Chat, terminal: Terminal, run: Callable[[Coroutine[None, None, None]], None]
) -> None:
    try:
        run(chat.answer(message, terminal.write))
    except KeyboardInterrupt:
        terminal.note(" [stopped]")
    except CommandError as exc:
        terminal.note(f"Error: {exc}")
    terminal.write("\n")


def _obey(command: str, chat: Chat, terminal: Terminal) -> None:
    match command:
        case "/clear":
            chat.clear()
            terminal.note("The conversation is forgotten.\n")
        case "/help" | "/?":
            terminal.note(HELP)
        case unknown:
            terminal.note(f"There is no command {unknown}; /help shows those there are.\n")


def this_terminal() -> Terminal:
    """The terminal of this process. Answers go to stdout, all else to stderr, so that answers can be piped."""

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def note(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    folder = state_folder(Settings(), process_environment())
    return Terminal(PromptReader(None if folder is None else folder / "history").read, write, note)
