"""Batches: the answers that are computed together, by one `generate` of transformers after the other, on a thread of their own.

`generate` computes a batch from its beginning to its end. So one for which somebody waits is ended after the token at hand, and goes on
with those that are there then: their prompts and answers so far are the next batch's prompts.

What was computed for an answer that was alone is kept for the next one that is, so that a conversation is not read again at each of its
turns.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kolosal.backends.transformers.choice import TokenChoice

if TYPE_CHECKING:
    import torch


class BatchedAnswer:
    """One answer that is computed. Made and read on the event loop; the batch's thread does the rest."""

    def __init__(
        self,
        prompt: Sequence[int],
        generated: Sequence[int],
        most: int,
        ends: frozenset[int],
        arguments: dict[str, Any],
    ) -> None:
        """`most` tokens at most, `generated` ones included; one of `ends` ends it."""
        self.tokens = [*prompt, *generated]
        self.left = most - len(generated)
        self.n_cached = 0
        """Tokens of the prompt that were not computed for it, but found."""
        self.cache_scope: str | None = arguments["cache_scope"]
        self.over = False
        """Whether nothing more is computed: it ended, or nobody wants it any more."""
        self._ends = ends
        self.is_begun = False
        """Whether a token of it was computed."""
        self._choice = TokenChoice(arguments, prompt)
        for token in generated:
            self._choice.accept(token, replayed=True)
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[int | Exception] = asyncio.Queue()

    async def token(self) -> int:
        """The next token.

        Raises:
            Exception: the batch failed.
        """
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    # --- the batch's thread ---

    def choose(self, row: torch.Tensor) -> int:
        return self._choice.choose(row)

    def push(self, token: int) -> None:
        """Note the next token."""
        self.tokens.append(token)
        self.is_begun = True
        self.left -= 1
        self._choice.accept(token)
        self.over = self.over or token in self._ends or not self.left
        self._put(token)

    def fail(self, error: Exception) -> None:
        self.over = True
        self._put(error)

    def _put(self, item: int | Exception) -> None:
        try:
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        except RuntimeError:
            self.over = True  # the loop is closed: the process ends


@dataclass(slots=True)
class KeptCache:
    """Keys and values of one answer that was computed alone."""

    values: Any
    """A `Cache` of transformers."""
    tokens: list[int]
    scope: str

    def common(self, answer: BatchedAnswer) -> int:
        """Tokens at the beginning of an answer that are here, too; its last one is always computed."""
        if answer.cache_scope != self.scope:
            return 0
        pairs = zip(self.tokens, answer.tokens[:-1], strict=False)
        return next(
            (index for index, (mine, its) in enumerate(pairs) if mine != its),
            min(len(self.tokens), len(answer.tokens) - 1),
        )


class Batches:
    """All answers of one model."""

    def __init__(self, model: Any, pad: int, translate: Callable[[Exception], Exception]) -> None:
        """`translate` makes an error of ours of one of PyTorch's."""
        self._model = model
        self._pad = pad
        self._translate = translate
        # bounded by the turns of the worker: n_parallel answers at once
        self._new: queue.SimpleQueue[BatchedAnswer | None] = queue.SimpleQueue()
        self._kept: KeptCache | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="generate", daemon=True)
        self._thread.start()

    def add(self, answer: BatchedAnswer) -> None:
        """Compute an answer too, from the next token on."""
        self._new.put(answer)

    def close(self, timeout_s: float) -> None:
        """End after the token at hand."""
        self._closing = True
        self._new.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        answers: list[BatchedAnswer] = []
        while not self._closing:
            while not answers or not self._new.empty():
                item = self._new.get()
                if item is None:
                    return
                answers.append(item)
            answers = [each for each in answers if not each.over]
            if not answers:
                continue
            try:
                self._generate(answers)
            except Exception as exc:  # noqa: BLE001 - whatever it is, these answers end with it and others come
                self._kept = None
                for each in answers:
                    each.fail(self._translate(exc))

    def _generate(self, answers: list[BatchedAnswer]) -> None:
        """Compute a batch until all of it is over, or somebody waits."""
        import torch  # noqa: PLC0415 - an extra

        width = max(len(each.tokens) for each in answers)
        rows = [[self._pad] * (width - len(each.tokens)) + each.tokens for each in answers]
        mask = [[0] * (width - len(each.tokens)) + [1] * len(each.tokens) for each in answers]
        steps = _Steps(answers, lambda: self._closing or not self._new.empty())
        cache = self._cache_for(answers)
        with torch.inference_mode():
            made = self._model.generate(
                torch.tensor(rows, device=self._model.device),
                attention_mask=torch.tensor(mask, device=self._model.device),
                logits_processor=[steps.choose],
                stopping_criteria=[steps.stop],
                streamer=steps,
                do_sample=False,
                max_new_tokens=max(each.left for each in answers),
                cache=cache,
                return_dict_in_generate=True,
            )
        self._keep(answers, made.cache)

    def _cache_for(self, answers: list[BatchedAnswer]) -> Any:
        """What was kept, cut down to what an answer that is alone begins with alike; None where nothing of it is."""
        kept, self._kept = self._kept, None
        if kept is None or len(answers) > 1:
            return None
        common = kept.common(answers[0])
        if common < len(kept.tokens):
            if not common or any(kept.values.is_sliding):
                return None
            kept.values.crop(common - len(kept.tokens))
        if not answers[0].is_begun:
            answers[0].n_cached = common
        return kept.values

    def _keep(self, answers: list[BatchedAnswer], values: Any) -> None:
        """Keep what an answer that was alone has; its last token was not computed."""
        from transformers import DynamicCache  # noqa: PLC0415 - an extra

        scope = answers[0].cache_scope
        if len(answers) == 1 and scope is not None and isinstance(values, DynamicCache):
            self._kept = KeptCache(values, answers[0].tokens[: values.get_seq_length()], scope)


class _Steps:
    """What `generate` calls at each token: to choose it, to stream it, and to know whether to stop."""

    def __init__(self, answers: list[BatchedAnswer], wanted: Callable[[], bool]) -> None:
        """`wanted` says whether the batch is to end for another one."""
        self._answers = answers
        self._wanted = wanted
        self._saw_prompt = False

    def choose(self, _ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Logits of which the largest is the token that each row chose."""
        chosen = logits.new_full(logits.shape, float("-inf"))
        for index, answer in enumerate(self._answers):
            chosen[index, 0 if answer.over else answer.choose(logits[index])] = 0
        return chosen

    def put(self, tokens: torch.Tensor) -> None:
        """A streamer's: the prompts first, then a token of each row."""
        if not self._saw_prompt:
            self._saw_prompt = True
            return
        for answer, token in zip(self._answers, tokens.tolist(), strict=True):
            if not answer.over:
                answer.push(token)

    def end(self) -> None:
        """A streamer's."""

    def stop(self, ids: torch.Tensor, _scores: torch.Tensor, **_kwargs: Any) -> torch.Tensor:
        """For each row, whether it is over."""
        wanted = self._wanted()
        return ids.new_tensor([wanted or answer.over for answer in self._answers]).bool()
