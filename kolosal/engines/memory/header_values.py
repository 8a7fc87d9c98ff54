"""Values of a header that no model can have: llama.cpp believes them, and ends with the first token. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from kolosal.engines.memory.gguf import TOKENS, GgufHeader, Value
from kolosal.errors import ModelFileError

_TOKEN_ID = ("tokenizer.ggml.", "_token_id")
_MAY_BE_ANYTHING = "tokenizer.ggml.padding_token_id"
"""Nothing is padded here, and files are around that give -1."""

_RULES: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("_epsilon", "must be at least 0 and less than 1", lambda number: 0 <= number < 1),
    (".rope.freq_base", "must be greater than 0", lambda number: number > 0),
    (".rope.freq_base_swa", "must be greater than 0", lambda number: number > 0),
    (".rope.scaling.factor", "must be at least 0", lambda number: number >= 0),
)
"""Ends of keys, and what their numbers must be."""


def check_values(header: GgufHeader) -> None:
    """Refuse numbers that are none, scales that divide by 0, and special tokens that the vocabulary has not.

    Raises:
        ModelFileError: one sentence says which value is wrong.
    """
    n_vocab = header.lengths.get(TOKENS)
    for key, value in header.metadata.items():
        numbers = _numbers(value)
        if not all(map(math.isfinite, numbers)):
            raise _wrong(key, value, "must be a finite number")
        for ending, rule, holds in _RULES:
            if key.endswith(ending) and not (numbers and all(map(holds, numbers))):
                raise _wrong(key, value, rule)
        if n_vocab is not None and _names_a_token(key) and not _is_token(value, n_vocab):
            raise _wrong(key, value, f"must be a token of the vocabulary, 0 to {n_vocab - 1}")


def _names_a_token(key: str) -> bool:
    begin, end = _TOKEN_ID
    return key.startswith(begin) and key.endswith(end) and key != _MAY_BE_ANYTHING


def _is_token(value: Value, n_vocab: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < n_vocab


def _numbers(value: Value) -> tuple[float, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(one for one in values if isinstance(one, int | float) and not isinstance(one, bool))


def _wrong(key: str, value: Value, rule: str) -> ModelFileError:
    shown = repr(value) if len(repr(value)) <= 64 else f"{repr(value)[:64]}…"
    return ModelFileError(
        f"The model file says that {key} is {shown}, and it {rule}",
        param="model_path",
        code="invalid_model_format",
    )
