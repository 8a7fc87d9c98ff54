"""`/v1/vector_stores/{id}/file_batches`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from starlette.requests import Request

from kolosal.documents.records import BatchRecord
from kolosal.documents.vector_stores import add_files, find_vector_store
from kolosal.http.decode import decode
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.lists import object_list
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import caller_of
from kolosal.routes.documents.bodies import FileBatchBody
from kolosal.routes.documents.encode import (
    POLL_AFTER,
    EntryList,
    FileBatchObject,
    batch_object,
    entry_object,
)
from kolosal.routes.documents.entries import EntriesQuery
from kolosal.store.collections import FILE_BATCHES, VECTOR_STORE_FILES

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession


@Operation(
    group=Group.DOCUMENTS,
    scope=Access.INFERENCE,
    body=FileBatchBody,
    example={"file_ids": ["file-0123456789abcdefghijklmn"]},
    answer="The batch; it is `in_progress` until all its files are embedded.",
)
async def create_file_batch(request: Request) -> JsonResponse[FileBatchObject]:
    """Put several files into a vector store."""
    entries = (await decode(request, FileBatchBody)).to_entries()
    caller = caller_of(request)
    async with caller.services.store.writing(caller.key_id) as session:
        store = await find_vector_store(session, request.path_params["vector_store_id"], lock=True)
        record: BatchRecord = {
            "id": FILE_BATCHES.new_id(),
            "vector_store_id": store["id"],
            "created_at": int(time.time()),
        }
        await session.insert(FILE_BATCHES, record, vector_store_id=store["id"])
        await add_files(session, store, entries, record["id"])
        shown = await _shown(session, record)
    caller.services.indexer.wake()
    return JsonResponse(shown, headers=POLL_AFTER)


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, answer="The batch.")
async def show_file_batch(request: Request) -> JsonResponse[FileBatchObject]:
    """One batch."""
    caller = caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        return JsonResponse(await _shown(session, await _find(session, request)), headers=POLL_AFTER)


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, answer="The batch as it is now.")
async def cancel_file_batch(request: Request) -> JsonResponse[FileBatchObject]:
    """Embed no more files of a batch. Those that are embedded stay."""
    caller = caller_of(request)
    async with caller.services.store.writing(caller.key_id) as session:
        record = await _find(session, request)
        await session.documents.cancel_entries(record["id"])
        return JsonResponse(await _shown(session, record))


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, query=EntriesQuery, answer="A page of files.")
async def list_batch_files(request: Request) -> JsonResponse[EntryList]:
    """The files of a batch."""
    query, caller = read_query(request, EntriesQuery), caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        record = await _find(session, request)
        part = query.part_of(record["vector_store_id"])
        page = await session.page(VECTOR_STORE_FILES, part, batch_id=record["id"], **query.columns)
    return JsonResponse(object_list(page, entry_object))


async def _find(session: StoreSession, request: Request) -> BatchRecord:
    parameters = request.path_params
    store = await find_vector_store(session, parameters["vector_store_id"])
    return cast(
        "BatchRecord",
        await session.get(FILE_BATCHES, parameters["batch_id"], vector_store_id=store["id"]),
    )


async def _shown(session: StoreSession, record: BatchRecord) -> FileBatchObject:
    counts = await session.documents.status_counts("batch_id", [record["id"]])
    return batch_object(record, counts[record["id"]])
