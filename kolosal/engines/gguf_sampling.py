"""What a model file says of how its tokens are best chosen: the keys `general.sampling.*`. Pure.

https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kolosal.sampling import SamplerStage, SamplingParams

PREFIX = "general.sampling."

FIELDS = {
    "temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold", "penalty_last_n": "repeat_last_n", "penalty_repeat": "repeat_penalty",
    "mirostat": "mirostat", "mirostat_tau": "mirostat_tau", "mirostat_eta": "mirostat_eta",
}  # fmt: skip
"""Fields of `SamplingParams`, by the ends of the keys."""

SEQUENCE = "sequence"
"""The end of the key that has the order of the samplers."""

KEYS = (*FIELDS, SEQUENCE)
"""The ends of all keys."""

_STAGES = {"typical_p": "typ_p", "temp": "temperature"}
"""Other names of stages."""


@cache
def _params() -> TypeAdapter[SamplingParams]:
    """Made when first used, as it takes milliseconds."""
    return TypeAdapter(SamplingParams)


def sampling_of_file(read: Callable[[str], object]) -> dict[str, Any]:
    """What a file says, by the names of `SamplingParams`; `read` gives the value of one of `KEYS`, or None. What is not valid is left out."""
    said: dict[str, Any] = {}
    for key, name in FIELDS.items():
        value = read(key)
        if value is not None and (valid := _valid(name, value)) is not None:
            said[name] = valid
    sequence = read(SEQUENCE)
    if isinstance(sequence, str) and (stages := _valid("samplers", _stages(sequence))):
        said["samplers"] = stages
    return said


def _valid(name: str, value: object) -> Any:
    try:  # native code gives all of them as text
        return getattr(_params().validate_python({name: value}), name)
    except ValidationError:
        return None


def _stages(sequence: str) -> tuple[str, ...]:
    """The known stages of `top_k;top_p;temperature`."""
    names = (name.strip() for name in sequence.split(";"))
    found = (_STAGES.get(name, name) for name in names)
    return tuple(name for name in found if name in {*SamplerStage})
