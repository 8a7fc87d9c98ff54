"""The body of `POST /api/generate`: one prompt, through the model's chat template or as it is.

`context` is a conversation as tokens, which a client sends back to have it continued: its tokens stand before those of the new
prompt. This is Ollama's old way; a chat keeps more of what a model's template knows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, TypeAlias

from pydantic import Field

from kolosal.engines.engine import Engine
from kolosal.engines.ipc.calls import Render, Rendered, Tokenize, Tokenized
from kolosal.engines.unary import unary_call
from kolosal.errors import InvalidRequest, KolosalError, UnsupportedFeature
from kolosal.routes.common.generation import Generation
from kolosal.routes.ollama.body import OllamaBody
from kolosal.routes.ollama.encode import ContextField
from kolosal.sampling import MAX_TOKENS_LIMIT, TokenId
from kolosal.schema import (
    ChatPrompt,
    GenerateRequest,
    InfillPrompt,
    Message,
    Prompt,
    TextPrompt,
    TokensPrompt,
)

RAW_TEMPLATE = "{{.Prompt}}"
"""The template that adds nothing, without its blanks. Editors send it to have their prompt passed on as it is."""

Context: TypeAlias = Annotated[tuple[TokenId, ...], Field(max_length=MAX_TOKENS_LIMIT)]


class GenerateBody(OllamaBody):
    """A prompt to answer, or to continue."""

    prompt: str | None = None
    """The prompt; without one the model is only loaded, or freed where `keep_alive` is 0."""
    suffix: str | None = None
    """What follows the gap that is to be filled; for models made for that."""
    system: str | None = None
    """What the model is told first."""
    template: Annotated[str, Field(max_length=65_536)] | None = None
    """Only `{{ .Prompt }}`, which is as good as `raw`."""
    context: Context | None = None
    """The `context` of an earlier answer, which this prompt follows."""
    raw: bool | None = None
    """Whether the prompt is continued as it is, without the chat template."""

    @property
    def only_loads(self) -> bool:
        """Whether there is nothing to generate."""
        return not self.prompt and not self.suffix

    @property
    def is_raw(self) -> bool:
        """Whether the prompt is passed on as it is."""
        return bool(self.raw) or self._template == RAW_TEMPLATE

    def check(self) -> None:
        """Look at what does not go together."""
        if self.raw and (self.template or self.system or self.context):
            raise InvalidRequest("raw mode does not support template, system, or context", param="raw")
        if self._template not in ("", RAW_TEMPLATE):
            raise UnsupportedFeature(
                "template must be left out or be '{{ .Prompt }}': prompts are written with the model's own chat template",
                param="template",
            )
        for name, value in (("system", self.system), ("context", self.context)):
            if value and self.suffix:
                raise InvalidRequest(f"{name} must be left out where suffix is given", param=name)
            if value and self.is_raw:
                raise InvalidRequest(
                    f"{name} must be left out where template is '{{{{ .Prompt }}}}'", param=name
                )

    def plain_prompt(self) -> TextPrompt | InfillPrompt | ChatPrompt:
        """The prompt as engines know it, without what came before."""
        prompt = self.prompt or ""
        if self.suffix:
            return InfillPrompt(prompt, self.suffix, param="suffix")
        if self.is_raw:
            return TextPrompt(prompt)
        system = (Message("system", self.system),) if self.system else ()
        return ChatPrompt((*system, Message("user", prompt)), template_kwargs=self.template_kwargs())

    async def prompt_after_context(self, engine: Engine) -> Prompt:
        """The prompt as engines know it, after what came before."""
        plain = self.plain_prompt()
        if not self.context or not isinstance(plain, ChatPrompt):
            return plain
        _check_context(engine, self.context)
        return TokensPrompt(await _continued(engine, self.context, plain))

    async def truncated(self, wanted: GenerateRequest, _engine: Engine) -> GenerateRequest | None:
        """Ollama would cut the prompt to `num_ctx`; here it gets the engine's whole window, where it fits into that."""
        if self.truncate is False or wanted.max_context is None:
            return None
        return replace(wanted, max_context=None)

    async def context_after(self, generation: Generation, text: str) -> ContextField:
        """`context` of the last object, which ends with the answer's text. An answer does not fail for want of it."""
        plain = self.plain_prompt()
        if not isinstance(plain, ChatPrompt):
            return {}
        if not self.context:
            plain = generation.with_turns(plain)
        turns = (*plain.messages, Message("assistant", text))
        whole = ChatPrompt(turns, continues=True, template_kwargs=plain.template_kwargs)
        try:
            return {"context": [*await _continued(generation.engine, self.context or (), whole)]}
        except KolosalError:
            return {}

    @property
    def _template(self) -> str:
        return "".join((self.template or "").split())


def _check_context(engine: Engine, earlier: tuple[int, ...]) -> None:
    """Look whether a context can be this model's."""
    info, largest = engine.info, max(earlier, default=0)
    if info is not None and largest >= info.n_vocab:
        raise InvalidRequest(
            f"context must hold tokens of this model, which are less than {info.n_vocab}, not {largest}",
            param="context",
        )


async def _continued(engine: Engine, earlier: tuple[int, ...], prompt: ChatPrompt) -> tuple[int, ...]:
    """The tokens of a prompt that follows an earlier conversation; a token that only texts begin with is not repeated."""
    rendered = await unary_call(engine, Render(prompt, with_tokens=True), Rendered)
    if not earlier:
        return rendered.tokens
    start = (await unary_call(engine, Tokenize("", add_special=True, with_pieces=False), Tokenized)).tokens
    repeated = bool(start) and rendered.tokens[: len(start)] == start
    return earlier + (rendered.tokens[len(start) :] if repeated else rendered.tokens)
