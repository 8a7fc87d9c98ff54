"""Parse, don't check: the one way from a request body to a typed value.

Owns the wording of every complaint about a field: one sentence that says what was given and what is allowed, with the
dotted path of the field as `param`. Input is repeated in part only. Nothing but `ClientError`s leaves this module,
whatever the bytes are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, core_schema
from starlette.requests import Request

from kolosal.errors import InvalidRequest
from kolosal.http.body import kind_of, parse_object, read_json
from kolosal.http.large import in_thread_if_large

_SHOWN_CHARS = 60
"""How much of a given value a message repeats."""

_MAX_WHOLE_FLOATS = 1000
"""Numbers of one body that are taken for integers."""

UNION_ERROR = "union"
"""`custom_error_type` of a `Discriminator`; its `custom_error_message` says what the field must be."""

_DEPTH_HINT = (
    ". If PowerShell made this body, ConvertTo-Json cut it off: it turns what is deeper than 2 levels into"
    " strings unless told more, e.g. -Depth 10"
)


class RequestBody(BaseModel):
    """Base of the bodies that routes decode. Strict: no "5" for 5, no true for 1; an integer may stand for a number."""

    model_config = ConfigDict(defer_build=True, strict=True, frozen=True, extra="ignore")

    MISSING: ClassVar[str | None] = None
    """What to say when a required field is missing, where the protocol has a sentence of its own."""
    BOUNDS: ClassVar[type | None] = None
    """A type whose bounds, defaults and docstrings hold for the fields of the same name that have none."""
    DEFAULTS: ClassVar[Mapping[str, object]] = {}
    """What fields are where they are left out, for those of which neither the field nor `BOUNDS` says it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Null is as good as leaving a field out, in every body and in every part of one: many clients write all fields."""
        schema = handler(source)
        inner: Any = handler.resolve_ref_schema(schema)
        while inner["type"] != "model-fields":
            inner = inner["schema"]
        for field in inner["fields"].values():
            if field["schema"]["type"] == "default" and field["schema"]["schema"]["type"] != "nullable":
                field["schema"] = _null_is_default(field["schema"])
        return schema


def _null_is_default(schema: Any) -> Any:
    """A field's schema with null among its values, which then is the default."""

    def filled(value: object) -> object:
        if value is not None:
            return value
        return schema["default_factory"]() if "default_factory" in schema else schema["default"]

    nullable = core_schema.nullable_schema(schema["schema"])
    return schema | {"schema": core_schema.no_info_after_validator_function(filled, nullable)}


B = TypeVar("B", bound=RequestBody)
T = TypeVar("T")


async def decode(request: Request, body_type: type[B]) -> B:
    """The body of a request, typed.

    Raises:
        InvalidRequest: it is no JSON object, or a field is missing, mistyped or out of range.
    """
    body = await read_json(request)
    return await in_thread_if_large(len(body), partial(decode_body, body, body_type))


def decode_body(body: bytes, body_type: type[B]) -> B:
    """As `decode`, from UTF-8 bytes."""
    parse_object(body)  # refuses what pydantic's own parser lets through: NaN, infinities and lone surrogates
    try:
        return _validated(body_type.model_validate_json, body)
    except ValidationError as exc:
        first = _first(exc)
        if first["type"] == "missing" and len(first["loc"]) == 1 and body_type.MISSING is not None:
            raise InvalidRequest(body_type.MISSING, param=str(first["loc"][0])) from None
        raise complaint(first) from None


def decode_fields(adapter: TypeAdapter[T], fields: Mapping[str, Any], prefix: str = "") -> T:
    """A typed value from fields that were already parsed from JSON; `prefix` is where they stood in the body.

    Raises:
        InvalidRequest: a field is unknown, mistyped or out of range.
    """
    try:  # as JSON, where an array is a tuple and a string an enum's value also in strict mode
        return _validated(partial(adapter.validate_json, strict=True), pydantic_core.to_json(dict(fields)))
    except ValidationError as exc:
        raise complaint(_first(exc), prefix) from None


def complaint(error: ErrorDetails, prefix: str = "") -> InvalidRequest:
    """One of pydantic's errors in our words."""
    # Tags of unions look like <this>; they are no part of the request.
    path = [str(part)[:_SHOWN_CHARS] for part in error["loc"] if not str(part).startswith(("<", "[key]"))]
    name = prefix + ".".join(path)
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    if kind == "json_invalid":
        return InvalidRequest(f"Invalid JSON: {context.get('error', 'it cannot be parsed')}")
    if kind == "missing":
        return InvalidRequest(f"Missing required field: {name}", param=name)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return InvalidRequest(f"Unknown field: {name}", param=name)
    wanted = _be(error["msg"]) if kind == UNION_ERROR else _WANTED.get(kind)
    if wanted is None:
        return InvalidRequest(f"{name} is not valid: {error['msg'][:200]}", param=name)
    hint = _DEPTH_HINT if kind in _CONTAINERS and isinstance(given, str) else ""
    return InvalidRequest(f"{name} must {wanted(context)}, not {_shown(given, kind)}{hint}", param=name)


def _validated(validate: Callable[[bytes], T], body: bytes) -> T:
    """What `validate` makes of a body. Where it wants an integer 12.0 is one: in JSON numbers are all of one kind."""
    try:
        return validate(body)
    except ValidationError as exc:
        if exc.error_count() > _MAX_WHOLE_FLOATS:
            raise
        places = [error["loc"] for error in exc.errors(include_url=False) if _is_whole_float(error)]
        if not places:
            raise
        value = pydantic_core.from_json(body)
        for place in places:
            with suppress(LookupError, TypeError):  # a place that cannot be found stays as it is
                _make_integer(value, place)
        return validate(pydantic_core.to_json(value))


def _is_whole_float(error: ErrorDetails) -> bool:
    """Larger ones are not told apart from their neighbours, so they may be what no integer may be here."""
    given = error["input"]
    return (
        error["type"] == "int_type" and isinstance(given, float) and given.is_integer() and abs(given) < 2**53
    )


def _make_integer(value: Any, place: tuple[int | str, ...]) -> None:
    """Write the number in this place as an integer. Tags of unions are no part of the place."""
    *parents, last = [part for part in place if not str(part).startswith("<")]
    for part in parents:
        value = value[part]
    value[last] = int(value[last])


def _first(error: ValidationError) -> ErrorDetails:
    return error.errors(include_url=False)[0]


def _shown(given: object, kind: str) -> str:
    """A value as it was given, shortened; of arrays and objects only what they are."""
    if kind in _LENGTHS and isinstance(given, str | list | tuple | dict):
        return str(len(given))
    match given:
        case str():
            text = json.dumps(given[:_SHOWN_CHARS], ensure_ascii=False)
        case int() | float() | None:
            text = pydantic_core.to_json(given).decode()
        case _:
            text = kind_of(given)
    return text if len(text) <= _SHOWN_CHARS + 2 else text[:_SHOWN_CHARS] + "…"


def _plain(bound: float) -> str:
    """A bound as people write it: 2 and not 2.0."""
    return str(int(bound) if float(bound).is_integer() else bound)


def _be(what: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda _: f"be {what}"


_CONTAINERS = frozenset({"list_type", "tuple_type", "dict_type", "model_type", "dataclass_type"})

_LENGTHS = frozenset({"too_short", "too_long", "string_too_long"})
"""Errors about a length, which is shown in place of the value."""

_WANTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "int_type": _be("an integer"),
    "float_type": _be("a number"),
    "bool_type": _be("true or false"),
    "string_type": _be("a string"),
    "list_type": _be("an array"),
    "tuple_type": _be("an array"),
    "dict_type": _be("an object"),
    "model_type": _be("an object"),
    "dataclass_type": _be("an object"),
    "finite_number": _be("a finite number"),
    "int_parsing_size": _be("a smaller number"),
    "literal_error": lambda c: f"be {str(c['expected']).replace('True', 'true').replace('False', 'false')}",
    "enum": lambda c: f"be {c['expected']}",
    "greater_than_equal": lambda c: f"be at least {_plain(c['ge'])}",
    "greater_than": lambda c: f"be greater than {_plain(c['gt'])}",
    "less_than_equal": lambda c: f"be at most {_plain(c['le'])}",
    "less_than": lambda c: f"be less than {_plain(c['lt'])}",
    "string_too_short": lambda c: f"have at least {c['min_length']} character(s)",
    "string_too_long": lambda c: f"have at most {c['max_length']} characters",
    "too_short": lambda c: f"have at least {c['min_length']} element(s)",
    "too_long": lambda c: f"have at most {c['max_length']} elements",
    "string_pattern_mismatch": lambda c: f"match {c['pattern']}",
}
