"""Types of fields that requests of several dialects have, and fields that take several kinds of JSON value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import BaseModel, Discriminator, Field, Tag

from kolosal.engines.ipc.calls import MAX_TEXT_CHARS
from kolosal.engines.parameters import LATEST, MAX_ENGINE_ID_CHARS
from kolosal.http.decode import UNION_ERROR

ModelName: TypeAlias = Annotated[str, Field(max_length=MAX_ENGINE_ID_CHARS + len(LATEST))]
"""An `engine_id`, perhaps with a tag. Whether there is such an engine the registry knows."""

Text: TypeAlias = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
"""A text to tokenise, embed or rank."""

Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
"""Labels that a client puts on an object, and that come back with it."""

STRING = Tag("<string>")
ARRAY = Tag("<array>")
OBJECT = Tag("<object>")
NUMBER = Tag("<number>")
BOOLEAN = Tag("<boolean>")


def by_kind(wanted: str) -> Discriminator:
    """Of a union that has at most one member for each kind of JSON value, each with its tag from above:

        Annotated[Annotated[str, STRING] | Annotated[tuple[Part, ...], ARRAY], by_kind("a string or an array of parts")]

    Errors name the field of the member that was meant, without the tag. A value of any other kind is told that the field
    must be `wanted`.
    """
    return Discriminator(_tag, custom_error_type=UNION_ERROR, custom_error_message=wanted)


def _tag(value: object) -> str | None:
    match value:
        case bool():
            return BOOLEAN.tag
        case str():
            return STRING.tag
        case int() | float():
            return NUMBER.tag
        case list() | tuple():
            return ARRAY.tag
        case dict() | BaseModel():
            return OBJECT.tag
        case _:
            return None


def by_type(*known: str) -> Discriminator:
    """Of a union of objects by their `type`: a member for each of these, tagged `<type>`, and one tagged `<other>`."""

    def tag(value: object) -> str:
        kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
        return f"<{kind}>" if isinstance(kind, str) and kind in known else "<other>"

    return Discriminator(tag)


def as_tuple(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The strings of a `StringOrStrings` field."""
    return (value,) if isinstance(value, str) else value or ()


StringOrStrings: TypeAlias = Annotated[
    Annotated[str, STRING] | Annotated[tuple[str, ...], ARRAY], by_kind("a string or an array of strings")
]
