"""What whole answers and chunks of the OpenAI dialect share: ids, token counts, times, log-probabilities, errors. Pure.

The types are the API reference's ("The chat completion object" and "The completion object"), `Timings` llama-server's.
"""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NotRequired, TypeAlias

import orjson
from typing_extensions import TypedDict

from kolosal import __version__
from kolosal.engines.parameters import EngineConfig
from kolosal.errors import KolosalError
from kolosal.http.responses import error_body
from kolosal.http.sse import data_frame
from kolosal.schema import TokenLogprob, TokenLogprobs, Usage

_ALPHANUMERIC = string.ascii_letters + string.digits
_ID_CHARS = 24


class CachedTokens(TypedDict):
    """A part of `prompt_tokens`."""

    cached_tokens: int
    """Prompt tokens whose KV cells were found and not computed again."""


class ReasoningTokens(TypedDict):
    """A part of `completion_tokens`."""

    reasoning_tokens: int
    """Tokens of what the model thought before it answered."""


class PromptCounts(TypedDict):
    """Token counts of a request that generates nothing."""

    prompt_tokens: int
    total_tokens: int


class InputTokenCount(TypedDict):
    """The size of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class TokenCounts(TypedDict):
    """True token counts of all choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: NotRequired[ReasoningTokens]
    """Only where the model thought."""


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
    """From the first token of the answer to the last; 0 where there was only one."""
    predicted_per_token_ms: float
    """From one token to the next: n tokens have n - 1 times between them."""
    predicted_per_second: float
    """The same as a rate; 0 where there is no time to tell it by."""


class TopLogprob(TypedDict):
    """A token and how probable the model held it."""

    token: str
    bytes: list[int]
    logprob: float


class ChosenLogprob(TopLogprob):
    """A token of the answer, with the most probable ones in its place."""

    top_logprobs: list[TopLogprob]


Stopwatch: TypeAlias = Callable[[int], tuple[float, float]]
"""By a generation's position: seconds until its first token, waiting included, and from there to its last."""


CountTokens: TypeAlias = Callable[[int], Usage]
"""By a generation's position: its tokens so far."""


def answer_id(prefix: str) -> str:
    """The id of an answer, the same in all chunks of a stream: e.g. `chatcmpl-`, and 24 letters and digits."""
    return f"{prefix}{''.join(secrets.choice(_ALPHANUMERIC) for _ in range(_ID_CHARS))}"


def system_fingerprint(config: EngineConfig) -> str:
    """Changes when the daemon's version, the model or a loading parameter does: then a seed's text may change, too."""
    digest = hashlib.sha256(__version__.encode() + orjson.dumps(config)).hexdigest()
    return f"fp_{digest[:10]}"


def error_frame(error: KolosalError) -> bytes:
    """The last frame of a stream that failed. No `[DONE]` follows, so official clients raise it."""
    return data_frame(error_body(error))


def usage_of_prompt(generations: Sequence[Usage]) -> Usage:
    """The counts of all generations of one prompt: its own tokens once, and those of every answer."""
    return replace(generations[0], completion_tokens=sum(usage.completion_tokens for usage in generations))


def token_counts(usage: Usage, reasoning_tokens: int = 0) -> TokenCounts:
    """`usage` of an answer; thoughts are counted among its `completion_tokens`."""
    counts: TokenCounts = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if reasoning_tokens:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return counts


def timings(usage: Usage, seconds: tuple[float, float], generations: int = 1) -> Timings:
    """`timings` of an answer; `seconds` is what a `Stopwatch` gives. The usage may be that of several generations at once."""
    prompt_s, predicted_s = seconds
    prompt_n, predicted_n = usage.prompt_tokens - usage.cached_tokens, usage.completion_tokens
    intervals = max(0, predicted_n - generations)
    return {
        "cache_n": usage.cached_tokens,
        "prompt_n": prompt_n,
        "prompt_ms": round(1000 * prompt_s, 3),
        "prompt_per_token_ms": _ratio(1000 * prompt_s, prompt_n),
        "prompt_per_second": _ratio(prompt_n, prompt_s),
        "predicted_n": predicted_n,
        "predicted_ms": round(1000 * predicted_s, 3),
        "predicted_per_token_ms": _ratio(1000 * predicted_s, intervals),
        "predicted_per_second": _ratio(intervals, predicted_s),
    }


def _ratio(part: float, whole: float) -> float:
    return round(part / whole, 3) if whole else 0.0


def token_logprobs(entries: Sequence[TokenLogprobs], *, spell_control: bool) -> list[ChosenLogprob]:
    """One entry for each token. Control tokens have their spelling, or else nothing, which is what they add to the text."""

    def one(token: TokenLogprob) -> TopLogprob:
        data = token.written if spell_control else token.data
        return {"token": data.decode(errors="replace"), "bytes": list(data), "logprob": token.logprob}

    return [{**one(entry.chosen), "top_logprobs": [one(token) for token in entry.top]} for entry in entries]
