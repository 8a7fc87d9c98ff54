"""Dialect-neutral types: what every protocol is decoded into and encoded from.

Owns the vocabulary that crosses the border between routes, engines and worker processes. Knows nothing of HTTP, of
llama.cpp or of any one protocol. All types are frozen: a request is never changed after it was decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

MAX_STOP_STRINGS = 64
"""Stop strings one request may give; each is compared with every piece of text."""

MAX_STOP_CHARS = 1024
"""Characters of one stop string; bounds the text that is held back."""

MAX_GRAMMAR_CHARS = 262_144
"""Characters of a grammar or JSON schema."""

MAX_PRIORITY = 100
"""Bound of a request's priority, up and down."""

MAX_TOKENS_LIMIT = 1_000_000
"""Upper bound of every count of tokens: the largest context window that can be configured."""


class FinishReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model ended its turn, or a stop string was met."""
    LENGTH = "length"
    """`max_tokens` or the end of the context window was reached."""
    ABORT = "abort"
    """The caller left. Never shown to a client."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `role` is passed to the model's own chat template as it is."""

    role: str
    content: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation, rendered in the worker with the model's chat template."""

    messages: tuple[Message, ...]
    kind: Literal["chat"] = "chat"


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Raw text: tokenised as it is, without a chat template."""

    text: str
    kind: Literal["text"] = "text"


Prompt = Annotated[ChatPrompt | TextPrompt, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen and when to stop.

    The defaults of `top_k`, `min_p` and `repeat_last_n` are llama.cpp's own; the others are the OpenAI API's.
    Bounds are enforced here, so nothing out of range reaches native code.
    """

    temperature: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 1.0
    """0 is greedy: the most probable token."""
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 40
    """0 turns the limit off."""
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.05
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    repeat_penalty: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 1.0
    """1 is off. Looks at the last `repeat_last_n` tokens, the prompt's included."""
    repeat_last_n: Annotated[int, Field(ge=0, le=MAX_TOKENS_LIMIT)] = 64
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """The same seed gives the same text for the same request; None draws a fresh one."""
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS_LIMIT)] | None = None
    """Tokens to generate at most; None means to the end of the context window."""
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)], ...],
        Field(max_length=MAX_STOP_STRINGS),
    ] = ()
    """The text ends before the first of these; it is never part of the output."""
    ignore_eos: bool = False
    """Go on after the model's end-of-turn token, until `max_tokens`."""


class GrammarKind(StrEnum):
    """The languages a grammar can be written in."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"
    GBNF = "gbnf"
    """llama.cpp's own."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the answer must conform to, character by character."""

    kind: GrammarKind
    source: Annotated[str, Field(max_length=MAX_GRAMMAR_CHARS)]
    param: str | None = None
    """The request field it came from, for errors."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prompt to continue, whatever protocol it came by."""

    prompt: Prompt
    sampling: SamplingParams
    grammar: Grammar | None = None
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0
    """Higher is started first and preempted last."""
    use_cache: bool = True
    """Whether KV cells of other requests may be used, and this one's left for others."""
    cache_scope: Annotated[str, Field(max_length=256)] = ""
    """Only requests of the same scope share KV cells."""


@dataclass(frozen=True, slots=True)
class Usage:
    """True token counts of one generation."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """How many of `prompt_tokens` were found in the KV cache and not computed again."""

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """What one step added to one generation.

    `text` holds whole code points only and may be empty while a stop string or a code point is incomplete. The last
    delta of a generation, and only that, has `finish_reason` and `usage`.
    """

    text: str
    tokens: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None

    def merge(self, later: TokenDelta) -> TokenDelta:
        """This delta followed by `later`, as one."""
        return TokenDelta(
            self.text + later.text, self.tokens + later.tokens, later.finish_reason, later.usage
        )
