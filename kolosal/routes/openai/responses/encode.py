"""What a response looks like on the wire: its object, its token counts and its errors. Pure.

The keys are those of the API reference, "The response object".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from pydantic import JsonValue
from typing_extensions import TypedDict

from kolosal.chat.events import Ended
from kolosal.errors import (
    ClientError,
    ContextLengthExceeded,
    ErrorFacts,
    KolosalError,
    QueueFull,
    QuotaExceeded,
)
from kolosal.routes.openai.responses.body import ResponseBody
from kolosal.routes.openai.responses.items import OutputItem
from kolosal.routes.openai.responses.options import ReasoningConfig, TextFormat, Verbosity
from kolosal.routes.openai.responses.tools import ChoiceInput
from kolosal.routes.openai.template_kwargs import ReasoningEffort
from kolosal.schema import Usage

ResponseStatus: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
"""How far a response has come."""


class InputTokensDetails(TypedDict):
    """A part of `input_tokens`."""

    cached_tokens: int
    """Prompt tokens whose KV cells were found and not computed again."""
    cache_write_tokens: int


class OutputTokensDetails(TypedDict):
    """A part of `output_tokens`."""

    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """True token counts."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(ErrorFacts):
    """Why a response failed; `code` is `rate_limit_exceeded`, `context_length_exceeded`, `invalid_prompt` or `server_error`."""

    message: str


class IncompleteDetails(TypedDict):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"]


class ResponseText(TypedDict):
    """`text`, with its defaults."""

    format: dict[str, JsonValue]
    verbosity: Verbosity


class ResponseReasoning(TypedDict):
    """`reasoning`, with its defaults."""

    effort: ReasoningEffort | None
    summary: None


class ResponseHead(TypedDict):
    """What is known of a response when it begins: what was asked for, and null for what there never is."""

    id: str
    """For `previous_response_id`, and to look at it again."""
    object: Literal["response"]
    created_at: int
    """Unix time in seconds."""
    model: str
    instructions: str | None
    previous_response_id: str | None
    metadata: dict[str, str]
    max_output_tokens: int | None
    max_tool_calls: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    text: ResponseText
    reasoning: ResponseReasoning
    tools: list[dict[str, JsonValue]]
    """Those that the model hears of."""
    tool_choice: str | dict[str, JsonValue]
    parallel_tool_calls: bool
    truncation: Literal["disabled"]
    store: bool
    background: Literal[False]
    service_tier: Literal["default"]
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    access_programs: None
    conversation: None
    image: None
    input_transformations: None
    moderation: None
    prompt: None
    prompt_cache_diagnostics: None
    prompt_cache_options: None
    tool_usage: None


class ResponseObject(ResponseHead):
    """A response: what came of it, and what was asked for."""

    status: ResponseStatus
    completed_at: int | None
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    output: Sequence[OutputItem]
    usage: ResponseUsage | None


def response_head(body: ResponseBody, response_id: str, created_at: int, model: str) -> ResponseHead:
    """A response that begins."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "model": model,
        "instructions": body.instructions,
        "previous_response_id": body.previous_response_id,
        "metadata": body.metadata or {},
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "top_logprobs": body.top_logprobs or 0,
        "text": _text(body),
        "reasoning": {"effort": (body.reasoning or ReasoningConfig()).effort, "summary": None},
        "tools": [tool.echo() for tool in body.tools or () if not tool.left_out],
        "tool_choice": _tool_choice(body),
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "truncation": "disabled",
        "store": body.store is not False,
        "background": False,
        "service_tier": "default",
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
        "prompt_cache_retention": body.prompt_cache_retention,
        "access_programs": None,
        "conversation": None,
        "image": None,
        "input_transformations": None,
        "moderation": None,
        "prompt": None,
        "prompt_cache_diagnostics": None,
        "prompt_cache_options": None,
        "tool_usage": None,
    }


def _text(body: ResponseBody) -> ResponseText:
    text_format = (body.text and body.text.format) or TextFormat(type="text")
    verbosity = (body.text and body.text.verbosity) or "medium"
    return {"format": text_format.model_dump(exclude_none=True, by_alias=True), "verbosity": verbosity}


def _tool_choice(body: ResponseBody) -> str | dict[str, JsonValue]:
    choice = body.tool_choice
    return choice.model_dump(exclude_none=True) if isinstance(choice, ChoiceInput) else choice or "auto"


def response_object(
    head: ResponseHead,
    status: ResponseStatus,
    output: Sequence[OutputItem],
    *,
    ended: Ended | None = None,
    error: KolosalError | None = None,
    completed_at: int | None = None,
) -> ResponseObject:
    """A response as it is now; `ended` is the end of its turn, where that was reached."""
    return {
        **head,
        "status": status,
        "completed_at": completed_at if status == "completed" else None,
        "error": None if error is None else _error(error),
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": output,
        "usage": None if ended is None else _usage(ended.usage, ended.thinking_tokens),
    }


def _usage(usage: Usage, reasoning_tokens: int) -> ResponseUsage:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _error(error: KolosalError) -> ResponseError:
    """An error inside a response; there are only a few codes for that."""
    if isinstance(error, QueueFull | QuotaExceeded):
        return {"code": "rate_limit_exceeded", "message": error.message}
    if isinstance(error, ContextLengthExceeded):
        return {"code": "context_length_exceeded", "message": error.message, **error.facts}
    if isinstance(error, ClientError):
        return {"code": "invalid_prompt", "message": error.message}
    return {"code": "server_error", "message": error.message}
