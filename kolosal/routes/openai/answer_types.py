"""The JSON of whole answers in the OpenAI dialect, for the document. Tests compare it with what is really sent."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict


class CachedTokens(TypedDict):
    """A part of `prompt_tokens`."""

    cached_tokens: int
    """Prompt tokens whose KV cells were found and not computed again."""


class TokenCounts(TypedDict):
    """True token counts of all choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Timings(TypedDict):
    """Counts and milliseconds, with llama-server's names."""

    cache_n: int
    """Prompt tokens found in the KV cache."""
    prompt_n: int
    """Prompt tokens computed."""
    prompt_ms: float
    """Until the first token of the answer, waiting included."""
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    """Tokens of the answer."""
    predicted_ms: float
    """From the first token of the answer to the last."""
    predicted_per_token_ms: float
    predicted_per_second: float


class FunctionMade(TypedDict):
    """What is to be run."""

    name: str
    arguments: str
    """JSON text of an object that conforms to the tool's schema."""


class CallMade(TypedDict):
    """A call the model made."""

    id: str
    """To be given back as `tool_call_id` with the result."""
    type: Literal["function"]
    function: FunctionMade


class ChatAnswer(TypedDict):
    """A turn of the assistant."""

    role: Literal["assistant"]
    content: str | None
    """The text; null where there are only calls."""
    refusal: None
    reasoning_content: NotRequired[str]
    """What the model thought before it answered."""
    tool_calls: NotRequired[list[CallMade]]


class Chance(TypedDict):
    """A token and how probable the model held it."""

    token: str
    bytes: list[int]
    logprob: float


class ChosenToken(Chance):
    """A token of the answer, with the most probable ones in its place."""

    top_logprobs: list[Chance]


class ChatLogprobs(TypedDict):
    """Log-probabilities, one entry for each token of the text."""

    content: list[ChosenToken]
    refusal: None


class ChatChoice(TypedDict):
    """One answer to a chat."""

    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(TypedDict):
    """The answer to a chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    """Unix time in seconds."""
    model: str
    """As it was asked for."""
    system_fingerprint: str
    """Changes when the daemon's version, the model or a loading parameter does: then a seed's text may change, too."""
    choices: list[ChatChoice]
    usage: TokenCounts
    timings: Timings


class TextLogprobs(TypedDict):
    """Log-probabilities in the older shape: four arrays, one entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Where each token begins in the text, in characters."""


class TextChoice(TypedDict):
    """One continuation."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(TypedDict):
    """Texts continued."""

    id: str
    object: Literal["text_completion"]
    created: int
    """Unix time in seconds."""
    model: str
    """As it was asked for."""
    choices: list[TextChoice]
    """For each prompt as many as `n`, in the order of the prompts."""
    usage: TokenCounts
    timings: Timings


class PromptCounts(TypedDict):
    """Token counts of a request that generates nothing."""

    prompt_tokens: int
    total_tokens: int


class Embedding(TypedDict):
    """The vector of one input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str
    """Numbers, or little-endian float32 in base64."""


class Embeddings(TypedDict):
    """The vectors of all inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: PromptCounts


class Model(TypedDict):
    """An engine as a model."""

    id: str
    """The `engine_id`."""
    object: Literal["model"]
    created: int
    """When the engine was added: Unix time in seconds."""
    owned_by: str
    name: str
    """The model's file."""


class ModelList(TypedDict):
    """All engines as models, loaded or not."""

    object: Literal["list"]
    data: list[Model]


class Filled(TypedDict):
    """What belongs in the middle, in llama-server's shape."""

    index: int
    content: str
    tokens: list[int]
    """With `return_tokens`; else empty."""
    stop: bool
    model: str
    tokens_predicted: int
    tokens_evaluated: int
    tokens_cached: int
    truncated: bool
    stop_type: Literal["eos", "word", "limit"]
    stopping_word: str
    timings: Timings
