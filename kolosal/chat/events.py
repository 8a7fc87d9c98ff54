"""What an assistant's turn is made of: text, thoughts and tool calls, as they come.

`ChatParser` makes these of a model's text; every dialect encodes them in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from kolosal.schema import FinishReason, TokenLogprobs, ToolCall, Usage


@dataclass(frozen=True, slots=True)
class TextPiece:
    """More of the answer's text; may be empty where only log-probabilities came."""

    text: str
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True)
class ThinkingPiece:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A tool call begins. `index` counts the calls of the turn from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallPiece:
    """More of a call's arguments, as JSON text. The pieces of one call, joined, are a JSON object."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A tool call is complete."""

    index: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The turn is over: always the last event, exactly one."""

    finish_reason: FinishReason
    """`TOOL_CALLS` where a call was made: what was cut off after it never was."""
    usage: Usage
    stop: str | None = None
    """The stop string that ended it."""
    thinking_tokens: int = 0
    """How many of the usage's `completion_tokens` were thoughts: all before the first one of the answer, markers included. What the
    OpenAI API calls reasoning tokens."""


ChatEvent: TypeAlias = TextPiece | ThinkingPiece | CallBegin | CallPiece | CallEnd | Ended


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """A whole turn: the sum of its events."""

    text: str
    thinking: str
    calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    usage: Usage
    stop: str | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    thinking_tokens: int = 0


def parsed_arguments(arguments: str) -> dict[str, Any] | None:
    """The arguments of a call; None where they are no JSON object: the answer's end cut them off, or a surrogate is alone,
    which could not be written out again."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


CallKey: TypeAlias = tuple[str, bytes]
"""What makes two calls the same: the tool, and its parameters as JSON with sorted keys."""


def call_key(tool: str, parameters: Mapping[str, Any]) -> CallKey:
    """What makes two calls the same."""
    return tool, orjson.dumps(dict(parameters), option=orjson.OPT_SORT_KEYS)


def whole_turn(events: Sequence[ChatEvent]) -> ChatTurn:
    """The sum of all events of a turn."""
    text: list[str] = []
    thinking: list[str] = []
    logprobs: list[TokenLogprobs] = []
    calls: list[tuple[CallBegin, list[str]]] = []
    for event in events:
        match event:
            case TextPiece():
                text.append(event.text)
                logprobs += event.logprobs
            case ThinkingPiece():
                thinking.append(event.text)
            case CallBegin():
                calls.append((event, []))
            case CallPiece():
                calls[event.index][1].append(event.arguments)
            case Ended():
                made = tuple(ToolCall(begin.id, begin.name, "".join(pieces)) for begin, pieces in calls)
                return ChatTurn(
                    "".join(text),
                    "".join(thinking),
                    made,
                    event.finish_reason,
                    event.usage,
                    event.stop,
                    tuple(logprobs),
                    event.thinking_tokens,
                )
    raise ValueError("a turn without an end")
