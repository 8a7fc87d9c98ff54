"""The process that compiles a grammar before the worker does, to see what that costs.

llguidance recurses where a grammar is deep, and takes as long as it takes: here an overflow or a minute ends a process that has
nothing else to do. The vocabulary does not matter to that, but for its special tokens, so it is the bytes and those.

A request is `{"vocabulary": …}` or `{"task": …}`; the answer to a task is the grammar in llguidance's own form. See
`sandbox/serve.py`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Sequence
from typing import Any, Final

from llguidance import LLMatcher, LLTokenizer

from kolosal.engines.worker.grammars.limits import CHECK_STACK_BYTES, LIMITS, parser_limits
from kolosal.engines.worker.grammars.llguidance_text import GrammarPart, GrammarTask, grammar_text
from kolosal.engines.worker.sandbox.serve import answers_line, attempt, serve

_N_STEPS: Final = 48
"""Steps that are tried: an ambiguous grammar costs more with each."""


class _ByteVocabulary:
    """A vocabulary as `LLTokenizer` wants it: bytes, special tokens where the model has them, and nothing."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, n_vocab: int, special: dict[str, str], eos: int) -> None:
        self.eos_token_id = eos
        self.tokens = [b""] * n_vocab
        for number, text in special.items():
            self.tokens[int(number)] = b"\xff" + text.encode()
        free = (number for number in range(n_vocab) if not self.tokens[number])
        self._tokens_of_bytes = dict(zip(range(255), free, strict=False))  # 255 marks special ones
        for byte, token in self._tokens_of_bytes.items():
            self.tokens[token] = bytes([byte])
        self.byte_tokens = [*self._tokens_of_bytes.values()]

    def __call__(self, text: str | bytes) -> list[int]:
        data = text if isinstance(text, bytes) else text.encode()
        return [self._tokens_of_bytes[byte] for byte in data]


class GrammarCheck:
    """Answers requests, for the vocabulary that it was told last."""

    def __init__(self) -> None:
        self._tokenizer = LLTokenizer("byte")
        self._byte_tokens: Collection[int] = range(256)

    def answer(self, request: dict[str, Any]) -> bytes:
        """The line that answers a request."""
        if "vocabulary" in request:
            return answers_line([attempt(self._take, request["vocabulary"])])
        return answers_line([attempt(self._compile, GrammarTask(*request["task"]))])

    def _take(self, vocabulary: dict[str, Any]) -> dict[str, str]:
        ends: list[int] = vocabulary["eos"]
        tokens = _ByteVocabulary(vocabulary["n_vocab"], vocabulary["special"], ends[0])
        self._byte_tokens = tokens.byte_tokens
        self._tokenizer = LLTokenizer(tokens, eos_token=ends)  # type: ignore[arg-type]
        return {}

    def _compile(self, task: GrammarTask) -> dict[str, str]:
        text = grammar_text(task)
        matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=parser_limits())
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            raise ValueError(matcher.get_error().strip())
        _walk(matcher, self._byte_tokens)
        return {"text": text}


def _walk(matcher: LLMatcher, byte_tokens: Collection[int]) -> None:
    """Follow a grammar at random for some steps, away from its end. Where that leads does not matter, only what it costs."""
    choice = random.Random(0)  # noqa: S311 - the same each time
    for _ in range(_N_STEPS):
        forced = matcher.compute_ff_tokens()
        if forced:
            matcher.consume_tokens(forced)
        mask = matcher.compute_bitmask()
        if matcher.is_stopped():
            return
        allowed = [token for token in byte_tokens if mask[token >> 3] >> (token & 7) & 1]
        if not allowed or not matcher.consume_token(choice.choice(allowed)):
            return


def main() -> None:
    """Answer requests until the worker is gone, on a thread whose stack is known."""
    check = GrammarCheck()
    check.answer(
        {"task": GrammarTask([GrammarPart("", "regex", "[ab]")], None, {})}
    )  # what is loaded late is loaded
    threading.stack_size(CHECK_STACK_BYTES)
    thread = threading.Thread(target=serve, args=(check.answer, LIMITS))
    thread.start()
    thread.join()
