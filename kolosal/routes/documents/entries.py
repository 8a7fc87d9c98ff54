"""`/v1/vector_stores/{id}/files`."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from starlette.requests import Request

from kolosal.documents.files import text_of_file
from kolosal.documents.records import entry_id
from kolosal.documents.vector_stores import add_files, find_entry, find_vector_store
from kolosal.http.decode import decode
from kolosal.http.large import in_thread_if_large
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.lists import Deleted, ListQuery, deleted, object_list
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import caller_of
from kolosal.routes.documents.bodies import EntryChanges, EntryFields, attributes_of
from kolosal.routes.documents.encode import POLL_AFTER, EntryList, EntryObject, FileContentPage, entry_object
from kolosal.store.collections import VECTOR_STORE_FILES
from kolosal.store.pages import PageRange


class EntriesQuery(ListQuery):
    """The query of a list of files in a vector store."""

    filter: Literal["in_progress", "completed", "failed", "cancelled"] | None = None
    """Only those that have this status."""

    def part_of(self, vector_store_id: str) -> PageRange:
        """The part of the list, by the ids that its objects are kept under."""
        after = None if self.after is None else entry_id(vector_store_id, self.after)
        before = None if self.before is None else entry_id(vector_store_id, self.before)
        return replace(self.part, after=after, before=before)

    @property
    def columns(self) -> dict[str, str]:
        """What the objects of the list have in common."""
        return {} if self.filter is None else {"status": self.filter}


@Operation(
    group=Group.DOCUMENTS,
    scope=Access.INFERENCE,
    body=EntryFields,
    example={"file_id": "file-0123456789abcdefghijklmn"},
    answer="The file; it is `in_progress` until it is embedded.",
)
async def add_entry(request: Request) -> JsonResponse[EntryObject]:
    """Put a file into a vector store. One that is in it already is embedded again."""
    entry, caller = (await decode(request, EntryFields)).to_entry(), caller_of(request)
    async with caller.services.store.writing(caller.key_id) as session:
        store = await find_vector_store(session, request.path_params["vector_store_id"], lock=True)
        [made] = await add_files(session, store, [entry])
    caller.services.indexer.wake()
    return JsonResponse(entry_object(made), headers=POLL_AFTER)


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, query=EntriesQuery, answer="A page of files.")
async def list_entries(request: Request) -> JsonResponse[EntryList]:
    """The files of a vector store."""
    query, caller = read_query(request, EntriesQuery), caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        store_id = (await find_vector_store(session, request.path_params["vector_store_id"]))["id"]
        page = await session.page(
            VECTOR_STORE_FILES, query.part_of(store_id), vector_store_id=store_id, **query.columns
        )
    return JsonResponse(object_list(page, entry_object))


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, answer="The file.")
async def show_entry(request: Request) -> JsonResponse[EntryObject]:
    """One file of a vector store."""
    caller = caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        found = await find_entry(session, *_ids(request))
    return JsonResponse(entry_object(found), headers=POLL_AFTER)


@Operation(
    group=Group.DOCUMENTS,
    scope=Access.INFERENCE,
    body=EntryChanges,
    example={"attributes": {"year": 2026}},
    answer="The file as it is now.",
)
async def change_entry(request: Request) -> JsonResponse[EntryObject]:
    """Give a file of a vector store other attributes."""
    body, caller = await decode(request, EntryChanges), caller_of(request)
    async with caller.services.store.writing(caller.key_id) as session:
        found = await find_entry(session, *_ids(request), lock=True)
        found["attributes"] = attributes_of(body.attributes)
        await session.replace(VECTOR_STORE_FILES, found)
    return JsonResponse(entry_object(found))


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, answer="`deleted: true`.")
async def delete_entry(request: Request) -> JsonResponse[Deleted]:
    """Take a file out of a vector store. The file itself stays."""
    caller, (vector_store_id, file_id) = caller_of(request), _ids(request)
    async with caller.services.store.writing(caller.key_id) as session:
        found = await find_entry(session, vector_store_id, file_id, lock=True)
        await session.delete(VECTOR_STORE_FILES, found["id"])
    return JsonResponse(deleted(file_id, "vector_store.file.deleted"))


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, answer="The text.")
async def entry_content(request: Request) -> JsonResponse[FileContentPage]:
    """The text of a file of a vector store, as it is searched."""
    caller, (vector_store_id, file_id) = caller_of(request), _ids(request)
    async with caller.services.store.reading(caller.key_id) as session:
        await find_entry(session, vector_store_id, file_id)
    text = await text_of_file(caller.services.store, caller.key_id, file_id)
    page: FileContentPage = {
        "object": "vector_store.file_content.page",
        "data": [{"type": "text", "text": text}],
        "has_more": False,
        "next_page": None,
    }
    return await in_thread_if_large(len(text), lambda: JsonResponse(page))


def _ids(request: Request) -> tuple[str, str]:
    return request.path_params["vector_store_id"], request.path_params["file_id"]
