"""What a response looks like on the wire: its object, its token counts and its errors. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kolosal.chat.events import Ended
from kolosal.errors import ClientError, KolosalError, QueueFull
from kolosal.routes.openai.responses.body import ResponseBody
from kolosal.routes.openai.responses.items import Item, Status, item_json
from kolosal.routes.openai.responses.options import ReasoningConfig, TextConfig
from kolosal.routes.openai.responses.tools import ChoiceInput
from kolosal.schema import Usage


def envelope(body: ResponseBody, response_id: str, created_at: int, model: str) -> dict[str, Any]:
    """The keys of a response that are known when it begins: what was asked for, and null for what there is not."""
    choice = body.tool_choice
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
        "text": (body.text or TextConfig()).shown(),
        "reasoning": (body.reasoning or ReasoningConfig()).shown(),
        "tools": [tool.shown() for tool in body.tools or ()],
        "tool_choice": choice.shown() if isinstance(choice, ChoiceInput) else choice or "auto",
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "truncation": "disabled",
        "store": body.store is not False,
        "background": False,
        "service_tier": "default",
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
        "prompt_cache_retention": body.prompt_cache_retention,
        **dict.fromkeys(_NEVER),
    }


_NEVER = (
    "access_programs",
    "conversation",
    "image",
    "input_transformations",
    "moderation",
    "prompt",
    "prompt_cache_diagnostics",
    "prompt_cache_options",
    "tool_usage",
)
"""Keys of the official response that are always null here."""


def response_json(
    known: dict[str, Any],
    status: Status,
    output: Sequence[Item],
    *,
    ended: Ended | None = None,
    error: KolosalError | None = None,
    completed_at: int | None = None,
) -> dict[str, Any]:
    """A response as it is now; `known` is its `envelope`, `ended` the end of its turn, where that was reached."""
    incomplete = {"reason": "max_output_tokens"} if status is Status.INCOMPLETE else None
    return known | {
        "status": status,
        "completed_at": completed_at if status is Status.COMPLETED else None,
        "error": None if error is None else _error(error),
        "incomplete_details": incomplete,
        "output": [item_json(item) for item in output],
        "usage": None if ended is None else _usage(ended.usage, ended.thinking_tokens),
    }


def _usage(usage: Usage, reasoning_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _error(error: KolosalError) -> dict[str, Any]:
    """An error inside a response; there are only a few codes for that."""
    if isinstance(error, QueueFull):
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if isinstance(error, ClientError) else "server_error"
    return {"code": code, "message": error.message}
