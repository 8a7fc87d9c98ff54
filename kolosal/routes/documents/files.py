"""`/v1/files`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast
from urllib.parse import quote

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from typing_extensions import TypedDict

from kolosal.documents.files import content_of, find_file, keep_file
from kolosal.documents.records import FileRecord
from kolosal.errors import InvalidRequest, PayloadTooLarge
from kolosal.http.multipart import UploadForm, read_upload
from kolosal.http.responses import JsonResponse
from kolosal.routes.common.lists import Deleted, ListQuery, ObjectList, deleted, object_list
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.query import read_query
from kolosal.routes.common.services import caller_of
from kolosal.routes.documents.upload import MAX_NAME_CHARS, UploadFields, upload_fields
from kolosal.store.collections import FILES
from kolosal.store.expiry import drop_expired


class FileObject(TypedDict):
    """A file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None


class FileList(ObjectList):
    """A page of files."""

    data: list[FileObject]


class FilesQuery(ListQuery):
    """The query of a list of files."""

    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    """Files of one page."""
    purpose: Annotated[str, Field(max_length=32)] | None = None
    """Only those of this purpose."""


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, form=UploadFields, answer="The file.")
async def upload_file(request: Request) -> JsonResponse[FileObject]:
    """Keep a file. One that models are to read is read at once: one without text is refused with the reason."""
    caller = caller_of(request)
    await drop_expired(caller.services.store, caller.key_id)
    place = caller.place()
    try:
        form = await read_upload(request)
        try:
            record = _new_record(form, caller.services.settings.documents.max_file_bytes)
            kept = await keep_file(
                caller.services.store, caller.key_id, caller.services.extraction, form.file.file, record
            )
        finally:
            await form.file.close()
    finally:
        place.leave()
    return JsonResponse(file_object(kept))


def _new_record(form: UploadForm, max_bytes: int) -> FileRecord:
    fields, size, name = upload_fields(form.fields), form.file.size or 0, form.file.filename or ""
    if size > max_bytes:
        raise PayloadTooLarge(f"The file has {size} bytes: at most {max_bytes} are allowed", param="file")
    if size == 0:
        raise InvalidRequest("The file is empty", param="file")
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise InvalidRequest(
            f"The name of the file must have 1 to {MAX_NAME_CHARS} characters, not {len(name)}", param="file"
        )
    now = int(time.time())
    return {
        "id": FILES.new_id(),
        "bytes": size,
        "created_at": now,
        "expires_at": None if fields.expires_after is None else now + fields.expires_after.seconds,
        "filename": name,
        "purpose": fields.purpose,
        "text": None,
    }


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, query=FilesQuery, answer="A page of files.")
async def list_files(request: Request) -> JsonResponse[FileList]:
    """The files of this API key."""
    query, caller = read_query(request, FilesQuery), caller_of(request)
    await drop_expired(caller.services.store, caller.key_id)
    columns = {} if query.purpose is None else {"purpose": query.purpose}
    async with caller.services.store.reading(caller.key_id) as session:
        page = await session.page(FILES, query.part, **columns)
    return JsonResponse(object_list(page, file_object))


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, answer="The file.")
async def show_uploaded_file(request: Request) -> JsonResponse[FileObject]:
    """One file."""
    caller = caller_of(request)
    async with caller.services.store.reading(caller.key_id) as session:
        record = await find_file(session, request.path_params["file_id"])
    return JsonResponse(file_object(record))


@Operation(group=Group.DOCUMENTS, scope=Access.INFERENCE, answer="`deleted: true`.")
async def delete_file(request: Request) -> JsonResponse[Deleted]:
    """Delete a file, also in all vector stores."""
    caller, file_id = caller_of(request), request.path_params["file_id"]
    async with caller.services.store.writing(caller.key_id) as session:
        await session.delete(FILES, file_id)
    return JsonResponse(deleted(file_id, "file"))


@Operation(
    group=Group.DOCUMENTS,
    scope=Access.INFERENCE,
    answer="The content, byte by byte.",
    media_type="application/octet-stream",
)
async def file_content(request: Request) -> Response:
    """What was uploaded."""
    caller, file_id = caller_of(request), request.path_params["file_id"]
    store = caller.services.store
    async with store.reading(caller.key_id) as session:
        record = await find_file(session, file_id)
    name = quote(record["filename"], safe="")
    headers = {
        "content-length": str(record["bytes"]),
        "content-disposition": f"attachment; filename*=UTF-8''{name}",
        "x-content-type-options": "nosniff",
    }
    content = content_of(store, caller.key_id, file_id)
    return StreamingResponse(content, media_type="application/octet-stream", headers=headers)


def file_object(record: Mapping[str, Any]) -> FileObject:
    """A file as it is shown."""
    shown = {
        name: record[name] for name in ("id", "bytes", "created_at", "expires_at", "filename", "purpose")
    }
    return cast("FileObject", {**shown, "object": "file", "status": "processed", "status_details": None})
