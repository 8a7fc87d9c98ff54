"""`POST /v1/chat/completions`: https://platform.openai.com/docs/api-reference/chat/create, with what vLLM has besides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from starlette.requests import Request

from kolosal.errors import InvalidRequest
from kolosal.http.decode import decode
from kolosal.http.responses import JsonResponse
from kolosal.http.sse import EventStream
from kolosal.routes.common.generation import start_generation
from kolosal.routes.common.operation import Access, Group, Operation
from kolosal.routes.common.services import registry_of
from kolosal.routes.openai.body import GenerationBody
from kolosal.routes.openai.chat_encode import ChatCompletion, chat_completion, chat_frames
from kolosal.routes.openai.encode import error_frame, system_fingerprint
from kolosal.routes.openai.messages import Messages, to_messages
from kolosal.routes.openai.template_kwargs import ReasoningEffort, TemplateKwargs, to_template_kwargs
from kolosal.routes.openai.tools import ToolChoice, Tools, to_tool_use
from kolosal.sampling import Choices, TokenLimit, TopLogprobs
from kolosal.schema import ChatPrompt, GenerateRequest


class ChatCompletionBody(GenerationBody):
    """A chat request."""

    MISSING = "Missing required fields (model, messages)"
    DEFAULTS: ClassVar[Mapping[str, int]] = {"max_tokens": 128}

    messages: Messages
    """The conversation, oldest turn first."""
    max_completion_tokens: TokenLimit | None = None
    """Another name for `max_tokens`; it wins."""
    n: Choices | None = None
    """How many answers to give; they share the prompt's KV cells."""
    logprobs: bool | None = None
    """Whether to report log-probabilities of the answer's tokens."""
    top_logprobs: TopLogprobs | None = None
    """How many of the most probable tokens to report in each place; needs `logprobs`."""
    tools: Tools | None = None
    """Functions that the model may call."""
    tool_choice: ToolChoice | None = None
    """Whether and which tools are called; `auto` unless given."""
    parallel_tool_calls: bool | None = None
    """Whether one turn may make several calls; true unless given."""
    reasoning_effort: ReasoningEffort | None = None
    """Goes to the model's chat template; `none` turns thinking off."""
    chat_template_kwargs: TemplateKwargs | None = None
    """Variables for the model's chat template, from a list of known ones."""
    continue_final_message: bool | None = None
    """Whether the last message, the assistant's, is continued in place of a new turn."""
    add_generation_prompt: bool | None = None
    """False only together with `continue_final_message`."""

    def to_prompt(self) -> ChatPrompt:
        """The conversation as engines know it."""
        return ChatPrompt(
            to_messages(self.messages),
            to_tool_use(self.tools, self.tool_choice, parallel=self.parallel_tool_calls),
            self._continues(),
            to_template_kwargs(self.chat_template_kwargs, self.reasoning_effort),
        )

    def to_requests(self) -> list[GenerateRequest]:
        """One request for each choice."""
        prompt, logprobs = self.to_prompt(), self._logprobs()
        max_tokens = self.max_completion_tokens or self.max_tokens
        return [
            self.request(prompt, max_tokens, logprobs=logprobs, choice=choice)
            for choice in range(self.n or 1)
        ]

    def _continues(self) -> bool:
        """Whether the last turn is continued. vLLM's pair of fields: one is the other's opposite."""
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
        if self.add_generation_prompt is False and not continues:
            raise InvalidRequest(
                "add_generation_prompt may be false only where continue_final_message is true",
                param="add_generation_prompt",
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
    example={"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64},
    answer="The chat completion, or its chunks.",
)
async def create_chat_completion(request: Request) -> JsonResponse[ChatCompletion] | EventStream:
    """Continue a conversation."""
    body = await decode(request, ChatCompletionBody)
    requests = body.to_requests()
    model = body.requested_model(registry_of(request))
    generation = await start_generation(request, model, requests)
    fingerprint = system_fingerprint(generation.engine.config)
    if not body.stream:
        whole = await generation.finish(generation.turns())
        return JsonResponse(
            chat_completion(model, fingerprint, whole, generation.timings, logprobs=bool(body.logprobs))
        )
    frames = chat_frames(
        model,
        fingerprint,
        generation.events(),
        generation.timings,
        choices=len(requests),
        include_usage=body.include_usage,
    )
    return EventStream(frames, generation.abort, error_frame)
