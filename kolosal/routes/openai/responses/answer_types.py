"""The JSON of the Responses API, for the document. Tests compare it with what is really sent."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict

from kolosal.routes.openai.encode import ChosenLogprob

ItemState = Literal["in_progress", "completed", "incomplete"]


class InputTextShown(TypedDict):
    """Text that was given."""

    type: Literal["input_text"]
    text: str


class OutputTextShown(TypedDict):
    """Text of the model."""

    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]]
    """Always empty."""
    logprobs: list[ChosenLogprob]
    """Empty unless they were asked for."""


class RefusalShown(TypedDict):
    """A refusal that an earlier answer had."""

    type: Literal["refusal"]
    refusal: str


class MessageShown(TypedDict):
    """What somebody said."""

    id: str
    type: Literal["message"]
    role: Literal["user", "assistant", "system", "developer"]
    status: ItemState
    content: list[InputTextShown | OutputTextShown | RefusalShown]


class SummaryShown(TypedDict):
    """A summary that was given with thoughts; none is made here."""

    type: Literal["summary_text"]
    text: str


class ThoughtShown(TypedDict):
    """Thoughts, as text."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningShown(TypedDict):
    """What the model thought."""

    id: str
    type: Literal["reasoning"]
    summary: list[SummaryShown]
    content: list[ThoughtShown]
    status: ItemState


class CallShown(TypedDict):
    """A function that the model called."""

    id: str
    type: Literal["function_call"]
    call_id: str
    """To be given back in the `function_call_output`."""
    name: str
    arguments: str
    """JSON text of an object that conforms to the tool's schema."""
    status: ItemState


class CallOutputShown(TypedDict):
    """What a call gave."""

    id: str
    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputTextShown | OutputTextShown | RefusalShown]
    status: ItemState


class CachedInput(TypedDict):
    """A part of `input_tokens`."""

    cached_tokens: int
    """Prompt tokens whose KV cells were found and not computed again."""
    cache_write_tokens: int


class ReasoningOutput(TypedDict):
    """A part of `output_tokens`."""

    reasoning_tokens: int


class ResponseUsage(TypedDict):
    """True token counts."""

    input_tokens: int
    input_tokens_details: CachedInput
    output_tokens: int
    output_tokens_details: ReasoningOutput
    total_tokens: int


class ResponseFailure(TypedDict):
    """Why a response failed."""

    code: str
    message: str


class Cut(TypedDict):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"]


class ResponseAnswer(TypedDict):
    """A response: what came of it, and what was asked for."""

    id: str
    """For `previous_response_id`, and to look at it again."""
    object: Literal["response"]
    created_at: int
    """Unix time in seconds."""
    completed_at: int | None
    model: str
    status: Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
    output: list[MessageShown | ReasoningShown | CallShown]
    usage: ResponseUsage | None
    error: ResponseFailure | None
    incomplete_details: Cut | None
    instructions: str | None
    previous_response_id: str | None
    metadata: dict[str, str]
    max_output_tokens: int | None
    max_tool_calls: int | None
    temperature: float
    top_p: float
    top_logprobs: int
    text: dict[str, Any]
    reasoning: dict[str, Any]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    truncation: Literal["disabled"]
    store: bool
    background: Literal[False]
    service_tier: Literal["default"]
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    prompt_cache_options: None
    prompt_cache_diagnostics: None
    access_programs: None
    conversation: None
    image: None
    input_transformations: None
    moderation: None
    prompt: None
    tool_usage: None


class ResponseDeleted(TypedDict):
    """A response that was forgotten."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputItems(TypedDict):
    """A page of items."""

    object: Literal["list"]
    data: list[MessageShown | ReasoningShown | CallShown | CallOutputShown]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokenCount(TypedDict):
    """The size of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int
