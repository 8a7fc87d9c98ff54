"""What llama-server's own generations look like on the wire. Pure: from merged `TokenDelta`s to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

from typing_extensions import TypedDict

from kolosal.routes.openai.encode import Timings, timings
from kolosal.sampling import DEFAULT_SEED, SamplingParams
from kolosal.schema import FinishReason, TokenDelta, TokenLogprob, TokenLogprobs, Usage

_NO_SLOT = -1
"""`id_slot`: which of the cells an answer had is no fact that a client could use."""


_OTHERWISE = frozenset({"max_tokens", "seed", "seed_offset", "logit_bias", "logprobs", "given"})
"""Fields of `SamplingParams` that `generation_settings` has in another form, or not at all."""


class TokenProbability(TypedDict):
    """A token and how probable the model held it."""

    id: int
    token: str
    bytes: list[int]
    logprob: float


class CompletionProbability(TokenProbability):
    """A token of the answer, with the most probable ones in its place."""

    top_logprobs: list[TokenProbability]


class NativePiece(TypedDict, total=False):
    """A piece of an answer: an event of a stream. `response_fields` may leave out any of it."""

    index: int
    """The prompt's place, times the answers to each, plus the answer's."""
    content: str
    tokens: list[int]
    id_slot: int
    stop: bool
    """Whether this is the last of its index."""
    tokens_predicted: int
    tokens_evaluated: int
    """Of the prompt."""
    completion_probabilities: list[CompletionProbability]
    """With `n_probs`."""
    timings: Timings
    """In the last event, and with `timings_per_token` in each."""


class NativeAnswer(NativePiece, total=False):
    """A whole answer. A stream's last event of an index is one, with what is new in it."""

    model: str
    prompt: str
    """As text."""
    generation_settings: dict[str, Any]
    has_new_line: bool
    truncated: bool
    stop_type: Literal["eos", "word", "limit"]
    stopping_word: str
    tokens_cached: int
    """Cells that prompt and answer have."""


def stop_type_of(delta: TokenDelta) -> Literal["eos", "word", "limit"]:
    """Why an answer ended."""
    if delta.finish_reason is FinishReason.LENGTH:
        return "limit"
    return "eos" if delta.stop is None else "word"


def native_piece(
    index: int, delta: TokenDelta, usage: Usage, *, probabilities: bool, tokens: bool
) -> NativePiece:
    """What a delta adds. `usage` counts up to it."""
    piece: NativePiece = {
        "index": index,
        "content": delta.text,
        "tokens": list(delta.tokens) if tokens else [],
        "id_slot": _NO_SLOT,
        "stop": False,
        "tokens_predicted": usage.completion_tokens,
        "tokens_evaluated": usage.prompt_tokens,
    }
    if probabilities:
        piece["completion_probabilities"] = [_probability(entry) for entry in delta.logprobs]
    return piece


def native_answer(
    piece: NativePiece,
    delta: TokenDelta,
    usage: Usage,
    seconds: tuple[float, float],
    *,
    model: str,
    prompt: str,
    settings: dict[str, Any],
    has_new_line: bool,
) -> NativeAnswer:
    """The end of an answer: `piece` is its last, or all of it."""
    return {
        **piece,
        "stop": True,
        "model": model,
        "prompt": prompt,
        "generation_settings": settings,
        "has_new_line": has_new_line,
        "truncated": False,
        "stop_type": stop_type_of(delta),
        "stopping_word": delta.stop or "",
        "tokens_cached": usage.total_tokens,
        "timings": timings(usage, seconds),
    }


def generation_settings(sampling: SamplingParams, n_ctx: int, *, stream: bool) -> dict[str, Any]:
    """What an answer was made with, by llama-server's names."""
    n_predict = -1 if sampling.max_tokens is None else sampling.max_tokens
    names = (each.name for each in fields(sampling) if each.name not in _OTHERWISE)
    return {
        "n_ctx": n_ctx,
        "n_predict": n_predict,
        "max_tokens": n_predict,
        "seed": DEFAULT_SEED if sampling.seed is None else sampling.seed,
        **{name: getattr(sampling, name) for name in names},
        "logit_bias": [{"token": token, "bias": bias} for token, bias in sampling.logit_bias],
        "n_probs": sampling.logprobs or 0,
        "stream": stream,
    }


def picked(answer: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The keys of an answer that were asked for, under the names they were asked for by; those it does not have are left out."""
    found: dict[str, Any] = {}
    for path in paths:
        value: Any = answer
        for part in path.split("/"):
            if not isinstance(value, Mapping) or part not in value:
                break
            value = value[part]
        else:
            found[path] = value
    return found


def _probability(entry: TokenLogprobs) -> CompletionProbability:
    return {**_token(entry.chosen), "top_logprobs": [_token(each) for each in entry.top]}


def _token(entry: TokenLogprob) -> TokenProbability:
    data = entry.data
    return {
        "id": entry.token,
        "token": data.decode(errors="replace"),
        "bytes": list(data),
        "logprob": entry.logprob,
    }
