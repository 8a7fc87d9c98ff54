"""The form that a file comes in."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import Field

from kolosal.config.documents import DocumentSettings
from kolosal.http.decode import RequestBody, decode_body

FORM_BYTES = 64 * 1024
"""What a form may have besides its file."""

MAX_NAME_CHARS = 255

Purpose: TypeAlias = Literal["assistants", "batch", "evals", "fine-tune", "user_data", "vision"]


class FileExpiry(RequestBody):
    """When a file is deleted."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class UploadFields(RequestBody):
    """What comes with a file."""

    purpose: Purpose
    """`assistants` and `user_data`: models are to read it, so it must have a text. What has another purpose is kept only."""
    expires_after: FileExpiry | None = None
    """When it is deleted; never unless given. Its fields are `expires_after[anchor]` and `expires_after[seconds]`."""


def upload_fields(form: dict[str, str]) -> UploadFields:
    """The fields of a form."""
    fields: dict[str, Any] = {}
    for name, text in form.items():
        outer, _, inner = name.partition("[")
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else text
        if inner.endswith("]"):
            fields.setdefault(outer, {})[inner[:-1]] = value
        else:
            fields[name] = value
    return decode_body(orjson.dumps(fields), UploadFields)


def upload_limits(settings: DocumentSettings) -> dict[str, int]:
    """How long a body may be on the paths that take files."""
    return dict.fromkeys(("/v1/files", "/files"), settings.max_file_bytes + FORM_BYTES)
