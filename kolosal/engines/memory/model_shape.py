"""ModelShape: the numbers of a model that its need of memory depends on. Pure: made of checked headers.

Knows how the architectures of llama.cpp name their numbers (`llama-arch.cpp`) and what it makes of them (`llama-hparams.cpp`). A number that is missing or makes no sense is None or 0, and
whoever estimates does without it: whether the model can be loaded is the worker's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from kolosal.engines.memory.gguf import GgufHeader, Value
from kolosal.errors import ModelFileError

MAX_LAYERS = 4096
"""More layers than any model has: a larger number in a file is not believed."""

_MAX_NUMBER = 2**31
_BLOCK = re.compile(r"blk\.(\d{1,4})\.")

_FULL_EVERY = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gemma3-text": 6, "gpt-oss": 2, "cohere2": 4, "exaone4": 4,
    "llama4": 4, "smallthinker": 4, "olmo2": 4, "afmoe": 4, "plamo3": 8,
}  # fmt: skip
"""Architectures with sliding windows: one layer in so many sees everything (`set_swa_pattern` in llama.cpp). In others the window
has no effect."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its weights, and what a token or a sequence leaves in it."""

    weight_bytes: int
    kv_heads: int
    """0 for a layer without attention."""
    windowed: bool
    """Whether it sees the sliding window only."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of one model, all parts of its file together."""

    architecture: str
    layers: tuple[Layer, ...]
    input_bytes: int
    """Weights before the first layer, which stay on the host."""
    output_bytes: int
    """Weights after the last layer; with tied embeddings those of the input again."""
    tied: bool
    """Whether input and output share their weights."""
    n_params: int
    n_embd: int
    n_heads: int
    n_ff: int
    n_vocab: int
    key_width: int
    """Values of one head's key."""
    value_width: int
    window: int
    """Tokens of the sliding window; 0 without one."""
    state_values: int
    """Numbers of the state that one sequence has in a recurrent layer; 0 where there is none."""

    @property
    def has_plain_attention(self) -> bool:
        """Whether every cell can be shared: not with sliding windows or recurrent states."""
        return not self.window and not self.state_values

    @classmethod
    def of(cls, headers: Sequence[GgufHeader]) -> ModelShape:
        """The shape of a model whose file has these parts.

        Raises:
            ModelFileError: the file does not say its architecture, or holds no weights.
        """
        read = _Metadata(headers[0])
        architecture = read.architecture()
        tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
        if not tensors:
            raise ModelFileError(
                "The model file holds no weights", param="model_path", code="invalid_model_format"
            )
        bytes_of = _bytes_by_place((tensor.name, tensor.n_bytes) for tensor in tensors.values())
        n_layers = min(max(read.integer("block_count") or 0, max(bytes_of, default=-1) + 1), MAX_LAYERS)
        heads = read.integer("attention.head_count") or 0
        width = read.integer("embedding_length") or 0
        kv_heads = read.per_layer("attention.head_count_kv", n_layers, otherwise=heads)
        window, windowed = _windows(read, architecture, n_layers)
        state = _state_values(read, width)
        attention = state == 0 or read.integer("attention.head_count") is not None
        embeddings = tensors["token_embd.weight"].n_bytes if "token_embd.weight" in tensors else 0
        return cls(
            architecture=architecture,
            layers=tuple(
                Layer(bytes_of.get(i, 0), kv_heads[i] if attention else 0, windowed[i])
                for i in range(n_layers)
            ),
            input_bytes=embeddings,
            output_bytes=embeddings if "output.weight" not in tensors else bytes_of.get(-1, 0) - embeddings,
            tied="output.weight" not in tensors,
            n_params=sum(tensor.n_values for tensor in tensors.values()),
            n_embd=width,
            n_heads=max(read.per_layer("attention.head_count", n_layers, otherwise=0), default=0),
            n_ff=_feed_forward(read, n_layers),
            n_vocab=headers[0].lengths.get("tokenizer.ggml.tokens", 0),
            key_width=read.integer("attention.key_length") or (width // heads if heads else 0),
            value_width=read.integer("attention.value_length") or (width // heads if heads else 0),
            window=window,
            state_values=state,
        )


class _Metadata:
    """Numbers of one architecture, where they are there and make sense."""

    def __init__(self, header: GgufHeader) -> None:
        self._values = header.metadata

    def architecture(self) -> str:
        name = self._values.get("general.architecture")
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,64}", name):
            raise ModelFileError(
                "The model file does not say its architecture in general.architecture",
                param="model_path",
                code="invalid_model_format",
            )
        return name

    def value(self, name: str) -> Value | None:
        return self._values.get(f"{self._values['general.architecture']}.{name}")

    def integer(self, name: str) -> int | None:
        """A number; of an array with one for each layer the largest."""
        value = self.value(name)
        values = value if isinstance(value, tuple) else (value,)
        numbers = [number for number in values if _is_count(number)]
        return max(numbers) if numbers and len(numbers) == len(values) else None

    def per_layer(self, name: str, n_layers: int, *, otherwise: int) -> list[int]:
        """A number for each layer, from an array or from one number for all."""
        value = self.value(name)
        if isinstance(value, tuple) and len(value) >= n_layers and all(map(_is_count, value)):
            return [number for number in value[:n_layers] if _is_count(number)]
        number = self.integer(name)
        return [otherwise if number is None else number] * n_layers


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_NUMBER


def _bytes_by_place(sizes: Iterable[tuple[str, int]]) -> dict[int, int]:
    """Bytes of each layer's tensors; those of no layer count as layer -1."""
    places: dict[int, int] = {}
    for name, n_bytes in sizes:
        match = _BLOCK.match(name)
        place = int(match[1]) if match else -1
        places[place] = places.get(place, 0) + n_bytes
    return places


def _windows(read: _Metadata, architecture: str, n_layers: int) -> tuple[int, list[bool]]:
    window = read.integer("attention.sliding_window") or 0
    pattern = read.value("attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and len(pattern) >= n_layers:
        windowed = [bool(value) for value in pattern[:n_layers]]
    else:
        period = pattern if isinstance(pattern, int) and pattern > 0 else _FULL_EVERY.get(architecture, 1)
        windowed = [(layer + 1) % period != 0 for layer in range(n_layers)]
    return (window, windowed) if window and any(windowed) else (0, [False] * n_layers)


def _state_values(read: _Metadata, width: int) -> int:
    """Numbers a sequence keeps in one recurrent layer: of state-space models, or of RWKV (`n_embd_r` and `n_embd_s` in llama.cpp)."""
    inner, state = read.integer("ssm.inner_size"), read.integer("ssm.state_size")
    if inner and state:
        kernel, groups = read.integer("ssm.conv_kernel") or 1, read.integer("ssm.group_count") or 0
        return (kernel - 1) * (inner + 2 * groups * state) + inner * state
    if head := read.integer("wkv.head_size"):
        return width * head + 2 * width
    return 0


def _feed_forward(read: _Metadata, n_layers: int) -> int:
    """The widest row between the two halves of a layer; of mixtures, all experts that are used together."""
    dense = max(read.per_layer("feed_forward_length", n_layers, otherwise=0), default=0)
    expert = read.integer("expert_feed_forward_length") or dense
    used = read.integer("expert_used_count") or 0
    return max(dense, expert * used)
