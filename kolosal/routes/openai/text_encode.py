"""What a completion looks like on the wire: whole answers and chunks.

Pure: from `Completion`s and `TokenDelta`s to JSON. The types are the API reference's ("The completion object"), with
`timings` from llama-server.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from kolosal.engines.stream import Completion
from kolosal.http.sse import DONE, data_frame
from kolosal.routes.openai.encode import (
    CountTokens,
    Stopwatch,
    Timings,
    TokenCounts,
    answer_id,
    timings,
    token_counts,
    usage_of_prompt,
)
from kolosal.routes.openai.text_logprobs import TextLogprobs, TextLogprobsWriter
from kolosal.schema import FinishReason, TokenDelta, Usage


class TextChoice(TypedDict):
    """One continuation, or a piece of it."""

    text: str
    index: int
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None
    """Null in all chunks of a choice but its last."""


class TextCompletionHead(TypedDict):
    """What whole answers and chunks have in common."""

    id: str
    object: Literal["text_completion"]
    created: int
    """Unix time in seconds."""
    model: str
    """As it was asked for."""
    system_fingerprint: str
    """Changes when the daemon's version, the model or a loading parameter does: then a seed's text may change, too."""
    choices: list[TextChoice]
    """For each prompt as many as `n`, in the order of the prompts."""


class TextCompletion(TextCompletionHead):
    """Texts continued."""

    usage: TokenCounts
    timings: Timings


class TextCompletionChunk(TextCompletionHead):
    """One event of a stream."""

    usage: NotRequired[TokenCounts | None]
    timings: NotRequired[Timings]


@dataclass(frozen=True, slots=True)
class CompletionPlan:
    """Which generations are choices: of the `best_of` that each prompt has, the best `n`."""

    n: int
    best_of: int
    logprobs: bool
    """Whether choices have `logprobs`."""
    echoes: tuple[str, ...] | None = None
    """The text of each prompt, where the choices begin with it."""

    def echo(self, generation: int) -> str:
        """What the choice of a generation begins with."""
        return "" if self.echoes is None else self.echoes[generation // self.best_of]

    def logprobs_writer(self, generation: int) -> TextLogprobsWriter | None:
        """Writes the log-probabilities of a choice as its tokens come."""
        return TextLogprobsWriter(self.echo(generation)) if self.logprobs else None

    def choices(self, completions: Sequence[Completion]) -> list[int]:
        """The generations that are choices, in the order of the prompts; the best first where there were more."""
        if self.best_of == self.n:
            return list(range(len(completions)))
        groups = [range(i, i + self.best_of) for i in range(0, len(completions), self.best_of)]
        ranked = [sorted(group, key=lambda index: -_mean_logprob(completions[index])) for group in groups]
        return [index for group in ranked for index in group[: self.n]]

    def token_counts(self, generations: Sequence[Usage]) -> TokenCounts:
        """True counts of all prompts together."""
        groups = [generations[i : i + self.best_of] for i in range(0, len(generations), self.best_of)]
        return token_counts(reduce(add, map(usage_of_prompt, groups)))


def _mean_logprob(completion: Completion) -> float:
    own = [entry.chosen.logprob for entry in completion.logprobs if not entry.in_prompt]
    return sum(own) / len(own) if own else 0.0


def text_completion(
    plan: CompletionPlan,
    model: str,
    fingerprint: str,
    completions: Sequence[Completion],
    stopwatch: Stopwatch,
) -> TextCompletion:
    """The answer to a request that does not stream."""
    usages = [completion.usage for completion in completions]
    return {
        "id": answer_id("cmpl-"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [
            _choice(plan, position, generation, completions[generation])
            for position, generation in enumerate(plan.choices(completions))
        ],
        "usage": plan.token_counts(usages),
        "timings": _timings(usages, stopwatch),
    }


def _choice(plan: CompletionPlan, position: int, generation: int, completion: Completion) -> TextChoice:
    writer = plan.logprobs_writer(generation)
    return {
        "text": plan.echo(generation) + completion.text,
        "index": position,
        "logprobs": None if writer is None else writer.write(completion.logprobs),
        "finish_reason": completion.finish_reason,
    }


def _timings(usages: Sequence[Usage], stopwatch: Stopwatch) -> Timings:
    """Of all generations together: the counts added, the times those of the longest."""
    firsts, rests = zip(*map(stopwatch, range(len(usages))), strict=True)
    return timings(reduce(add, usages), (max(firsts), max(rests)), len(usages))


async def text_frames(
    plan: CompletionPlan,
    model: str,
    fingerprint: str,
    deltas: AsyncIterator[tuple[int, TokenDelta]],
    stopwatch: Stopwatch,
    *,
    choices: int,
    include_usage: bool,
    counts: CountTokens | None = None,
) -> AsyncGenerator[bytes, None]:
    """The frames of a stream: each choice's first chunk, pieces, each one's empty last chunk, usage, `[DONE]`.

    The first chunk is empty, or has the prompt where it is echoed. The last of all has `timings`, and with
    `counts` each piece.
    """
    head = _chunk_head(model, fingerprint, include_usage=include_usage)
    writers = [plan.logprobs_writer(index) for index in range(choices)]
    usages: dict[int, Usage] = {}
    for index in range(choices):
        yield _chunk(head, index, plan.echo(index))
    async for index, delta in deltas:
        if delta.text or delta.logprobs:
            writer = writers[index]
            logprobs = writer.write(delta.logprobs) if writer is not None and delta.logprobs else None
            told = None if counts is None else timings(counts(index), stopwatch(index))
            yield _chunk(head, index, delta.text, logprobs, told=told)
        if delta.finish_reason is not None and delta.usage is not None:
            usages[index] = delta.usage
            if len(usages) == choices and not include_usage:
                head["timings"] = _timings([*usages.values()], stopwatch)
            yield _chunk(head, index, "", None, delta.finish_reason)
    if include_usage:
        each = [usages[index] for index in range(choices)]
        head["usage"], head["timings"] = plan.token_counts(each), _timings(each, stopwatch)
        yield data_frame(head)
    yield DONE


def _chunk_head(model: str, fingerprint: str, *, include_usage: bool) -> TextCompletionChunk:
    """What all chunks of a stream have; the `usage` is in the last one."""
    created = int(time.time())
    head: TextCompletionChunk = {
        "id": answer_id("cmpl-"),
        "object": "text_completion",
        "created": created,
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [],
    }
    if include_usage:
        head["usage"] = None
    return head


def _chunk(
    head: TextCompletionChunk,
    index: int,
    text: str,
    logprobs: TextLogprobs | None = None,
    finish_reason: FinishReason | None = None,
    *,
    told: Timings | None = None,
) -> bytes:
    choice: TextChoice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}
    more = {} if told is None else {"timings": told}
    return data_frame({**head, "choices": [choice], **more})
