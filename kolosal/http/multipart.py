"""Forms with a file: the one way from a request to the file and the fields beside it.

The file goes to the disk as it comes, so that one of any length takes a megabyte of memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from kolosal.errors import InvalidRequest, UnsupportedMediaType
from kolosal.http.body import refuse_compressed

_MAX_FIELDS = 16
_MAX_FIELD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class UploadForm:
    """A file, which whoever has this closes in the end, and the fields beside it."""

    file: UploadFile
    fields: dict[str, str]


async def read_upload(request: Request) -> UploadForm:
    """The form in the body of a request, with its file in the field `file`.

    Raises:
        UnsupportedMediaType: it is another kind of body.
        InvalidRequest: it is no form, or has no file.
    """
    refuse_compressed(request)
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaType(
            f"A file comes as multipart/form-data, with the fields file and purpose, not as {kind[:60]!r}"
        )
    parser = MultiPartParser(
        request.headers,
        request.stream(),
        max_files=1,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as exc:
        raise InvalidRequest(f"The form in the body is not valid: {exc.message}") from None
    file = form.get("file")
    if not isinstance(file, UploadFile):
        await form.close()
        reason = "Missing required field: file" if file is None else "file must be a file, with a filename"
        raise InvalidRequest(reason, param="file")
    return UploadForm(file, {name: value for name, value in form.items() if isinstance(value, str)})
