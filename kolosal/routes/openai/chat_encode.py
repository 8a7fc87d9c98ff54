"""What a chat completion looks like on the wire: whole answers and chunks.

Pure: from turns and their events to JSON. The types are the API reference's ("The chat completion object", "The chat
completion chunk object"), with `timings` from llama-server and `reasoning_content` from DeepSeek.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from kolosal.chat.events import (
    CallBegin,
    CallEnd,
    CallPiece,
    ChatEvent,
    ChatTurn,
    Ended,
    TextPiece,
    ThinkingPiece,
)
from kolosal.http.sse import DONE, data_frame
from kolosal.routes.openai.custom_tools import InputReader, input_of
from kolosal.routes.openai.encode import (
    ChosenLogprob,
    CountTokens,
    Stopwatch,
    Timings,
    TokenCounts,
    answer_id,
    timings,
    token_counts,
    token_logprobs,
    usage_of_prompt,
)
from kolosal.schema import FinishReason, TokenLogprobs, ToolCall, Usage


class ChatFunctionCall(TypedDict):
    """What is to be run."""

    name: str
    arguments: str
    """JSON text of an object that conforms to the tool's schema."""


class ChatCustomCall(TypedDict):
    """What a custom tool is given."""

    name: str
    input: str
    """Text that conforms to the tool's format."""


class ChatToolCall(TypedDict):
    """A call the model made."""

    id: str
    """To be given back as `tool_call_id` with the result."""
    type: Literal["function", "custom"]
    function: NotRequired[ChatFunctionCall]
    """Of the type `function`."""
    custom: NotRequired[ChatCustomCall]
    """Of the type `custom`."""


class ChatCompletionMessage(TypedDict):
    """A turn of the assistant."""

    role: Literal["assistant"]
    content: str | None
    """The text; null where there are only calls."""
    refusal: None
    reasoning_content: NotRequired[str]
    """What the model thought before it answered."""
    tool_calls: NotRequired[list[ChatToolCall]]


class ChatLogprobs(TypedDict):
    """Log-probabilities, one entry for each token of the text."""

    content: list[ChosenLogprob]
    refusal: None


class ChatChoice(TypedDict):
    """One answer to a chat."""

    index: int
    message: ChatCompletionMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletionHead(TypedDict):
    """What a whole answer and each chunk of a stream begin with."""

    id: str
    created: int
    """Unix time in seconds."""
    model: str
    """As it was asked for."""
    system_fingerprint: str
    """Changes when the daemon's version, the model or a loading parameter does: then a seed's text may change, too."""


class ChatCompletion(ChatCompletionHead):
    """The answer to a chat."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: TokenCounts
    timings: Timings


class FunctionCallDelta(TypedDict):
    """A piece of a call's function."""

    name: NotRequired[str]
    arguments: str


class CustomCallDelta(TypedDict):
    """A piece of a custom tool's input."""

    name: NotRequired[str]
    input: str


class ToolCallDelta(TypedDict):
    """A piece of a call; all but its place and its arguments or input come with the first one."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function", "custom"]]
    function: NotRequired[FunctionCallDelta]
    custom: NotRequired[CustomCallDelta]


class ChatDelta(TypedDict, total=False):
    """What a chunk adds to a turn."""

    role: Literal["assistant"]
    content: str
    reasoning_content: str
    tool_calls: list[ToolCallDelta]


class ChatChunkChoice(TypedDict):
    """A piece of one answer."""

    index: int
    delta: ChatDelta
    finish_reason: FinishReason | None
    logprobs: NotRequired[ChatLogprobs]


class ChatCompletionChunk(ChatCompletionHead):
    """One event of a stream."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: NotRequired[TokenCounts | None]
    timings: NotRequired[Timings]


def chat_completion(
    model: str,
    fingerprint: str,
    turns: Sequence[ChatTurn],
    stopwatch: Stopwatch,
    *,
    logprobs: bool,
    custom: frozenset[str] = frozenset(),
) -> ChatCompletion:
    """The answer to a request that does not stream; `custom` are the names of its custom tools."""
    usage = usage_of_prompt([turn.usage for turn in turns])
    return {
        "id": answer_id("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [
            {
                "index": index,
                "message": _message(turn, custom),
                "logprobs": _logprobs(turn.logprobs) if logprobs else None,
                "finish_reason": turn.finish_reason,
            }
            for index, turn in enumerate(turns)
        ],
        "usage": token_counts(usage, sum(turn.thinking_tokens for turn in turns)),
        "timings": timings(turns[0].usage, stopwatch(0)),
    }


def _message(turn: ChatTurn, custom: frozenset[str]) -> ChatCompletionMessage:
    message: ChatCompletionMessage = {
        "role": "assistant",
        "content": None if turn.calls and not turn.text else turn.text,
        "refusal": None,
    }
    if turn.thinking:
        message["reasoning_content"] = turn.thinking
    if turn.calls:
        message["tool_calls"] = [_call(call, custom) for call in turn.calls]
    return message


def _call(call: ToolCall, custom: frozenset[str]) -> ChatToolCall:
    if call.name in custom:
        given: ChatCustomCall = {"name": call.name, "input": input_of(call.arguments)}
        return {"id": call.id, "type": "custom", "custom": given}
    function: ChatFunctionCall = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _logprobs(entries: Sequence[TokenLogprobs]) -> ChatLogprobs:
    return {"content": token_logprobs(entries, spell_control=True), "refusal": None}


async def chat_frames(
    model: str,
    fingerprint: str,
    events: AsyncIterator[tuple[int, ChatEvent]],
    stopwatch: Stopwatch,
    *,
    choices: int,
    include_usage: bool,
    custom: frozenset[str] = frozenset(),
    counts: CountTokens | None = None,
) -> AsyncGenerator[bytes, None]:
    """The frames of a stream: each choice's empty first chunk, its pieces, its empty last chunk; usage; `[DONE]`.

    With `counts` each piece has `timings`.
    """

    def told(index: int) -> Timings | None:
        return None if counts is None else timings(counts(index), stopwatch(index))

    head = _chunk_head(model, fingerprint, include_usage=include_usage)
    usages: dict[int, Usage] = {}
    thinking_tokens = 0
    deltas = [_Deltas(custom) for _ in range(choices)]
    for index in range(choices):
        delta: ChatDelta = {"role": "assistant", "content": ""}
        yield _chunk(head, {"index": index, "delta": delta, "finish_reason": None})
    async for index, event in events:
        match event:
            case Ended(finish_reason=reason):
                usages[index] = event.usage
                thinking_tokens += event.thinking_tokens
                yield _chunk(
                    head, {"index": index, "delta": {"content": ""}, "finish_reason": reason}, told(index)
                )
            case CallEnd():
                pass  # the next piece says so
            case _:
                added = deltas[index].of(event)
                if added is None:
                    continue
                choice: ChatChunkChoice = {"index": index, "delta": added, "finish_reason": None}
                if isinstance(event, TextPiece) and event.logprobs:
                    choice["logprobs"] = _logprobs(event.logprobs)
                yield _chunk(head, choice, told(index))
    if include_usage:
        head["usage"] = token_counts(usage_of_prompt([*usages.values()]), thinking_tokens)
        head["timings"] = timings(usages[0], stopwatch(0))
        yield data_frame(head)
    yield DONE


def _chunk_head(model: str, fingerprint: str, *, include_usage: bool) -> ChatCompletionChunk:
    """What all chunks of a stream have; the `usage` is in the last one."""
    created = int(time.time())
    head: ChatCompletionChunk = {
        "id": answer_id("chatcmpl-"),
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [],
    }
    if include_usage:
        head["usage"] = None
    return head


def _chunk(head: ChatCompletionChunk, choice: ChatChunkChoice, told: Timings | None = None) -> bytes:
    more = {} if told is None else {"timings": told}
    return data_frame({**head, "choices": [choice], **more})


class _Deltas:
    """Makes the pieces of one turn."""

    def __init__(self, custom: frozenset[str]) -> None:
        self._custom = custom
        self._inputs: dict[int, InputReader] = {}
        """Of the calls of custom tools."""

    def of(self, event: TextPiece | ThinkingPiece | CallBegin | CallPiece) -> ChatDelta | None:
        """What an event adds; None where that is nothing."""
        match event:
            case TextPiece():
                return {"content": event.text}
            case ThinkingPiece():
                return {"reasoning_content": event.text}
            case CallBegin():
                return {"tool_calls": [self._begin(event)]}
            case CallPiece() if (reader := self._inputs.get(event.index)) is not None:
                text = reader.push(event.arguments)
                return {"tool_calls": [{"index": event.index, "custom": {"input": text}}]} if text else None
            case CallPiece():
                return {"tool_calls": [{"index": event.index, "function": {"arguments": event.arguments}}]}

    def _begin(self, event: CallBegin) -> ToolCallDelta:
        if event.name in self._custom:
            self._inputs[event.index] = InputReader()
            given: CustomCallDelta = {"name": event.name, "input": ""}
            return {"index": event.index, "id": event.id, "type": "custom", "custom": given}
        function: FunctionCallDelta = {"name": event.name, "arguments": ""}
        return {"index": event.index, "id": event.id, "type": "function", "function": function}
