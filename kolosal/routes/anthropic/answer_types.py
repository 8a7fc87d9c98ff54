"""The JSON of a message, for the document. Tests compare it with what is really sent."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict


class AnsweredText(TypedDict):
    """Text."""

    type: Literal["text"]
    text: str


class AnsweredThinking(TypedDict):
    """What the model thought before it answered."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class AnsweredCall(TypedDict):
    """A call the model made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    """Conforms to the tool's `input_schema`."""


class MessageUsage(TypedDict):
    """True token counts."""

    input_tokens: int
    """Prompt tokens that were computed."""
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    """Prompt tokens whose KV cells were found."""
    output_tokens: int


class MessageAnswer(TypedDict):
    """A turn of the assistant."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[AnsweredText | AnsweredThinking | AnsweredCall]
    stop_reason: Literal[
        "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
    ]
    stop_sequence: str | None
    """The one that was met."""
    usage: MessageUsage
