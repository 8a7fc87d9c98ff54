"""The Messages request: its fields with their bounds, and what they mean to an engine.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from kolosal.errors import InvalidRequest
from kolosal.http.decode import RequestBody
from kolosal.routes.anthropic.blocks import SystemContent
from kolosal.routes.anthropic.context import ContextManagement, clear_thinking
from kolosal.routes.anthropic.conversation import InputMessages, to_messages
from kolosal.routes.anthropic.tools import InputTools, ToolChoice, to_tool_use
from kolosal.routes.common.body import ModelBody, NeutralValues, required, unsupported
from kolosal.routes.common.json_schema import JsonSchema, schema_grammar
from kolosal.routes.common.sampling_fields import sampling_params
from kolosal.sampling import MAX_INT, MAX_TOKENS_LIMIT, StopStrings, TopK, TopP
from kolosal.schema import ChatPrompt, GenerateRequest, Grammar

MIN_BUDGET_TOKENS = 1024
"""The smallest `budget_tokens`: Anthropic's bound."""


IGNORED_FIELDS = frozenset(
    {
        "anthropic_beta",
        "anthropic_version",
        "billing_policy",
        "cache_control",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "metadata",
        "service_tier",
        "speed",
    }
)
"""They change no answer of a daemon that keeps no accounts, computes here, and finds shared prompts by itself."""

REFUSED_FIELDS: NeutralValues = {
    "compaction": (),
    "container": (),
    "mcp_servers": ([],),
    "thread": (),
}
"""Fields that this daemon does not have, each with the values, besides null, that ask for nothing."""


class Thinking(RequestBody):
    """`thinking`."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=MIN_BUDGET_TOKENS, le=MAX_INT)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(RequestBody):
    """`output_config.format`."""

    model_config = ConfigDict(
        defer_build=True, strict=True, frozen=True, extra="ignore", populate_by_name=True
    )

    type: Literal["json_schema"]
    definition: Annotated[JsonSchema, Field(alias="schema")]


class OutputConfig(RequestBody):
    """`output_config`."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None
    task_budget: dict[str, Any] | None = None


class MessagesPromptBody(ModelBody):
    """Fields of both endpoints: all that the prompt is made of. Others are kept, to be looked through."""

    messages: InputMessages
    """The conversation, oldest turn first. A last turn of the assistant is continued."""
    system: SystemContent | None = None
    """What the model is told first."""
    tools: InputTools | None = None
    """Functions that the model may call."""
    tool_choice: ToolChoice | None = None
    """Whether and which tools are called; `auto` unless given."""
    thinking: Thinking | None = None
    """Whether the model thinks before it answers, where its chat template can tell it to."""
    output_config: OutputConfig | None = None
    """What the answer must conform to, and how much the model should think."""
    output_format: OutputFormat | None = None
    """The older place of `output_config.format`."""
    context_management: ContextManagement | None = None

    def check_undeclared(self, ignored: frozenset[str] = IGNORED_FIELDS) -> None:
        """Look through the other fields. As in Anthropic's own API none passes unread; null is as good as leaving one out."""
        for name, value in (self.model_extra or {}).items():
            if value is None or name in ignored:
                continue
            if name not in REFUSED_FIELDS:
                raise InvalidRequest(f"Unknown field: {name[:60]}", param=name[:60])
            if value not in REFUSED_FIELDS[name]:
                raise unsupported(name)

    def to_prompt(self) -> ChatPrompt:
        """The conversation as engines know it."""
        messages = to_messages(self.system, self.messages)
        if self.context_management is not None:
            messages = clear_thinking(messages, self.context_management.kept_thoughts())
        return ChatPrompt(
            messages,
            to_tool_use(self.tools or (), self.tool_choice),
            continues=messages[-1].role == "assistant",
            template_kwargs=self._template_kwargs(),
        )

    def _template_kwargs(self) -> dict[str, bool | int | float | str]:
        """What the request says about thinking, by the names that chat templates know."""
        kwargs: dict[str, bool | int | float | str] = {}
        if self.thinking is not None:
            if self.thinking.type == "enabled":
                required(self.thinking.budget_tokens, "thinking.budget_tokens")
            kwargs["enable_thinking"] = self.thinking.type in ("enabled", "adaptive")
        if self.output_config is not None and self.output_config.effort is not None:
            kwargs["reasoning_effort"] = self.output_config.effort
        return kwargs


class MessagesBody(MessagesPromptBody):
    """A request for a message."""

    max_tokens: Annotated[int, Field(ge=0, le=MAX_INT)]
    """Tokens to generate at most, thoughts included."""
    stream: bool | None = None
    """Whether the answer comes in pieces, as server-sent events."""
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    """0 takes the most probable token; 1 unless given."""
    top_p: TopP | None = None
    """Keep the most probable tokens whose probabilities add up to this; off unless given."""
    top_k: TopK | None = None
    """Keep this many of the most probable tokens; off unless given."""
    stop_sequences: StopStrings | None = None
    """The text ends before the first of these."""

    def to_request(self) -> GenerateRequest:
        """The request as engines know it."""
        self.check_undeclared()
        sampling = sampling_params(
            self, {"stop": self.stop_sequences, "reasoning_budget": self._reasoning_budget()}, {"top_k": 0}
        )
        return GenerateRequest(self.to_prompt(), sampling, grammar=self._grammar())

    def _reasoning_budget(self) -> int | None:
        """The bound of thoughts where the request has a number; else `output_config.effort` says."""
        budget = None if self.thinking is None else self.thinking.budget_tokens
        enabled = self.thinking is not None and self.thinking.type == "enabled"
        return min(budget, MAX_TOKENS_LIMIT) if enabled and budget is not None else None

    @property
    def shows_thinking(self) -> bool:
        """Whether the answer has the text of what the model thinks."""
        return self.thinking is None or self.thinking.display != "omitted"

    def _grammar(self) -> Grammar | None:
        config = self.output_config or OutputConfig()
        if config.task_budget is not None:
            raise unsupported("output_config.task_budget")
        if config.format is not None and self.output_format is not None:
            raise InvalidRequest(
                "output_format is the old name of output_config.format, and only one of them may be given",
                param="output_format",
            )
        field, output = "output_config.format.schema", config.format
        if output is None:
            field, output = "output_format.schema", self.output_format
        return None if output is None else schema_grammar(output.definition, field)


class CountBody(MessagesPromptBody):
    """A request for the size of a prompt. What only matters while a message is made may stand in it, and is not looked at."""

    IGNORED: ClassVar[frozenset[str]] = IGNORED_FIELDS | (
        MessagesBody.model_fields.keys() - MessagesPromptBody.model_fields.keys()
    )

    def to_prompt(self) -> ChatPrompt:
        self.check_undeclared(self.IGNORED)
        return super().to_prompt()
