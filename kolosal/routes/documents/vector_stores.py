"""`/v1/vector_stores`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request

from kolosal.documents.records import VectorStoreRecord, expires_at
from kolosal.documents.search import search
from kolosal.documents.vector_stores import NewEntry, add_files, find_vector_store, keep_vector_store
from kolosal.http.body import read_json
from kolosal.http.decode import decode, decode_body
from kolosal.http.disconnect import unless_disconnected
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.lists import Deleted, ListQuery, deleted, object_list
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import caller_of
from kolosal.routes.documents.bodies import SearchBody, VectorStoreBody, VectorStoreChanges, chunking_of
from kolosal.routes.documents.encode import (
    SearchResults,
    VectorStoreList,
    VectorStoreObject,
    search_results,
    vector_store_object,
)
from kolosal.store.collections import VECTOR_STORES

if TYPE_CHECKING:  # heavy
    from kolosal.store.session import StoreSession


@Operation(
    group=Group.DOCUMENTS,
    scope=Access.INFERENCE,
    body=VectorStoreBody,
    example={"name": "Handbook"},
    answer="The vector store; it is `in_progress` until its files are embedded.",
)
async def create_vector_store(request: Request) -> JsonResponse[VectorStoreObject]:
    """Make a vector store, and put files into it."""
    body = decode_body(await read_json(request) or b"{}", VectorStoreBody)
    caller, now, chunking = caller_of(request), int(time.time()), chunking_of(body.chunking_strategy)
    record: VectorStoreRecord = {
        "id": VECTOR_STORES.new_id(),
        "created_at": now,
        "name": body.name or "",
        "description": body.description,
        "metadata": body.metadata or {},
        "expires_after": None if body.expires_after is None else body.expires_after.to_record(),
        "last_active_at": now,
        "embedding": None,
    }
    entries = [NewEntry(file_id, {}, chunking) for file_id in body.file_ids or ()]
    async with caller.services.store.writing(caller.key_id) as session:
        await session.insert(VECTOR_STORES, record, expires_at=expires_at(record))
        if entries:
            await add_files(session, record, entries)
        shown = await _shown(session, record)
    caller.services.indexer.wake()
    return JsonResponse(shown)


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, query=ListQuery, answer="A page of vector stores.")
async def list_vector_stores(request: Request) -> JsonResponse[VectorStoreList]:
    """The vector stores of this API key."""
    query, caller = read_query(request, ListQuery), caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        page = await session.page(VECTOR_STORES, query.part)
        ids = [row.id for row in page.rows]
        counts = await session.documents.status_counts("vector_store_id", ids)
        sizes = await session.documents.vector_bytes(ids)
    shown = object_list(
        page,
        lambda data: vector_store_object(
            cast("VectorStoreRecord", data), counts[data["id"]], sizes.get(data["id"], 0)
        ),
    )
    return JsonResponse(shown)


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, answer="The vector store.")
async def show_vector_store(request: Request) -> JsonResponse[VectorStoreObject]:
    """One vector store."""
    caller = caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        record = await find_vector_store(session, request.path_params["vector_store_id"])
        return JsonResponse(await _shown(session, record))


@Operation(
    group=Group.DOCUMENTS,
    scope=Access.INFERENCE,
    body=VectorStoreChanges,
    example={"name": "Handbook of 2026"},
    answer="The vector store as it is now.",
)
async def change_vector_store(request: Request) -> JsonResponse[VectorStoreObject]:
    """Change a vector store. What is left out stays."""
    body, caller = await decode(request, VectorStoreChanges), caller_of(request)
    changes: dict[str, Any] = {}
    if "name" in body.model_fields_set:
        changes["name"] = body.name or ""
    if "metadata" in body.model_fields_set:
        changes["metadata"] = body.metadata or {}
    if "expires_after" in body.model_fields_set:
        changes["expires_after"] = None if body.expires_after is None else body.expires_after.to_record()
    async with caller.services.store.writing(caller.key_id) as session:
        found = await find_vector_store(session, request.path_params["vector_store_id"], lock=True)
        record = cast("VectorStoreRecord", {**found, **changes})
        await keep_vector_store(session, record)
        return JsonResponse(await _shown(session, record))


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, answer="`deleted: true`.")
async def delete_vector_store(request: Request) -> JsonResponse[Deleted]:
    """Delete a vector store. Its files stay."""
    caller, vector_store_id = caller_of(request), request.path_params["vector_store_id"]
    async with caller.services.store.writing(caller.key_id) as session:
        await session.delete(VECTOR_STORES, vector_store_id)
    return JsonResponse(deleted(vector_store_id, "vector_store.deleted"))


@Operation(
    group=Group.DOCUMENTS,
    scope=Access.INFERENCE,
    body=SearchBody,
    example={"query": "How many days of holiday are there?"},
    answer="The chunks that are nearest to the query, the nearest first.",
)
async def search_vector_store(request: Request) -> JsonResponse[SearchResults]:
    """Find what a vector store says of something."""
    query = (await decode(request, SearchBody)).to_query()
    caller = caller_of(request)
    services = caller.services
    place = caller.place()
    try:
        work = search(
            services.store,
            services.registry,
            services.settings.documents,
            caller.key_id,
            request.path_params["vector_store_id"],
            query,
        )
        found = await unless_disconnected(request, work)
    finally:
        place.leave()
    return JsonResponse(search_results(query.texts, found))


async def _shown(session: StoreSession, record: VectorStoreRecord) -> VectorStoreObject:
    store_id = record["id"]
    counts = await session.documents.status_counts("vector_store_id", [store_id])
    sizes = await session.documents.vector_bytes([store_id])
    return vector_store_object(record, counts[store_id], sizes.get(store_id, 0))
