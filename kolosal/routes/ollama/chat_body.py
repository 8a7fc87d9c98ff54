"""The body of `POST /api/chat`, whose oldest turns are left out where it is too long for its engine."""

from __future__ import annotations

from dataclasses import replace

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Render, Rendered
from kolosal.engines.unary import unary_call
from kolosal.errors import ContextLengthExceeded
from kolosal.routes.ollama.body import OllamaBody
from kolosal.routes.ollama.messages import Messages, Tools, to_messages, to_tool_use
from kolosal.schema import ChatPrompt, GenerateRequest


class OllamaChatBody(OllamaBody):
    """A conversation to continue."""

    messages: Messages | None = None
    """The conversation, oldest turn first; without one the model is only loaded, or freed where `keep_alive` is 0."""
    tools: Tools | None = None
    """Functions that the model may call."""

    def to_prompt(self) -> ChatPrompt:
        """The conversation as engines know it. A last turn of the assistant is continued."""
        messages = to_messages(self.messages or ())
        last = messages[-1] if messages else None
        return ChatPrompt(
            messages,
            to_tool_use(self.tools or ()),
            continues=last is not None and last.role == "assistant" and not last.tool_calls,
            template_kwargs=self.template_kwargs(),
        )

    async def truncated(self, wanted: GenerateRequest, engine: Engine) -> GenerateRequest | None:
        """The request with fewer turns; None where it is to be refused.

        A last turn that alone is longer than `num_ctx` gets the engine's whole window, because to cut it would change what
        was said."""
        if self.truncate is False or not isinstance(wanted.prompt, ChatPrompt):
            return None
        prompt = await _without_oldest_turns(engine, wanted.prompt, wanted.max_context)
        if prompt is not None:
            return replace(wanted, prompt=prompt)
        return None if wanted.max_context is None else replace(wanted, max_context=None)


async def _without_oldest_turns(
    engine: Engine, prompt: ChatPrompt, max_context: int | None
) -> ChatPrompt | None:
    """The prompt with as many of its turns as there is room for; None where even the last one is too long.

    There is room for as many tokens as the engine's context window has, or `max_context` where that is less. What the system says
    stays, and so does the last turn; a result never stands without its call. How long a prompt is only its engine knows, so
    the first turn to keep is searched for."""
    starts = [
        index for index, message in enumerate(prompt.messages) if message.role not in ("system", "tool")
    ]
    low, high = 1, len(starts)
    while low < high:
        middle = (low + high) // 2
        if await _fits(engine, _from(prompt, starts[middle]), max_context):
            high = middle
        else:
            low = middle + 1
    if low >= len(starts):
        return None
    return _from(prompt, starts[low])


def _from(prompt: ChatPrompt, start: int) -> ChatPrompt:
    kept = [
        message for index, message in enumerate(prompt.messages) if index >= start or message.role == "system"
    ]
    return replace(prompt, messages=tuple(kept))


async def _fits(engine: Engine, prompt: ChatPrompt, max_context: int | None) -> bool:
    """Whether a prompt leaves room for an answer."""
    try:
        rendered = await unary_call(engine, Render(prompt), Rendered)
    except ContextLengthExceeded:
        return False
    limits = [max_context, None if engine.info is None else engine.info.n_ctx]
    return all(limit is None or rendered.n_tokens < limit for limit in limits)
