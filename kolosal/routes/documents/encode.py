"""Vector stores, their files and batches, as they are shown."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypedDict

from kolosal.documents.records import (
    BatchRecord,
    ExpiryRule,
    IndexingError,
    StaticChunking,
    Status,
    VectorStoreRecord,
    expires_at,
)
from kolosal.retrieval.chunks import ChunkingStrategy
from kolosal.retrieval.citations import FoundText
from kolosal.retrieval.filters import AttributeValue
from kolosal.routes.common.lists import ObjectList

POLL_AFTER = {"openai-poll-after-ms": "200"}
"""When the OpenAI clients ask again for what is in progress; they wait a second unless told."""


class FileCounts(TypedDict):
    """How many files have each status."""

    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class VectorStoreObject(TypedDict):
    """A vector store."""

    id: str
    object: Literal["vector_store"]
    created_at: int
    name: str
    description: str | None
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["expired", "in_progress", "completed"]
    expires_after: ExpiryRule | None
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]


class VectorStoreList(ObjectList):
    """A page of vector stores."""

    data: list[VectorStoreObject]


class StaticChunkingObject(TypedDict):
    """How a file was cut into chunks, or will be."""

    type: Literal["static"]
    static: StaticChunking


class EntryObject(TypedDict):
    """A file in a vector store."""

    id: str
    object: Literal["vector_store.file"]
    created_at: int
    vector_store_id: str
    status: Status
    usage_bytes: int
    last_error: IndexingError | None
    attributes: dict[str, AttributeValue]
    chunking_strategy: StaticChunkingObject


class EntryList(ObjectList):
    """A page of files of a vector store."""

    data: list[EntryObject]


class FileBatchObject(TypedDict):
    """Files that were added together."""

    id: str
    object: Literal["vector_store.files_batch"]
    created_at: int
    vector_store_id: str
    status: Status
    file_counts: FileCounts


class FoundContent(TypedDict):
    """A text that was found."""

    type: Literal["text"]
    text: str


class SearchResult(TypedDict):
    """A chunk that was found."""

    file_id: str
    filename: str
    score: float
    attributes: Mapping[str, AttributeValue]
    content: list[FoundContent]


class SearchResults(TypedDict):
    """What was found, the best first."""

    object: Literal["vector_store.search_results.page"]
    search_query: list[str]
    data: list[SearchResult]
    has_more: Literal[False]
    next_page: None


class FileContentPage(TypedDict):
    """The text of a file, as it was searched."""

    object: Literal["vector_store.file_content.page"]
    data: list[FoundContent]
    has_more: Literal[False]
    next_page: None


def file_counts(counts: Mapping[str, int]) -> FileCounts:
    """Counts with all statuses."""
    return {
        "in_progress": counts.get("in_progress", 0),
        "completed": counts.get("completed", 0),
        "failed": counts.get("failed", 0),
        "cancelled": counts.get("cancelled", 0),
        "total": sum(counts.values()),
    }


def vector_store_object(
    record: VectorStoreRecord, counts: Mapping[str, int], usage_bytes: int
) -> VectorStoreObject:
    """A vector store as it is shown."""
    end = expires_at(record)
    shown = file_counts(counts)
    status: Literal["expired", "in_progress", "completed"] = (
        "in_progress" if shown["in_progress"] else "completed"
    )
    return {
        "id": record["id"],
        "object": "vector_store",
        "created_at": record["created_at"],
        "name": record["name"],
        "description": record.get("description"),
        "usage_bytes": usage_bytes,
        "file_counts": shown,
        "status": "expired" if end is not None and end <= time.time() else status,
        "expires_after": record["expires_after"],
        "expires_at": end,
        "last_active_at": record["last_active_at"],
        "metadata": record["metadata"],
    }


def entry_object(record: Mapping[str, Any]) -> EntryObject:
    """A file in a vector store as it is shown."""
    usual = ChunkingStrategy()
    static: StaticChunking = {
        "max_chunk_size_tokens": usual.max_chunk_size_tokens,
        "chunk_overlap_tokens": usual.chunk_overlap_tokens,
    }
    if record["chunking"] is not None:
        static = record["chunking"]
    return {
        "id": record["file_id"],
        "object": "vector_store.file",
        "created_at": record["created_at"],
        "vector_store_id": record["vector_store_id"],
        "status": record["status"],
        "usage_bytes": record["usage_bytes"],
        "last_error": record["last_error"],
        "attributes": record["attributes"],
        "chunking_strategy": {"type": "static", "static": static},
    }


def batch_object(record: BatchRecord, counts: Mapping[str, int]) -> FileBatchObject:
    """A batch as it is shown. It has failed where none of its files could be read."""
    shown = file_counts(counts)
    status: Status = "completed"
    if shown["in_progress"]:
        status = "in_progress"
    elif shown["cancelled"]:
        status = "cancelled"
    elif shown["total"] and shown["failed"] == shown["total"]:
        status = "failed"
    return {
        "id": record["id"],
        "object": "vector_store.files_batch",
        "created_at": record["created_at"],
        "vector_store_id": record["vector_store_id"],
        "status": status,
        "file_counts": shown,
    }


def search_results(queries: Sequence[str], found: Sequence[FoundText]) -> SearchResults:
    """What was found, as it is shown."""
    data: list[SearchResult] = [
        {
            "file_id": each.file_id,
            "filename": each.filename,
            "score": each.score,
            "attributes": each.attributes,
            "content": [{"type": "text", "text": each.text}],
        }
        for each in found
    ]
    return {
        "object": "vector_store.search_results.page",
        "search_query": [*queries],
        "data": data,
        "has_more": False,
        "next_page": None,
    }
