"""Parameters of a generation, as JSON-RPC over HTTP and sessions share them: fields, bounds, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from kolosal.routes.common.body import OpenBody
from kolosal.routes.common.fields import ARRAY, STRING, ModelName, as_tuple, by_kind
from kolosal.routes.common.sampling_fields import MaxTokens, sampling_params
from kolosal.routes.common.tool_turn import TurnOptions
from kolosal.routes.jsonrpc.history import MAX_CALLS, MAX_TURNS, HistoryMessage, ToolResult
from kolosal.routes.jsonrpc.tools import RpcTools, to_tools
from kolosal.sampling import ReasoningBudget, SamplingParams, Seed, StopString, StopStrings, TopP
from kolosal.schema import Tool, ToolMode

DEFAULT_MAX_NEW_TOKENS = 4096
"""Tokens to generate where a request does not say, as in the server that first had this API."""

DEFAULT_TEMPERATURE = 0.6
"""Temperature of sampling where a request does not say, as there."""

MAX_ITERATION_COUNT = 1_000_000
"""How far a client may count; far beyond what is ever allowed."""

Stop: TypeAlias = Annotated[
    Annotated[StopString, STRING] | Annotated[StopStrings, ARRAY], by_kind("a string or an array of strings")
]


class GenerationParams(OpenBody):
    """The conversation, its tools and how to sample: what `create_message`, `/stream` and a session's `generate` share."""

    message: str | None = None
    """What the user says; added to the history unless it ends the user's part of it already."""
    history: Annotated[tuple[HistoryMessage, ...], Field(max_length=MAX_TURNS)] | None = None
    """The conversation so far, oldest turn first."""
    tools: RpcTools | None = None
    """Tools that the client has."""
    tool_choice: Literal["auto", "none", "required"] | None = None
    """Whether tools are called; `auto` unless given. `required` is enforced, until a tool has given a result."""
    max_new_tokens: MaxTokens | None = None
    """Tokens to generate at most, in each turn."""
    do_sample: bool | None = None
    """False takes the most probable token each time."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0 takes the most probable token; 0.6 unless given."""
    top_p: TopP | None = None
    """Keep the most probable tokens whose probabilities add up to this; off unless given."""
    seed: Seed | None = None
    """The same seed gives the same text for the same request."""
    stop: Stop | None = None
    """The text ends before the first of these."""
    reasoning_budget: ReasoningBudget | None = None
    """Tokens that the model may think before each turn's text and calls; 0 none, -1 without a bound."""
    model: ModelName | None = None
    """An `engine_id`; the default engine unless given."""

    def turn_options(
        self, default_tools: Sequence[Tool] = (), default_model: str | None = None
    ) -> TurnOptions:
        """All but the conversation."""
        self.refuse_unsupported()
        tools = tuple(default_tools) if self.tools is None else to_tools(self.tools)
        mode = ToolMode(self.tool_choice or "auto")
        return TurnOptions(
            self.model or default_model, tools if mode is not ToolMode.NONE else (), mode, self._sampling()
        )

    def _sampling(self) -> SamplingParams:
        return sampling_params(
            self,
            {
                "temperature": 0.0 if self.do_sample is False else self.temperature,
                "stop": None if self.stop is None else as_tuple(self.stop),
                "max_tokens": self.max_new_tokens,
            },
            {"temperature": DEFAULT_TEMPERATURE, "max_tokens": DEFAULT_MAX_NEW_TOKENS},
        )


class CreateMessageParams(GenerationParams):
    """Parameters of `create_message`; unknown ones are ignored."""

    tool_results: Annotated[tuple[ToolResult, ...], Field(max_length=MAX_CALLS)] | None = None
    """What the tools gave that the last answer asked for."""
    iteration_count: Annotated[int, Field(ge=0, le=MAX_ITERATION_COUNT)] | None = None
    """As the last answer had it; 0 at first."""
