"""Tensors that are kept elsewhere than their layer: `override_tensor` and `n_cpu_moe`, as llama.cpp means them. Pure.

A pattern is searched in a tensor's name, and the first that matches decides. Estimates search as llama.cpp will, so what takes
Python's `re` or C++'s `std::regex` too long is refused before either sees it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kolosal.engines.memory.model_shape import EXPERTS
from kolosal.engines.parameters import FittedParameters

HOST = "CPU"
"""llama.cpp's name for host memory."""

MAX_OVERRIDES = 64
"""Patterns of one engine."""

_MAX_REPEATS = 3
"""Repetitions in one pattern: each multiplies the time that a name which does not match may take."""

_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?|\)[*+{]|[*+{]|.", re.DOTALL)
_GPU = re.compile(r"[A-Za-z]+(\d{1,2})")


@dataclass(frozen=True, slots=True)
class TensorOverride:
    """Where the tensors are kept whose names match."""

    pattern: str
    buffer: str
    """A buffer type of llama.cpp: `CPU`, `CUDA0`."""

    @property
    def gpu(self) -> int | None:
        """The GPU that it names; None for host memory, and for what only llama.cpp knows."""
        found = _GPU.fullmatch(self.buffer)
        return None if found is None else int(found[1])


def given_overrides(text: str) -> tuple[TensorOverride, ...]:
    """What `override_tensor` says.

    Raises:
        ValueError: one sentence says what is wrong with it.
    """
    parts = text.split(",") if text else []
    if len(parts) > MAX_OVERRIDES:
        raise ValueError(
            f"override_tensor has {len(parts)} patterns, and at most {MAX_OVERRIDES} are allowed"
        )
    return tuple(map(_override, parts))


def all_overrides(parameters: FittedParameters) -> tuple[TensorOverride, ...]:
    """What is given, and then the experts of the first layers.

    Raises:
        ValueError: as `given_overrides`.
    """
    experts = (rf"blk\.{layer}\.{EXPERTS}" for layer in range(parameters.n_cpu_moe))
    return given_overrides(parameters.override_tensor) + tuple(TensorOverride(each, HOST) for each in experts)


def _override(text: str) -> TensorOverride:
    pattern, equals, buffer = text.rpartition("=")
    if not (pattern and equals and buffer):
        raise ValueError(
            f"override_tensor must be PATTERN=BUFFER, several with commas between, not {text[:60]!r}"
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        raise ValueError(f"override_tensor: {pattern[:60]!r} is no regular expression: {exc}") from None
    parts = _PARTS.findall(pattern)
    if any(part.startswith((")", "(?")) and len(part) > 1 for part in parts):
        raise ValueError(
            f"override_tensor: {pattern[:60]!r} must not repeat a group, nor have one that begins with '(?'"
        )
    if sum(part in {"*", "+", "{"} for part in parts) > _MAX_REPEATS:
        raise ValueError(f"override_tensor: {pattern[:60]!r} repeats more than {_MAX_REPEATS} of its parts")
    return TensorOverride(pattern, buffer)
