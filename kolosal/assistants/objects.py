"""The objects of the Assistants API, as they are shown and kept: https://platform.openai.com/docs/api-reference/assistants.

Functions here make new ones. None is ever changed: what follows is another object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypeAlias

from typing_extensions import TypedDict

from kolosal.schema import Usage
from kolosal.store.collections import MESSAGES, STEPS

ObjectTool: TypeAlias = dict[str, Any]
"""As it was given."""

Metadata: TypeAlias = dict[str, str]


class AssistantObject(TypedDict):
    """A model with instructions and tools."""

    id: str
    object: Literal["assistant"]
    created_at: int
    name: str | None
    description: str | None
    model: str
    instructions: str | None
    tools: list[ObjectTool]
    tool_resources: dict[str, Any] | None
    metadata: Metadata
    temperature: float | None
    top_p: float | None
    reasoning_effort: str | None
    response_format: Any


class ThreadObject(TypedDict):
    """A conversation."""

    id: str
    object: Literal["thread"]
    created_at: int
    metadata: Metadata
    tool_resources: dict[str, Any] | None


class MessageText(TypedDict):
    """What a part of a message says."""

    value: str
    annotations: list[dict[str, Any]]


class MessagePart(TypedDict):
    """A part of a message."""

    type: Literal["text"]
    text: MessageText


class IncompleteReason(TypedDict):
    """Why something is not whole."""

    reason: str


class MessageObject(TypedDict):
    """What somebody said in a thread."""

    id: str
    object: Literal["thread.message"]
    created_at: int
    thread_id: str
    role: str
    content: list[MessagePart]
    assistant_id: str | None
    run_id: str | None
    attachments: list[dict[str, Any]]
    metadata: Metadata
    status: Literal["in_progress", "incomplete", "completed"]
    incomplete_details: IncompleteReason | None
    completed_at: int | None
    incomplete_at: int | None


class CalledFunction(TypedDict):
    """The function of a call."""

    name: str
    arguments: str
    output: NotRequired[str | None]


class RunToolCall(TypedDict):
    """A call that a client is to carry out."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class WantedOutputs(TypedDict):
    """The calls whose outputs a run waits for."""

    tool_calls: list[RunToolCall]


class RequiredAction(TypedDict):
    """What a run waits for."""

    type: Literal["submit_tool_outputs"]
    submit_tool_outputs: WantedOutputs


class LastError(TypedDict):
    """Why something failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class RunTokens(TypedDict):
    """True token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_token_details: dict[str, int]
    """`cached_tokens`: prompt tokens whose KV cells were found and not computed again."""


RunStatus: TypeAlias = Literal[
    "queued", "in_progress", "requires_action", "cancelling",
    "cancelled", "failed", "completed", "incomplete", "expired",
]  # fmt: skip


class RunObject(TypedDict):
    """An assistant's turn in a thread."""

    id: str
    object: Literal["thread.run"]
    created_at: int
    thread_id: str
    assistant_id: str
    status: RunStatus
    required_action: RequiredAction | None
    last_error: LastError | None
    expires_at: int | None
    started_at: int | None
    cancelled_at: int | None
    failed_at: int | None
    completed_at: int | None
    incomplete_details: IncompleteReason | None
    model: str
    instructions: str
    tools: list[ObjectTool]
    metadata: Metadata
    usage: RunTokens | None
    temperature: float | None
    top_p: float | None
    max_prompt_tokens: int | None
    max_completion_tokens: int | None
    truncation_strategy: dict[str, Any]
    tool_choice: Any
    parallel_tool_calls: bool
    reasoning_effort: str | None
    response_format: Any


StepStatus: TypeAlias = Literal["in_progress", "cancelled", "failed", "completed", "expired"]


class RunStepObject(TypedDict):
    """A part of a run: a message that it made, or calls, of functions and of `file_search`."""

    id: str
    object: Literal["thread.run.step"]
    created_at: int
    run_id: str
    assistant_id: str
    thread_id: str
    type: Literal["message_creation", "tool_calls"]
    status: StepStatus
    step_details: dict[str, Any]
    last_error: LastError | None
    expired_at: int | None
    cancelled_at: int | None
    failed_at: int | None
    completed_at: int | None
    metadata: Metadata
    usage: RunTokens | None


def text_part(text: str) -> MessagePart:
    """Text without annotations."""
    return {"type": "text", "text": {"value": text, "annotations": []}}


def new_message(
    thread_id: str,
    role: str,
    content: Sequence[MessagePart],
    now: int,
    *,
    metadata: Metadata | None = None,
    attachments: Sequence[dict[str, Any]] = (),
) -> MessageObject:
    """A message that is whole."""
    return {
        "id": MESSAGES.new_id(),
        "object": "thread.message",
        "created_at": now,
        "thread_id": thread_id,
        "role": role,
        "content": [*content],
        "assistant_id": None,
        "run_id": None,
        "attachments": [*attachments],
        "metadata": metadata or {},
        "status": "completed",
        "incomplete_details": None,
        "completed_at": now,
        "incomplete_at": None,
    }


def new_answer(run: RunObject, now: int) -> MessageObject:
    """A message that a run begins to make."""
    message = new_message(run["thread_id"], "assistant", (), now)
    return {
        **message,
        "assistant_id": run["assistant_id"],
        "run_id": run["id"],
        "status": "in_progress",
        "completed_at": None,
    }


def new_step(
    run: RunObject, kind: Literal["message_creation", "tool_calls"], details: Mapping[str, Any], now: int
) -> RunStepObject:
    """A step that a run begins."""
    return {
        "id": STEPS.new_id(),
        "object": "thread.run.step",
        "created_at": now,
        "run_id": run["id"],
        "assistant_id": run["assistant_id"],
        "thread_id": run["thread_id"],
        "type": kind,
        "status": "in_progress",
        "step_details": {"type": kind, kind: details},
        "last_error": None,
        "expired_at": None,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": None,
        "metadata": {},
        "usage": None,
    }


def run_tokens(usage: Usage) -> RunTokens:
    """Counts of one turn."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_token_details": {"cached_tokens": usage.cached_tokens},
    }


def added_tokens(one: RunTokens | None, other: RunTokens | None) -> RunTokens | None:
    """Counts of two turns together."""
    if one is None or other is None:
        return one or other
    cached = (each["prompt_token_details"]["cached_tokens"] for each in (one, other))
    return {
        "prompt_tokens": one["prompt_tokens"] + other["prompt_tokens"],
        "completion_tokens": one["completion_tokens"] + other["completion_tokens"],
        "total_tokens": one["total_tokens"] + other["total_tokens"],
        "prompt_token_details": {"cached_tokens": sum(cached)},
    }
