"""Unary calls: what an engine does besides generating, one call and one result each.

Frames carry both to the worker and back; routes make the calls. Bounds keep each within a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from kolosal.sampling import MAX_TOKENS_LIMIT
from kolosal.schema import Prompt, TextPrompt, TokensPrompt

MAX_TEXT_CHARS = 1_048_576
"""Characters of one text to tokenise, embed or rank."""

MAX_QUERY_CHARS = 65_536
"""Characters of the query that documents are ranked for: it is repeated for each."""

MAX_INPUTS = 2048
"""Texts of one request for embeddings or ranks: the OpenAI API's bound."""

MAX_DIMENSIONS = 65_536
"""Numbers of one vector."""


@dataclass(frozen=True, slots=True)
class Tokenize:
    """The tokens of a text."""

    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
    add_special: bool = False
    """Whether to add the tokens that the model wants at the start."""
    parse_special: bool = True
    """Whether control tokens written in the text are read as such."""
    with_pieces: bool = True
    """Whether to tell what each token stands for."""
    kind: Literal["tokenize"] = "tokenize"


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The result of `Tokenize`."""

    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    """The bytes of each token, one character each (Latin-1); of a control token, how it is written. Empty unless asked for."""
    kind: Literal["tokenized"] = "tokenized"


@dataclass(frozen=True, slots=True)
class Detokenize:
    """The text of tokens."""

    tokens: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=MAX_TOKENS_LIMIT)]
    kind: Literal["detokenize"] = "detokenize"


@dataclass(frozen=True, slots=True)
class Render:
    """A prompt as the model would get it: a chat as its template writes it, with the tools."""

    prompt: Prompt
    with_tokens: bool = False
    """Whether to tell the tokens, too."""
    kind: Literal["render"] = "render"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The result of `Render` and `Detokenize`."""

    text: str
    n_tokens: int
    tokens: tuple[int, ...] = ()
    """Empty unless asked for."""
    kind: Literal["rendered"] = "rendered"


@dataclass(frozen=True, slots=True)
class Embed:
    """One vector for each input, pooled as the model file says."""

    inputs: Annotated[
        tuple[Annotated[TextPrompt | TokensPrompt, Field(discriminator="kind")], ...],
        Field(min_length=1, max_length=MAX_INPUTS),
    ]
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None
    """How many of a vector's numbers to keep, from the first; None is all."""
    first: Annotated[int, Field(ge=0)] = 0
    """Where the first input stands in the client's request, for errors."""
    kind: Literal["embed"] = "embed"


@dataclass(frozen=True, slots=True)
class Embedded:
    """The result of `Embed`."""

    vectors: tuple[str, ...]
    """Each of length 1, as float32, little-endian, in base64: as OpenAI's clients ask for them."""
    n_tokens: tuple[int, ...]
    """Tokens of each input."""
    kind: Literal["embedded"] = "embedded"


@dataclass(frozen=True, slots=True)
class Rank:
    """How well each document answers a query; for models made for that."""

    query: Annotated[str, Field(max_length=MAX_QUERY_CHARS)]
    documents: Annotated[
        tuple[Annotated[str, Field(max_length=MAX_TEXT_CHARS)], ...],
        Field(min_length=1, max_length=MAX_INPUTS),
    ]
    first: Annotated[int, Field(ge=0)] = 0
    """Where the first document stands in the client's request, for errors."""
    kind: Literal["rank"] = "rank"


@dataclass(frozen=True, slots=True)
class Ranked:
    """The result of `Rank`."""

    scores: tuple[float, ...]
    """The model's own scores, in the order of the documents: more is better."""
    n_tokens: int
    kind: Literal["ranked"] = "ranked"


Call: TypeAlias = Tokenize | Detokenize | Render | Embed | Rank
CallResult: TypeAlias = Tokenized | Rendered | Embedded | Ranked


def portions(sizes: Sequence[int], budget: int, most: int) -> Iterator[slice]:
    """Consecutive items to handle together: at most `most` of them, their sizes within `budget`.

    One that is larger than the budget is alone.
    """
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and (total + size > budget or index - start == most):
            yield slice(start, index)
            start, total = index, 0
        total += size
    if sizes:
        yield slice(start, len(sizes))
