"""The fields of a request to the Responses API, and what they mean to an engine.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from kolosal.errors import InvalidRequest, UnsupportedFeature
from kolosal.routes.common.body import ModelBody, NeutralValues, required
from kolosal.routes.common.fields import Metadata
from kolosal.routes.common.sampling_fields import MaxTokens, SamplingFields, sampling_params
from kolosal.routes.openai.responses.conversation import to_messages
from kolosal.routes.openai.responses.input_items import (
    MAX_ITEMS,
    Input,
    ItemSources,
    to_items,
    tools_of,
)
from kolosal.routes.openai.responses.input_messages import ItemId
from kolosal.routes.openai.responses.items import Item, items_bytes
from kolosal.routes.openai.responses.options import (
    CacheOptions,
    ReasoningConfig,
    ResponseStreamOptions,
    TextConfig,
)
from kolosal.routes.openai.responses.tools import (
    OfferedTools,
    ToolChoiceInput,
    ToolsInput,
    offered_tools,
    to_tool_use,
)
from kolosal.routes.openai.template_kwargs import TemplateKwargs, to_template_kwargs
from kolosal.sampling import ReasoningBudget, TopLogprobs
from kolosal.schema import ChatPrompt, GenerateRequest

MAX_CONVERSATION_BYTES = 12 * 1024 * 1024
"""JSON of one conversation, the earlier items included: it has to fit into one frame to a worker."""

_LOGPROBS = "message.output_text.logprobs"

_SEALED_THOUGHTS = "reasoning.encrypted_content"

INCLUDABLE = (
    _LOGPROBS,
    _SEALED_THOUGHTS,
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
)
"""What `include` may ask for. All but the first two is about items that are never made here."""

Label: TypeAlias = Annotated[str, Field(max_length=512)]

Include: TypeAlias = Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=16)]


class ResponsePromptBody(ModelBody):
    """The fields that make the prompt: all that counting its tokens needs."""

    UNSUPPORTED: ClassVar[NeutralValues] = {
        "access_programs": (),
        "background": (False,),
        "background_options": ({}, {"completion_window": "soonest"}),
        "context_management": ([],),
        "conversation": (),
        "generate": (True,),
        "image": ({"context_compression": "auto"}, {"context_compression": "disabled"}),
        "moderation": (),
        "personality": (),
        "prompt": (),
    }

    input: Input | None = None
    """A text, or items. Required unless `previous_response_id` is given."""
    instructions: str | None = None
    """The system message. Those of earlier responses do not count."""
    previous_response_id: ItemId | None = None
    """The kept response whose conversation goes on."""
    tools: ToolsInput | None = None
    """What the model may call: functions, custom tools, and namespaces of both."""
    tool_choice: ToolChoiceInput | None = None
    """Whether and which tools are called; `auto` unless given."""
    parallel_tool_calls: bool | None = None
    """Whether one turn may make several calls; true unless given."""
    reasoning: ReasoningConfig | None = None
    """Whether and how much the model thinks, where its chat template can tell it to."""
    text: TextConfig | None = None
    """What the answer must conform to."""
    truncation: Literal["auto", "disabled"] | None = None
    """Must be disabled: a conversation that is too long is a 400."""
    chat_template_kwargs: TemplateKwargs | None = None
    """Variables for the model's chat template. Not OpenAI's."""
    reasoning_budget: ReasoningBudget | None = None
    """Tokens that the model may think before it answers; 0 none, -1 without a bound. Not OpenAI's."""

    @cached_property
    def offered(self) -> OfferedTools:
        """The tools that the model hears of."""
        return offered_tools(self.tools, tools_of(self.input))

    def to_items(self, earlier: tuple[Item, ...], sources: ItemSources) -> tuple[Item, ...]:
        """What the request adds to the conversation so far."""
        if self.previous_response_id is None:
            required(self.input, "input")
        added = to_items(self.input, earlier, sources)
        count, size = len(earlier) + len(added), items_bytes(earlier + added)
        if count == 0 and not self.instructions:
            raise InvalidRequest("input must have at least 1 item", param="input")
        if count > MAX_ITEMS:
            raise InvalidRequest(
                f"The conversation must have at most {MAX_ITEMS} items, but has {count}", param="input"
            )
        if size > MAX_CONVERSATION_BYTES:
            raise InvalidRequest(
                f"The conversation must have at most {MAX_CONVERSATION_BYTES} bytes, but has {size}",
                param="input",
            )
        return added

    def to_prompt(self, items: tuple[Item, ...]) -> ChatPrompt:
        """The conversation as engines know it."""
        self.refuse_unsupported()
        reasoning = self.reasoning or ReasoningConfig()
        _refuse("truncation", self.truncation, None, "disabled")
        _refuse("reasoning.mode", reasoning.mode, None, "standard")
        return ChatPrompt(
            to_messages(self.instructions, items),
            to_tool_use(self.offered, self.tool_choice, parallel=self.parallel_tool_calls),
            template_kwargs=to_template_kwargs(self.chat_template_kwargs, reasoning.effort),
        )


class ResponseBody(SamplingFields, ResponsePromptBody):
    """A request for a response. Null is as good as leaving a field out."""

    stream: bool | None = None
    """Whether the answer comes in pieces, as server-sent events."""
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = None
    """Whether the response is kept, so that it can be read again and followed up."""
    max_output_tokens: MaxTokens | None = None
    """Tokens to generate at most, thoughts included; without it, to the end of the context window."""
    top_logprobs: TopLogprobs | None = None
    """How many of the most probable tokens to report in each place; needs `include`."""
    include: Include | None = None
    """`message.output_text.logprobs` reports log-probabilities, `reasoning.encrypted_content` thoughts to be given back."""
    metadata: Metadata | None = None
    """Labels that come back with the response."""
    max_tool_calls: MaxTokens | None = None
    """Ignored: it bounds OpenAI's own tools only."""
    user: Label | None = None
    """Ignored."""
    safety_identifier: Label | None = None
    """Ignored."""
    service_tier: Label | None = None
    """Ignored."""
    prompt_cache_key: Label | None = None
    """Ignored."""
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    """Ignored."""
    prompt_cache_options: CacheOptions | None = None

    def to_request(self, items: tuple[Item, ...]) -> GenerateRequest:
        """The request as engines know it, for the whole conversation."""
        cache = self.prompt_cache_options or CacheOptions()
        _refuse("prompt_cache_options.prewarm", cache.prewarm, None, False)
        _refuse("prompt_cache_options.comparison_response_id", cache.comparison_response_id, None)
        check_include(self.include or ())
        form = None if self.text is None else self.text.format
        return GenerateRequest(
            self.to_prompt(items),
            sampling_params(self, {"max_tokens": self.max_output_tokens, "logprobs": self._logprobs()}),
            None if form is None else form.to_grammar(),
            priority=self.priority or 0,
            use_cache=self.cache_prompt is not False,
        )

    @property
    def seals_thoughts(self) -> bool:
        """Whether `reasoning` items have an `encrypted_content`."""
        return _SEALED_THOUGHTS in (self.include or ())

    def _logprobs(self) -> int | None:
        asked = _LOGPROBS in (self.include or ()) or bool(self.top_logprobs)
        return (self.top_logprobs or 0) if asked else None


def check_include(include: tuple[str, ...]) -> None:
    """Refuse what nobody knows."""
    for name in include:
        if name not in INCLUDABLE:
            raise UnsupportedFeature(
                f"include may have {', '.join(INCLUDABLE)} only, not {name!r}", param="include"
            )


def _refuse(field: str, value: object, *allowed: object) -> None:
    """Refuse any other value of a field; of those that are allowed the last is named."""
    if not any(value is each or value == each for each in allowed):
        named = "left out" if allowed[-1] is None else str(allowed[-1]).lower()
        raise UnsupportedFeature(f"{field} must be {named}: this server has nothing else", param=field)
