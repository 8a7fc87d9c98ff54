"""`POST /v1/chat/completions`: https://platform.openai.com/docs/api-reference/chat/create, with what vLLM has besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from starlette.requests import Request

from kolosal.errors import InvalidRequest, NotFound
from kolosal.http.decode import decode
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.common.generation import start_generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.sampling_fields import UNLIMITED, MaxTokensOrAll
from kolosal.routes.common.services import registry_of, services_of
from kolosal.routes.common.stream_answer import stream_generation
from kolosal.routes.common.unary_calls import count_prompt_tokens
from kolosal.routes.openai.body import GenerationBody, first_given
from kolosal.routes.openai.chat_encode import ChatCompletion, chat_completion, chat_frames
from kolosal.routes.openai.encode import InputTokenCount, error_frame, system_fingerprint
from kolosal.routes.openai.messages import Messages, to_messages
from kolosal.routes.openai.template_kwargs import ReasoningEffort, TemplateKwargs, to_template_kwargs
from kolosal.routes.openai.tools import ToolChoice, Tools, custom_names, to_tool_use
from kolosal.sampling import Choices, TopLogprobs
from kolosal.schema import ChatPrompt, GenerateRequest


class ChatCompletionBody(GenerationBody):
    """A chat request."""

    MISSING = "Missing required fields (model, messages)"
    DEFAULTS: ClassVar[Mapping[str, float]] = {"max_tokens": 128}

    messages: Messages
    """The conversation, oldest turn first."""
    max_completion_tokens: MaxTokensOrAll | None = None
    """Another name for `max_tokens`; it wins."""
    n: Choices | None = None
    """How many answers to give; they share the prompt's KV cells."""
    logprobs: bool | None = None
    """Whether to report log-probabilities of the answer's tokens."""
    top_logprobs: TopLogprobs | None = None
    """How many of the most probable tokens to report in each place; needs `logprobs`."""
    tools: Tools | None = None
    """Functions and custom tools that the model may call."""
    tool_choice: ToolChoice | None = None
    """Whether and which tools are called; `auto` unless given."""
    parallel_tool_calls: bool | None = None
    """Whether one turn may make several calls; true unless given."""
    verbosity: Literal["low", "medium", "high"] | None = None
    """Changes nothing: no chat template knows of it."""
    store: bool | None = None
    """Changes nothing: chat completions are not kept here."""
    reasoning_effort: ReasoningEffort | None = None
    """How much the model thinks: told to its chat template, and a bound of its thoughts; `none` turns thinking off."""
    reasoning_budget: int | None = None
    chat_template_kwargs: TemplateKwargs | None = None
    """Variables for the model's chat template, from a list of known ones."""
    continue_final_message: bool | None = None
    """Whether the last message, the assistant's, is continued in place of a new turn."""
    add_generation_prompt: bool | None = None
    """Whether the assistant's turn is begun after the last message; false where that is continued."""

    def to_prompt(self) -> ChatPrompt:
        """The conversation as engines know it."""
        return ChatPrompt(
            to_messages(self.messages),
            to_tool_use(self.tools, self.tool_choice, parallel=self.parallel_tool_calls),
            self._continues(),
            self.add_generation_prompt is not False,
            to_template_kwargs(self.chat_template_kwargs, self.reasoning_effort),
        )

    def to_requests(self, default_max_tokens: int | None = None) -> list[GenerateRequest]:
        """One request for each choice."""
        prompt, logprobs = self.to_prompt(), self._logprobs()
        max_tokens = first_given(self.max_completion_tokens, self.max_tokens, self.n_predict)
        return [
            self.request(
                prompt, max_tokens, logprobs=logprobs, choice=choice, default_max_tokens=default_max_tokens
            )
            for choice in range(self.n or 1)
        ]

    def _continues(self) -> bool:
        """Whether the last turn is continued."""
        continues = bool(self.continue_final_message)
        if continues and self.add_generation_prompt:
            raise InvalidRequest(
                "add_generation_prompt must be false where continue_final_message is true: a turn is continued or begun",
                param="add_generation_prompt",
            )
        if continues and self.messages[-1].role != "assistant":
            raise InvalidRequest(
                "continue_final_message needs a last message of the role assistant,"
                f" but its role is {self.messages[-1].role}",
                param="continue_final_message",
            )
        return continues

    def _logprobs(self) -> int | None:
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


@Operation(
    group=Group.OPENAI,
    scope=Access.INFERENCE,
    body=ChatCompletionBody,
    example={"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]},
    answer="`input_tokens`: how many the conversation has.",
)
async def count_chat_tokens(request: Request) -> JsonResponse[InputTokenCount]:
    """How many tokens a conversation has, as the chat template writes it. llama-server's."""
    body = await decode(request, ChatCompletionBody)
    prompt, model = body.to_prompt(), body.requested_model(registry_of(request))
    n_tokens = await count_prompt_tokens(request, model, prompt)
    return JsonResponse({"object": "response.input_tokens", "input_tokens": n_tokens})


@Operation(
    group=Group.OPENAI,
    scope=Access.INFERENCE,
    body=ChatCompletionBody,
    example={"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64},
    answer="The chat completion, or its chunks.",
)
async def create_chat_completion(request: Request) -> JsonResponse[ChatCompletion] | EventStream:
    """Continue a conversation."""
    body = await decode(request, ChatCompletionBody)
    model = body.requested_model(registry_of(request))
    requests = body.to_requests(_default_max_tokens(request, model))
    custom = custom_names(body.tools)
    if body.stream:
        return await stream_generation(
            request,
            model,
            requests,
            lambda started: chat_frames(
                model,
                system_fingerprint(started.engine.config),
                started.events(),
                started.timings,
                choices=len(requests),
                include_usage=body.include_usage,
                custom=custom,
                counts=started.counts if body.timings_per_token else None,
            ),
            error_frame,
        )
    generation = await start_generation(request, model, requests)
    fingerprint = system_fingerprint(generation.engine.config)
    whole = await generation.finish(generation.turns())
    return JsonResponse(
        chat_completion(
            model, fingerprint, whole, generation.timings, logprobs=bool(body.logprobs), custom=custom
        )
    )


def _default_max_tokens(request: Request, model: str) -> int:
    """`max_tokens` of a request that gives none: the engine's own, else the daemon's."""
    services = services_of(request)
    try:
        own = services.registry.get(model).rules.default_max_tokens
    except NotFound:  # which is told when it is asked to generate
        own = None
    chosen = first_given(own, services.settings.openai.default_max_tokens)
    return UNLIMITED if chosen is None else chosen
