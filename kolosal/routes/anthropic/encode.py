"""Answers of the Messages API: a whole message of content blocks.

https://docs.anthropic.com/en/api/messages. Pure; `stream.py` has the events of a stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, assert_never

from typing_extensions import TypedDict

from kolosal.chat.events import ChatTurn, Ended, parsed_arguments
from kolosal.schema import FinishReason, Usage


class OutputTextBlock(TypedDict):
    """Text."""

    type: Literal["text"]
    text: str


class OutputThinkingBlock(TypedDict):
    """What the model thought before it answered."""

    type: Literal["thinking"]
    thinking: str
    signature: str
    """Always empty: nothing is signed."""


class OutputToolUseBlock(TypedDict):
    """A call the model made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    """Conforms to the tool's `input_schema`."""


ContentBlock: TypeAlias = OutputTextBlock | OutputThinkingBlock | OutputToolUseBlock

StopReason: TypeAlias = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class StopFields(TypedDict):
    """Why a message ended."""

    stop_reason: StopReason | None
    """Null only in the first event of a stream."""
    stop_sequence: str | None
    """The one that was met."""


class MessageUsage(TypedDict):
    """True token counts."""

    input_tokens: int
    """Prompt tokens that were computed."""
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    """Prompt tokens whose KV cells were found."""
    output_tokens: int


class AnthropicMessage(StopFields):
    """A turn of the assistant."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ContentBlock]
    usage: MessageUsage


@dataclass(frozen=True, slots=True)
class MessageEncoder:
    """What a message has besides what the model makes, and how the two come together."""

    id: str
    model: str
    max_tokens: int
    shows_thinking: bool = True
    """Whether the text of thoughts is part of the answer; their blocks always are."""

    def whole(self, turn: ChatTurn) -> AnthropicMessage:
        """The answer to a request that does not stream."""
        content: list[ContentBlock] = []
        if turn.thinking:
            content.append(thinking_block(turn.thinking if self.shows_thinking else ""))
        if turn.text.strip():
            content.append({"type": "text", "text": turn.text})
        content += [
            tool_use_block(call.id, call.name, parsed_arguments(call.arguments) or {}) for call in turn.calls
        ]
        return self.message(content, self.stop_fields(turn), turn.usage)

    def message(self, content: list[ContentBlock], stop: StopFields, usage: Usage) -> AnthropicMessage:
        """A message of these blocks."""
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            **stop,
            "usage": usage_body(usage),
        }

    def stop_fields(self, end: Ended | ChatTurn) -> StopFields:
        """Why the turn ended."""
        return {"stop_reason": self._stop_reason(end), "stop_sequence": end.stop}

    def _stop_reason(self, end: Ended | ChatTurn) -> StopReason:
        match end.finish_reason:
            case FinishReason.TOOL_CALLS:
                return "tool_use"
            case FinishReason.LENGTH if end.usage.completion_tokens < self.max_tokens:
                return "model_context_window_exceeded"
            case FinishReason.LENGTH:
                return "max_tokens"
            case FinishReason.STOP | FinishReason.ABORT:
                return "end_turn" if end.stop is None else "stop_sequence"
            case _:
                assert_never(end.finish_reason)


def usage_body(usage: Usage) -> MessageUsage:
    """The token counts. The prompt is told in two parts: what was computed, and what was found in the KV cache."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def thinking_block(thinking: str = "") -> OutputThinkingBlock:
    """A block of thoughts."""
    return {"type": "thinking", "thinking": thinking, "signature": ""}


def tool_use_block(call_id: str, name: str, arguments: dict[str, Any]) -> OutputToolUseBlock:
    """A block with a call; ids that we made get Anthropic's prefix."""
    shown_id = f"toolu_{call_id.removeprefix('call_')}" if call_id.startswith("call_") else call_id
    return {"type": "tool_use", "id": shown_id, "name": name, "input": arguments}
