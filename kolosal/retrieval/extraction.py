"""The text of a file, whatever its format. Text is decoded in a thread; what has to be parsed is parsed by a process of its own
with little time and memory, because parsers of strangers' files fail in ways that threads do not survive.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from enum import StrEnum
from importlib.util import find_spec
from pathlib import PurePath
from typing import Final

from kolosal.engines.worker.sandbox.process import LimitedProcess, ProcessAnswer, ProcessFailed, command_for
from kolosal.errors import InvalidRequest
from kolosal.files.in_thread import in_thread
from kolosal.retrieval.formats.plain import decode_text
from kolosal.retrieval.formats.process import LIMITS, MAX_WALL_S

_MAX_AT_ONCE: Final = 2
"""Files that are read at a time. Others wait."""

_START_S: Final = 25.0
"""Until a process is ready, on a busy disk."""

_SHOWN_CHARS: Final = 80


class Format(StrEnum):
    """What a file is read as."""

    PLAIN = "plain"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"


_BY_SUFFIX: Final = {
    ".html": Format.HTML,
    ".htm": Format.HTML,
    ".xhtml": Format.HTML,
    ".pdf": Format.PDF,
    ".docx": Format.DOCX,
}

_NEEDS: Final = {Format.PDF: "pypdf", Format.DOCX: "docx"}
"""Packages of the extra `documents`."""


def format_of(name: str, data: bytes) -> Format:
    """What a file is by its name; of one whose name does not say it, by how it begins."""
    found = _BY_SUFFIX.get(PurePath(name).suffix.lower())
    if found is None and data.startswith(b"%PDF-"):
        return Format.PDF
    return found or Format.PLAIN


class Extraction:
    """Reads files, a few at a time. Used on one event loop."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_MAX_AT_ONCE)

    async def text_of(self, name: str, read: Callable[[], bytes]) -> str:
        """The text of a file; `read` gives its content, in a thread.

        Raises:
            InvalidRequest: it has none, cannot be read, or takes too much; `code` says whether its kind is at fault
                (`unsupported_file`) or this one (`invalid_file`).
            OSError: no process can be started.
        """
        async with self._turns:  # before the content is in memory
            data = await in_thread(read)
            kind = format_of(name, data)
            if kind is Format.PLAIN:
                return await _decoded(name, data)
            package = _NEEDS.get(kind)
            if package is not None and find_spec(package) is None:
                reason = (
                    f"a {kind} file is read with the extra 'documents' only: pip install 'kolosal[documents]'"
                )
                raise _refused(name, reason, code="unsupported_file")
            return await _parsed(name, kind, data)


async def _decoded(name: str, data: bytes) -> str:
    try:
        return await in_thread(decode_text, data)
    except ValueError as exc:
        reason = f"{exc}. Text is read, and HTML, PDF and Word documents (.docx)"
        raise _refused(name, reason, code="unsupported_file") from None


async def _parsed(name: str, kind: Format, data: bytes) -> str:
    limits = LIMITS[kind]
    command = command_for(f"kolosal.retrieval.formats.{kind}")
    process = LimitedProcess(command, limits, "reads files", max_wall_s=MAX_WALL_S)
    try:
        answer = await in_thread(_ask, process, data, limit_s=_START_S + MAX_WALL_S)
    except BaseException:
        process.kill()  # nobody waits for it any more; `_ask` ends it
        raise
    if answer.error is not None:
        raise _refused(name, answer.error, code="invalid_file")
    return answer.text


def _ask(process: LimitedProcess, data: bytes) -> ProcessAnswer:
    try:
        [answer] = process.ask({"renew": True, "data": base64.b64encode(data).decode()}, 1)
    except ProcessFailed as exc:
        return ProcessAnswer(error=str(exc))
    finally:
        process.end()
    return answer


def _refused(name: str, reason: str, *, code: str) -> InvalidRequest:
    return InvalidRequest(
        f"The file {name[:_SHOWN_CHARS]!r} cannot be read: {reason}", param="file", code=code
    )
