"""What ends a command: each error is one line for the user, and exit status 1."""

from __future__ import annotations


class CommandError(Exception):
    """The command cannot do what it was asked to. The message is for the user."""


class DaemonUnreachable(CommandError):
    """Nothing answers at the address."""

    def __init__(self, url: str) -> None:
        super().__init__(f"No daemon answers at {url}: start one with `kolosal serve`")


class ApiError(CommandError):
    """The daemon answered with an error; the message is its own."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
