"""Files as they are kept: their content in pieces, and their text."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import IO, TYPE_CHECKING, Final, cast

from kolosal.documents.records import FileRecord
from kolosal.errors import InvalidRequest, NotFound
from kolosal.files.in_thread import in_thread
from kolosal.retrieval.extraction import Extraction, Format, format_of
from kolosal.retrieval.formats.plain import decode_text
from kolosal.store.collections import FILES
from kolosal.store.store import ObjectStore

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession

PART_BYTES: Final = 1024 * 1024
"""Of a piece of a file: what is in memory at a time while it is written or read."""

_LIMIT_S: Final = 60.0
"""How long the content of a file may take to be read from the disk."""

TEXT_PURPOSES: Final = frozenset({"assistants", "user_data"})
"""Of files that models are to read. Others are kept as they are."""


async def keep_file(
    store: ObjectStore, owner: str | None, extraction: Extraction, upload: IO[bytes], record: FileRecord
) -> FileRecord:
    """Keep a file; one that models are to read with its text.

    Raises:
        InvalidRequest: it has no text, or the owner would have more than it may.
        Overloaded: the database cannot be used.
    """
    text = ""
    if record["purpose"] in TEXT_PURPOSES:
        text = await extraction.text_of(record["filename"], lambda: _all_of(upload))
        head = await in_thread(_head_of, upload)
        plain = format_of(record["filename"], head) is Format.PLAIN
        record = {**record, "text": "content" if plain else "text"}
    async with store.writing(owner) as session:
        await session.insert(FILES, record, purpose=record["purpose"], expires_at=record["expires_at"])
        upload.seek(0)
        while piece := await in_thread(upload.read, PART_BYTES, limit_s=_LIMIT_S):
            await session.documents.keep_part(record["id"], "content", piece)
        if record["text"] == "text":
            data = await in_thread(text.encode)
            for start in range(0, len(data), PART_BYTES):
                await session.documents.keep_part(record["id"], "text", data[start : start + PART_BYTES])
    return record


async def content_of(
    store: ObjectStore, owner: str | None, file_id: str, kind: str = "content"
) -> AsyncIterator[bytes]:
    """A file's content, or its text, in pieces. Between them nothing is held: a client may read slowly."""
    seq = 0
    while True:
        async with store.reading(owner) as session:
            await find_file(session, file_id)
            part = await session.documents.next_part(file_id, kind, seq)
        if part is None:
            return
        seq = part.seq
        yield part.data


async def text_of_file(store: ObjectStore, owner: str | None, file_id: str) -> str:
    """What a model reads of a file.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it has no text, or was not uploaded for that.
    """
    async with store.reading(owner) as session:
        record = await find_file(session, file_id)
    if record["text"] is None:
        raise InvalidRequest(
            f"The file '{file_id}' has the purpose '{record['purpose']}' and cannot be read by models: upload it with"
            " the purpose 'assistants'",
            code="unsupported_file",
        )
    data = b"".join([part async for part in content_of(store, owner, file_id, record["text"])])
    return await in_thread(decode_text, data)


async def find_file(session: StoreSession, file_id: str) -> FileRecord:
    """What is kept of a file.

    Raises:
        NotFound: there is none, or it has expired.
    """
    record = cast("FileRecord", await session.get(FILES, file_id))
    expires_at = record["expires_at"]
    if expires_at is not None and expires_at <= time.time():
        raise NotFound(f"No file found with id '{file_id}'.")
    return record


def _all_of(upload: IO[bytes]) -> bytes:
    upload.seek(0)
    return upload.read()


def _head_of(upload: IO[bytes]) -> bytes:
    upload.seek(0)
    return upload.read(16)
