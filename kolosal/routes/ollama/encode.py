"""Answers of `/api/generate` and `/api/chat`: the objects, whole ones and those of a stream.

https://github.com/ollama/ollama/blob/main/docs/api.md. All objects of an endpoint have one type, as Ollama's have: a piece of a
stream, its last object and a whole answer differ in which keys are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, NamedTuple, NotRequired, TypeVar

from typing_extensions import TypedDict

from kolosal.chat.events import (
    ChatTurn,
    parsed_arguments,
)
from kolosal.schema import FinishReason, TokenLogprob, TokenLogprobs, ToolCall, Usage

_NS = 1_000_000_000


class OllamaFunctionCall(TypedDict):
    """What to run."""

    index: int
    """The place of the call in its turn."""
    name: str
    arguments: dict[str, Any]
    """Conforms to the tool's parameters."""


class OllamaToolCall(TypedDict):
    """A call the model made."""

    id: str
    function: OllamaFunctionCall


class ThinkingField(TypedDict, total=False):
    """Thoughts."""

    thinking: str
    """What the model thought before it answered."""


class OllamaMessage(ThinkingField):
    """A turn of the assistant."""

    role: Literal["assistant"]
    content: str
    tool_calls: NotRequired[list[OllamaToolCall]]


class OllamaTokenLogprob(TypedDict):
    """A token and the logarithm of the probability that the model gave it."""

    token: str
    logprob: float
    bytes: list[int]


class OllamaLogprob(OllamaTokenLogprob):
    """A token of the answer, with the most probable ones in its place."""

    top_logprobs: list[OllamaTokenLogprob]


class Metrics(TypedDict, total=False):
    """Counts and durations of an answer; in its last object."""

    total_duration: int
    """Nanoseconds, as all durations."""
    load_duration: int
    prompt_eval_count: int
    """Tokens of the prompt."""
    prompt_eval_duration: int
    """Waiting for a place in the batch included."""
    eval_count: int
    """Tokens of the answer."""
    eval_duration: int
    """From the first token to the last: 0 where there was only one."""


class ContextField(TypedDict, total=False):
    """The conversation, for clients that carry it as tokens."""

    context: list[int]
    """The conversation as tokens; in the last object."""


class OptionalFields(TypedDict, total=False):
    """What only some objects have."""

    done_reason: Literal["stop", "length", "load", "unload"]
    """In the last object."""
    logprobs: list[OllamaLogprob]


class ObjectHead(TypedDict):
    """What all objects have."""

    model: str
    """As asked for."""
    created_at: str
    """RFC 3339, in UTC."""


class GenerateResponse(ObjectHead, ThinkingField, OptionalFields, ContextField, Metrics):
    """The answer to a prompt, or a piece of it."""

    response: str
    done: bool
    """Whether this is the last object, or the only one."""


class ChatResponse(ObjectHead, OptionalFields, Metrics):
    """The answer to a chat, or a piece of it."""

    message: OllamaMessage
    done: bool
    """Whether this is the last object, or the only one."""


T = TypeVar("T")


def rfc3339(moment: datetime) -> str:
    """A time as Ollama writes it, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def metrics(usage: Usage, timings: tuple[float, float], load_s: float, total_s: float) -> Metrics:
    """Counts, and durations in nanoseconds; `timings` are the seconds until the first token, and from there on."""
    prompt_s, answer_s = timings
    return {
        "total_duration": int(total_s * _NS),
        "load_duration": int(load_s * _NS),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": int(prompt_s * _NS),
        "eval_count": usage.completion_tokens,
        "eval_duration": int(answer_s * _NS),
    }


class ObjectParts(NamedTuple):
    """What one object holds, whatever the endpoint. A tuple, because one is made for every token of a stream."""

    text: str = ""
    thinking: str = ""
    calls: Sequence[OllamaToolCall] = ()
    done: bool = True
    optional: OptionalFields = OptionalFields()
    context: ContextField = ContextField()
    metrics: Metrics = Metrics()


def generate_object(head: ObjectHead, parts: ObjectParts) -> GenerateResponse:
    """An object of `/api/generate`, where no tools are called."""
    thinking: ThinkingField = {"thinking": parts.thinking} if parts.thinking else {}
    return {
        **head,
        "response": parts.text,
        **thinking,
        "done": parts.done,
        **parts.optional,
        **parts.context,
        **parts.metrics,
    }


def chat_object(head: ObjectHead, parts: ObjectParts) -> ChatResponse:
    """An object of `/api/chat`."""
    message: OllamaMessage = {"role": "assistant", "content": parts.text}
    if parts.thinking:
        message["thinking"] = parts.thinking
    if parts.calls:
        message["tool_calls"] = [*parts.calls]
    return {**head, "message": message, "done": parts.done, **parts.optional, **parts.metrics}


@dataclass(frozen=True, slots=True)
class AnswerEncoder(Generic[T]):
    """Makes the objects of one answer."""

    model: str
    """As the request had it."""
    write: Callable[[ObjectHead, ObjectParts], T]
    """`generate_object` or `chat_object`: the endpoints differ only in where they put what the model wrote."""
    calls_tools: bool = False
    """Whether tools may be called: then blanks around calls are left out of the text."""
    now: Callable[[], datetime] = utc_now

    def loaded(self, reason: Literal["load", "unload"]) -> T:
        """The answer to a request that only loads a model, or frees it."""
        return self.make(ObjectParts(optional={"done_reason": reason}))

    def whole(self, turn: ChatTurn, context: ContextField, counts: Metrics) -> T:
        """The answer to a request that does not stream."""
        made = (call_body(index, call) for index, call in enumerate(turn.calls))
        calls = [body for body in made if body is not None]
        optional: OptionalFields = {"done_reason": done_reason(turn.finish_reason)}
        if turn.logprobs:
            optional["logprobs"] = logprobs_body(turn.logprobs)
        text = turn.text.strip() if calls else turn.text
        return self.make(
            ObjectParts(
                text=text,
                thinking=turn.thinking,
                calls=calls,
                optional=optional,
                context=context,
                metrics=counts,
            )
        )

    def make(self, parts: ObjectParts) -> T:
        """An object made now."""
        return self.write({"model": self.model, "created_at": rfc3339(self.now())}, parts)


def done_reason(reason: FinishReason) -> Literal["length", "stop"]:
    """Why a turn ended, as Ollama says it: a call is a stop."""
    return "length" if reason is FinishReason.LENGTH else "stop"


def call_body(index: int, call: ToolCall) -> OllamaToolCall | None:
    """A call; None where the end of the answer cut its arguments off, as they could be no object."""
    arguments = parsed_arguments(call.arguments)
    if arguments is None:
        return None
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}}


def logprobs_body(logprobs: Sequence[TokenLogprobs]) -> list[OllamaLogprob]:
    """`logprobs`: one entry for each token."""
    return [
        {**_token_logprob(entry.chosen), "top_logprobs": [_token_logprob(each) for each in entry.top]}
        for entry in logprobs
    ]


def _token_logprob(entry: TokenLogprob) -> OllamaTokenLogprob:
    data = entry.data
    return {"token": data.decode(errors="replace"), "logprob": entry.logprob, "bytes": list(data)}
