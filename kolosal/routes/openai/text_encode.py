"""What a completion looks like on the wire: whole answers and chunks.

Pure: from `Completion`s and `TokenDelta`s to JSON values and frames.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kolosal.engines.stream import Completion
from kolosal.http.sse import DONE, data_frame
from kolosal.routes.openai.encode import answer_id, stream_id, timings_body, usage_body
from kolosal.routes.openai.text_logprobs import TextLogprobs
from kolosal.schema import TokenDelta, TokenLogprobs, Usage

Timings = Callable[[int], tuple[float, float]]
"""Seconds until the first token of a generation, and from there on."""


@dataclass(frozen=True, slots=True)
class TextPlan:
    """What a request wants of its generations: `made` for each prompt, of which the best `shown` are its choices."""

    shown: int
    made: int
    logprobs: bool
    """Whether choices have `logprobs`."""
    echoes: tuple[str, ...] | None = None
    """The text of each prompt, where the choices begin with it."""

    def echo(self, generation: int) -> str:
        """What the choice of a generation begins with."""
        return "" if self.echoes is None else self.echoes[generation // self.made]

    def new_logprobs(self, generation: int) -> TextLogprobs | None:
        """The log-probabilities of a choice, to be filled as its tokens come."""
        return TextLogprobs(self.echo(generation)) if self.logprobs else None

    def chosen(self, completions: Sequence[Completion]) -> list[int]:
        """The generations that are choices, in the order of the prompts; the best first where there were more."""
        if self.made == self.shown:
            return list(range(len(completions)))
        groups = [range(first, first + self.made) for first in range(0, len(completions), self.made)]
        ranked = [sorted(group, key=lambda index: -_mean_logprob(completions[index])) for group in groups]
        return [index for group in ranked for index in group[: self.shown]]

    def usages(self, usages: Sequence[Usage]) -> list[Usage]:
        """True counts for each prompt: its own tokens once, and those of all its generations."""
        groups = [usages[first : first + self.made] for first in range(0, len(usages), self.made)]
        return [
            Usage(group[0].prompt_tokens, sum(u.completion_tokens for u in group), group[0].cached_tokens)
            for group in groups
        ]


def _mean_logprob(completion: Completion) -> float:
    own = [entry.chosen.logprob for entry in completion.logprobs if not entry.in_prompt]
    return sum(own) / len(own) if own else 0.0


def text_answer(
    plan: TextPlan, model: str, completions: Sequence[Completion], timings: Timings
) -> dict[str, Any]:
    """The answer to a request that does not stream."""
    usages = [completion.usage for completion in completions]
    return {
        "id": answer_id("cmpl"),
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            _whole(plan, position, index, completions[index])
            for position, index in enumerate(plan.chosen(completions))
        ],
        "usage": usage_body(plan.usages(usages)),
        "timings": _timings(usages, timings),
    }


def _whole(plan: TextPlan, position: int, generation: int, completion: Completion) -> dict[str, Any]:
    logprobs = plan.new_logprobs(generation)
    body = None if logprobs is None else logprobs.body(completion.logprobs)
    return _choice(position, plan.echo(generation) + completion.text, completion.finish_reason, body)


def _choice(
    index: int, text: str, finish_reason: str | None = None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}


def _timings(usages: Sequence[Usage], timings: Timings) -> dict[str, Any]:
    """Of all generations together: the counts added, the times those of the longest."""
    total = sum(usages[1:], usages[0])
    each = [timings(index) for index in range(len(usages))]
    return timings_body(total, (max(first for first, _ in each), max(rest for _, rest in each)))


async def text_frames(
    plan: TextPlan,
    model: str,
    deltas: AsyncIterator[tuple[int, TokenDelta]],
    timings: Timings,
    *,
    choices: int,
    include_usage: bool,
) -> AsyncGenerator[bytes, None]:
    """The frames of a stream: each choice's first chunk, pieces, each one's empty last chunk, usage, `[DONE]`.

    The first chunk is empty, or has the prompt where it is echoed. The last of all has `timings`.
    """
    created = int(time.time())
    envelope = {
        "id": stream_id("cmpl", created),
        "object": "text_completion",
        "created": created,
        "model": model,
    }
    no_usage: dict[str, Any] = {"usage": None} if include_usage else {}

    def frame(choice: dict[str, Any], **more: object) -> bytes:
        return data_frame({**envelope, "choices": [choice], **no_usage, **more})

    logprobs = [plan.new_logprobs(index) for index in range(choices)]
    usages: dict[int, Usage] = {}
    for index in range(choices):
        yield frame(_choice(index, plan.echo(index)))
    async for index, delta in deltas:
        if delta.text or delta.logprobs:
            yield frame(_choice(index, delta.text, None, _piece_logprobs(logprobs[index], delta.logprobs)))
        if delta.finish_reason is not None and delta.usage is not None:
            usages[index] = delta.usage
            is_last = len(usages) == choices and not include_usage
            more = {"timings": _timings([*usages.values()], timings)} if is_last else {}
            yield frame(_choice(index, "", delta.finish_reason), **more)
    if include_usage:
        each = [usages[index] for index in range(choices)]
        body = usage_body(plan.usages(each))
        yield data_frame({**envelope, "choices": [], "usage": body, "timings": _timings(each, timings)})
    yield DONE


def _piece_logprobs(logprobs: TextLogprobs | None, entries: Sequence[TokenLogprobs]) -> dict[str, Any] | None:
    return logprobs.body(entries) if logprobs is not None and entries else None
