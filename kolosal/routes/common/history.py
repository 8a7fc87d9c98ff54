"""What agents leave out of a conversation's history, or put into it that no model here can read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeAlias

import orjson
from pydantic import BeforeValidator, Field

from kolosal.chat.events import parsed_arguments
from kolosal.schema import Message, ToolCall

MAX_ARGUMENT_CHARS = 1_048_576
"""Characters of the arguments of one call that a turn made."""

LowerCase = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
"""Of a role: some clients write `User`."""


def _as_object(arguments: object) -> object:
    if isinstance(arguments, str):
        return parsed_arguments(arguments) or {}
    return arguments if isinstance(arguments, dict) else {}


def _as_text(arguments: object) -> object:
    if isinstance(arguments, str):
        return arguments
    try:
        return orjson.dumps(arguments).decode()
    except TypeError:
        raise ValueError("it is nested too deeply, or holds an integer of more than 64 bits") from None


ArgumentsObject: TypeAlias = Annotated[
    dict[str, Any], BeforeValidator(_as_object, json_schema_input_type=Any)
]
"""Arguments of an earlier call, an object. Whatever else an agent sends (null, nothing, a list, JSON that was cut off) is no
reason to refuse its history, and no arguments."""

ArgumentsText: TypeAlias = Annotated[
    str,
    Field(max_length=MAX_ARGUMENT_CHARS),
    BeforeValidator(_as_text, json_schema_input_type=Any),
]
"""The same as text, where the dialect has it so; engines read what is no object as `{}`."""

_MEDIA = {
    "image": "image", "image_url": "image", "input_image": "image", "image_file": "image",
    "audio": "recording", "audio_url": "recording", "input_audio": "recording",
    "video": "video", "video_url": "video", "input_video": "video",
    "document": "document", "file": "file", "input_file": "file",
}  # fmt: skip
"""Parts that no model here can read, by their types in all dialects."""


def placeholder(kind: str) -> str | None:
    """What stands for a part of an earlier turn; None for types of parts that are not known at all."""
    what = _MEDIA.get(kind)
    return None if what is None else f"[{what} that cannot be shown to this model]"


def current_turn(roles: Sequence[str]) -> int:
    """Where the turn begins that is to be answered: after what the assistant said last, but for a beginning of its answer."""
    return next((i for i in range(len(roles) - 1, 0, -1) if roles[i - 1] == "assistant"), 0)


def with_paired_calls(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The conversation with an id for each call, and with that of its call for each result.

    Calls without an id get one by their place, so that the same history gives the same ids. A result without one answers the
    first call of its tool that waits, or where it names no tool the first of all.
    """
    turns: list[Message] = []
    waiting: list[ToolCall] = []
    n_calls = 0
    for message in messages:
        if message.role == "tool":
            call = _answered(message, waiting)
            if call is not None:
                waiting.remove(call)
                message = replace(message, name=message.name or call.name, tool_call_id=call.id)  # noqa: PLW2901
        elif message.tool_calls:
            calls = tuple(
                call if call.id else replace(call, id=f"call_{number}")
                for number, call in enumerate(message.tool_calls, n_calls + 1)
            )
            n_calls += len(calls)
            waiting += calls
            message = replace(message, tool_calls=calls)  # noqa: PLW2901
        turns.append(message)
    return tuple(turns)


def _answered(result: Message, waiting: Sequence[ToolCall]) -> ToolCall | None:
    if result.tool_call_id:
        return next((call for call in waiting if call.id == result.tool_call_id), None)
    return next((call for call in waiting if not result.name or call.name == result.name), None)
