"""What is kept of files and vector stores: the objects of the OpenAI API, and beside them what only the daemon needs."""

from __future__ import annotations

from typing import Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict

from kolosal.retrieval.filters import AttributeValue

Status: TypeAlias = Literal["in_progress", "completed", "cancelled", "failed"]


class FileRecord(TypedDict):
    """A file."""

    id: str
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    text: Literal["content", "text"] | None
    """The kind of its parts that are its text; None: nobody looked for one."""


class ExpiryRule(TypedDict):
    """When a vector store expires."""

    anchor: Literal["last_active_at"]
    days: int


class EmbeddingRecord(TypedDict):
    """What made a vector store's vectors: others cannot be compared with them."""

    engine: str
    model: str
    """The name of its file."""
    width: int


class VectorStoreRecord(TypedDict):
    """A vector store."""

    id: str
    created_at: int
    name: str
    description: NotRequired[str | None]
    metadata: dict[str, str]
    expires_after: ExpiryRule | None
    last_active_at: int
    embedding: EmbeddingRecord | None


class StaticChunking(TypedDict):
    """How long chunks are."""

    max_chunk_size_tokens: int
    chunk_overlap_tokens: int


class IndexingError(TypedDict):
    """Why a file cannot be found in a vector store."""

    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class EntryRecord(TypedDict):
    """A file in a vector store."""

    id: str
    """`vs_…-file-…`"""
    file_id: str
    vector_store_id: str
    filename: str
    created_at: int
    status: Status
    attributes: dict[str, AttributeValue]
    chunking: StaticChunking | None
    """None: the daemon's choice."""
    usage_bytes: int
    last_error: IndexingError | None


class BatchRecord(TypedDict):
    """Files that were added to a vector store together."""

    id: str
    vector_store_id: str
    created_at: int


def entry_id(vector_store_id: str, file_id: str) -> str:
    """The id of a file in a vector store: of each file there is one."""
    return f"{vector_store_id}-{file_id}"


def expires_at(store: VectorStoreRecord) -> int | None:
    """When a vector store expires, if ever."""
    rule = store["expires_after"]
    return None if rule is None else store["last_active_at"] + rule["days"] * 86_400
