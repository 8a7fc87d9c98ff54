"""Paths with the name of an engine, which may hold slashes, written so or as `%2F`."""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote, unquote

from pydantic import TypeAdapter, ValidationError
from starlette.convertors import Convertor, register_url_convertor

from kolosal.engines.parameters import EngineId
from kolosal.http.decode import complaint

_BELOW_AN_ENGINE = ("status", "logs", "estimate", "load", "unload")
"""What paths of an engine end with. A name whose last part is such a word is written with `%2F`."""


class EngineName(Convertor[str]):
    """The part of a path that is an engine's name."""

    regex: ClassVar[str] = rf"[^/]+(?:/(?!(?:{'|'.join(_BELOW_AN_ENGINE)})$)[^/]+)*"

    def convert(self, value: str) -> str:
        """The name; `RequestTarget` left what is no plain letter of a segment encoded."""
        return unquote(value)

    def to_string(self, value: str) -> str:
        """The name as one segment."""
        return quote(value, safe="")


register_url_convertor("engine", EngineName())

LIBRARY_MODEL = "/library/{model:engine}"
"""The path of a model in the library, whose names are such as engines have."""

ENGINE = "/engines/{engine_id:engine}"
"""The path of an engine."""

MODEL = "/models/{model:engine}"
"""The same, as OpenAI's API has it."""

_engine_id: TypeAdapter[str] = TypeAdapter(EngineId)


def checked_name(name: str, kind: TypeAdapter[str] = _engine_id, param: str = "engine_id") -> str:
    """A name out of a path, which may hold what no name may.

    Raises:
        InvalidRequest: it holds that.
    """
    try:
        return kind.validate_python(name)
    except ValidationError as exc:
        raise complaint(exc.errors(include_url=False)[0], param) from None
