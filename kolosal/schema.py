"""Dialect-neutral types: what every protocol is decoded into and encoded from.

Owns the vocabulary that crosses the border between routes, engines and worker processes. Knows nothing of HTTP, of
llama.cpp or of any one protocol. All types are frozen: a request is never changed after it was decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from kolosal.sampling import MAX_TOKENS_LIMIT, SamplingParams, TokenLimit

MAX_GRAMMAR_CHARS = 262_144
"""Characters of a grammar or JSON schema."""

MAX_PRIORITY = 100
"""Bound of a request's priority, up and down."""

MAX_TOOLS = 512
"""Tools one request may offer: several servers of the Model Context Protocol together have more than a hundred."""

MAX_TOOL_NAME_CHARS = 256
"""Characters of a tool's name."""

MAX_SCHEMA_CHARS = 262_144
"""Characters of a tool's parameters, written as JSON."""

TEXT_ARGUMENT = "input"
"""The one argument of a tool that takes text."""

MAX_CACHE_SCOPE_CHARS = 256
"""Of the name of a scope within which requests share KV cells."""

MAX_THREAD_ID_CHARS = 256

MAX_TEMPLATE_KWARGS = 16
"""Variables one request may set for the chat template."""


Priority: TypeAlias = Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)]

ToolName: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_TOOL_NAME_CHARS)]


class FinishReason(StrEnum):
    """Why a generation ended."""

    STOP = "stop"
    """The model ended its turn, or a stop string was met."""
    TOOL_CALLS = "tool_calls"
    """The model called tools and waits for their results. Found by whoever reads the text, never said by a worker."""
    LENGTH = "length"
    """`max_tokens` or the end of the context window was reached."""
    ABORT = "abort"
    """The caller left. Never shown to a client."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call a model made: what to run, and with which arguments."""

    id: str
    name: str
    arguments: str
    """JSON text of an object; of an earlier call perhaps something else, which templates get as `{}`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat. `role` is passed to the model's own chat template as it is."""

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls an assistant's turn made."""
    tool_call_id: str | None = None
    """The call that a tool's turn answers."""
    thinking: str | None = None
    """What an assistant's turn thought before it answered; templates that want it get it as `reasoning_content`."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call."""

    name: ToolName
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    """JSON schema of the arguments, an object; an empty one allows any object."""
    param: str | None = None
    """The request field that schema came from, for errors; None: where chat completions have it."""
    strict: bool = False
    """Whether a schema with keywords that cannot be enforced is refused; otherwise those keywords are passed over."""
    text: Grammar | None = None
    """What its one argument, the string `TEXT_ARGUMENT`, must conform to, where the tool takes text in a format of its own."""


class ToolMode(StrEnum):
    """Whether tools are called."""

    NONE = "none"
    """Never; the model does not even hear of them."""
    AUTO = "auto"
    """The model decides."""
    REQUIRED = "required"
    """At least one call, and nothing else but thinking before it."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of one request and how they are to be used."""

    tools: Annotated[tuple[Tool, ...], Field(max_length=MAX_TOOLS)] = ()
    mode: ToolMode = ToolMode.AUTO
    only: tuple[str, ...] = ()
    """Where not empty: names of the tools that may be called; the others are shown to the model only."""
    parallel: bool = True
    """Whether one turn may make several calls."""

    @property
    def callable(self) -> tuple[Tool, ...]:
        """The tools that may be called."""
        if self.mode is ToolMode.NONE:
            return ()
        return tuple(tool for tool in self.tools if not self.only or tool.name in self.only)

    @property
    def forced(self) -> bool:
        """Whether the turn is nothing but thoughts and calls."""
        return self.mode is ToolMode.REQUIRED and bool(self.callable)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation, rendered in the worker with the model's chat template."""

    messages: tuple[Message, ...]
    tool_use: ToolUse = ToolUse()
    continues: bool = False
    """The last turn is the assistant's own and is continued in place of a new one."""
    add_generation_prompt: bool = True
    """Whether the assistant's turn is begun after the last one, where that is not continued."""
    template_kwargs: Annotated[dict[str, bool | int | float | str], Field(max_length=MAX_TEMPLATE_KWARGS)] = (
        field(default_factory=dict)
    )
    """Variables for the template, e.g. `enable_thinking`."""
    kind: Literal["chat"] = "chat"


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Raw text: tokenised as it is, without a chat template."""

    text: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class TokensPrompt:
    """Token ids, taken as they are: nothing is added at the start."""

    tokens: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, max_length=MAX_TOKENS_LIMIT)
    ]
    kind: Literal["tokens"] = "tokens"


@dataclass(frozen=True, slots=True)
class InfillPrompt:
    """Fill in the middle: what belongs between `prefix` and `suffix`, for models with tokens for that."""

    prefix: str
    suffix: str
    prompt: str = ""
    """The beginning of the middle, which is continued."""
    extra: tuple[tuple[str, str], ...] = ()
    """Other files as (name, text), for models that know repositories."""
    param: str | None = None
    """The request field it came from, for errors."""
    kind: Literal["infill"] = "infill"


Prompt = Annotated[ChatPrompt | TextPrompt | TokensPrompt | InfillPrompt, Field(discriminator="kind")]


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
    priority: Priority = 0
    """Higher is started first and preempted last."""
    use_cache: bool = True
    """Whether KV cells of other requests may be used, and this one's left for others."""
    cache_scope: Annotated[str, Field(max_length=MAX_CACHE_SCOPE_CHARS)] = ""
    """Only requests of the same scope share KV cells."""
    client: Annotated[str, Field(max_length=256)] = ""
    """Who asks, e.g. the id of an API key: waiting requests of different clients take turns. Empty: `cache_scope` says who."""
    prompt_logprobs: bool = False
    """Whether the prompt's own tokens get log-probabilities too; then its cells are computed anew."""
    thread_id: Annotated[str, Field(max_length=MAX_THREAD_ID_CHARS)] = ""
    """The conversation that the daemon keeps and this is a turn of, for what a backend keeps between its turns; empty: none."""
    max_context: TokenLimit | None = None
    """Tokens that prompt and answer may have together, where that is less than the engine's context window."""


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
class TokenLogprob:
    """One token and how probable the model held it, before any sampler changed that."""

    token: int
    piece: str
    """The bytes it adds to the text, one character each (Latin-1): a token may be part of a code point. Of a control token,
    which adds nothing, how it is written."""
    logprob: float
    control: bool = False

    @property
    def data(self) -> bytes:
        """The bytes it adds to the text."""
        return b"" if self.control else self.written

    @property
    def written(self) -> bytes:
        """Its bytes as people write it, those of a control token too."""
        return self.piece.encode("latin-1")


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """A token of the answer, or of the prompt, with the most probable ones in its place."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()
    """The most probable first; as many as were asked for."""
    in_prompt: bool = False


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """What one step added to one generation.

    `text` holds whole code points only and may be empty while a stop string or a code point is incomplete. The last
    delta of a generation, and only that, has a `finish_reason`; it has the `usage`, and so has the first one with tokens.
    """

    text: str
    tokens: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Of the tokens, where they were asked for; those of the prompt come first, and its first token, which nothing
    predicts, has the log-probability 0 and no `top`."""
    stop: str | None = None
    """The stop string that ended the generation."""

    def merge(self, later: TokenDelta) -> TokenDelta:
        """This delta followed by `later`, as one."""
        return TokenDelta(
            self.text + later.text,
            self.tokens + later.tokens,
            later.finish_reason,
            later.usage or self.usage,
            self.logprobs + later.logprobs,
            later.stop,
        )
