"""The collections of the store: what each one's objects are called, and how their ids begin. Imports nothing heavy."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass

_ALPHANUMERIC = string.ascii_letters + string.digits
_ID_CHARS = 24
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Collection:
    """Objects of one kind."""

    table: str
    noun: str
    """What one is called in errors."""
    prefix: str
    """How its id begins, the separator included."""

    def new_id(self) -> str:
        """An id that nobody can guess: the prefix, and 24 letters and digits."""
        chosen = (_ALPHANUMERIC[byte % len(_ALPHANUMERIC)] for byte in secrets.token_bytes(_ID_CHARS))
        return self.prefix + "".join(chosen)


ASSISTANTS = Collection("assistants", "assistant", "asst_")
THREADS = Collection("threads", "thread", "thread_")
MESSAGES = Collection("messages", "message", "msg_")
RUNS = Collection("runs", "run", "run_")
STEPS = Collection("steps", "run step", "step_")
FILES = Collection("files", "file", "file-")
VECTOR_STORES = Collection("vector_stores", "vector store", "vs_")
FILE_BATCHES = Collection("file_batches", "file batch", "vsfb_")
VECTOR_STORE_FILES = Collection("vector_store_files", "vector store file", "")
"""Its ids are made of those of both: `vs_…-file-…`."""
SESSIONS = Collection("sessions", "session", "")
"""Its ids are UUIDs."""
EXCHANGES = Collection("exchanges", "exchange", "exchange_")


def can_be_id(text: str) -> bool:
    """Whether a text that a client sent can be the id of anything. What cannot is not looked for: a database may refuse it."""
    return _ID.fullmatch(text) is not None
