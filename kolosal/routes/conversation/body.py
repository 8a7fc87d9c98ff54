"""What the conversation paths take: a body, or a query where a browser asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from starlette.requests import Request

from kolosal.conversation.pipeline import Pipeline
from kolosal.conversation.prompts import ASSISTANT
from kolosal.errors import InvalidRequest
from kolosal.http.body import kind_of, parse_object, read_json
from kolosal.http.decode import RequestBody, complaint
from kolosal.routes.common.fields import ModelName
from kolosal.routes.common.history import LowerCase
from kolosal.routes.conversation.errors import field_error

MAX_TEXT_CHARS = 1_048_576
"""Characters of a prompt or of one turn."""

MAX_TURNS = 10_000
"""Turns of a history."""

MAX_NAME_CHARS = 256
"""Characters of the name of a role."""

MAX_KEY_CHARS = 4096
"""Characters of an API key in a query; whether it is one is for others to say."""

_SHOWN_CHARS = 200
"""How much of what was given an error repeats."""

_Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
_Name = Annotated[str, Field(max_length=MAX_NAME_CHARS)]
_Key = Annotated[str, Field(max_length=MAX_KEY_CHARS)]


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that was said before."""

    __pydantic_config__ = ConfigDict(defer_build=True, extra="ignore")

    role: Annotated[Literal["user", "assistant", "system"], LowerCase]
    """Who said it."""
    content: _Text
    """What was said."""


class ConversationBody(RequestBody):
    """A message, with what was said before it."""

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
    """The message."""
    history: Annotated[tuple[Turn, ...], Field(max_length=MAX_TURNS)] | None = None
    """What was said before, oldest first; the daemon keeps nothing of it."""
    improvement: bool | None = None
    """Whether the answer is reviewed and revised, twice, before it is given: three generations in place of one."""
    intermediate_steps: bool | None = None
    """Whether an improved answer comes with its draft and reviews."""
    model: ModelName | None = None
    """An `engine_id`; left out, the default engine, else the first."""
    role: _Name | None = None
    """The system prompt to answer with; `assistant` unless given."""

    def to_pipeline(self, system_prompts: Mapping[str, str]) -> Pipeline:
        """How the answer is made."""
        role = self.role or ASSISTANT
        if role not in system_prompts:
            known = ", ".join(sorted(system_prompts))
            raise field_error(
                "value_error", ("body", "role"), f"role must be one of {known}, not {role!r}", role
            )
        history = [{"role": turn.role, "content": turn.content} for turn in self.history or ()]
        return Pipeline(
            system_prompts,
            history,
            self.prompt,
            improvement=bool(self.improvement),
            show_steps=bool(self.intermediate_steps),
            role=role,
        )


class ChatQuery(BaseModel):
    """A message in a query, for browsers; without a history."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
    """The message."""
    improvement: bool = False
    """As in the body: true, false, 1, 0, yes, no, on or off, in any case."""
    intermediate_steps: bool = False
    """As in the body."""
    model: ModelName | None = None
    """An `engine_id`; left out, the default engine, else the first."""
    role: _Name | None = None
    """The system prompt to answer with; `assistant` unless given."""
    x_api_key: _Key | None = None
    """The key, where one is set; a header does as well."""


class PingQuery(BaseModel):
    """The query of a sign of life."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="ignore")

    x_api_key: _Key | None = None
    """The key, where one is set; a header does as well."""


_QUERY = TypeAdapter(ChatQuery)


async def decode_chat(request: Request) -> ConversationBody:
    """The body of a request, typed."""
    body = await read_json(request)
    try:
        parse_object(body)  # refuses what pydantic's own parser lets through: NaN and lone surrogates
        return ConversationBody.model_validate_json(body)
    except ValidationError as exc:
        raise _refusal(exc, "body") from None
    except InvalidRequest as exc:
        raise field_error("json_invalid", ("body",), exc.message) from None


def decode_query(request: Request) -> ConversationBody:
    """The same from a query."""
    parameters = {name: value for name, value in request.query_params.items() if value or name == "prompt"}
    try:
        query = _QUERY.validate_strings(parameters)
    except ValidationError as exc:
        raise _refusal(exc, "query") from None
    return ConversationBody.model_validate(query.model_dump())


def _refusal(error: ValidationError, where: str) -> InvalidRequest:
    first = error.errors(include_url=False)[0]
    return field_error(
        first["type"], (where, *first["loc"]), complaint(first).message, _shown(first["input"])
    )


def _shown(value: object) -> JsonValue:
    """A value that was refused, cut where it is long."""
    match value:
        case str():
            return value[:_SHOWN_CHARS]
        case bool() | float() | None:
            return value
        case int():
            return value if abs(value) < 2**53 else str(value)[:_SHOWN_CHARS]
        case _:
            return kind_of(value)
