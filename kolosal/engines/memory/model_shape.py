"""ModelShape: the numbers of a model that its need of memory depends on. Pure: made of checked headers.

Knows how the architectures of llama.cpp name their numbers (`llama-arch.cpp`) and what it makes of them (`llama-hparams.cpp`). A number that is missing or makes no sense is None or 0, and
whoever estimates does without it: whether the model can be loaded is the worker's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from kolosal.engines.memory.gguf import GgufHeader, Value
from kolosal.engines.memory.limits import MemoryKind
from kolosal.errors import ModelFileError

MAX_LAYERS = 4096
"""More layers than any model has: a larger number in a file is not believed."""

_MAX_NUMBER = 2**31
_BLOCK = re.compile(r"blk\.(\d{1,4})\.")

INPUT = "token_embd.weight"
"""The name of the input's embeddings."""

EXPERTS = r"ffn_(up|down|gate|gate_up)_(ch|)exps"
"""Names of the tensors of a layer that its experts are made of (`LLM_FFN_EXPS_REGEX` in llama.cpp)."""

_EXPERTS = re.compile(rf"\.{EXPERTS}")

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
    expert_bytes: int = 0
    """Of `weight_bytes` those of its experts, of which a token needs few."""


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
    n_ctx_train: int = 0
    """Tokens the model was trained for; 0 where its file does not say."""
    tensors: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each tensor, by its name."""

    @property
    def memory_kind(self) -> MemoryKind:
        """What it remembers a sequence by."""
        return MemoryKind(
            windows=bool(self.window),
            states=bool(self.state_values),
            state_bytes=state_bytes(self.state_values, len(self.layers)),
        )

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
        sizes = {tensor.name: tensor.n_bytes for tensor in tensors.values()}
        bytes_of, expert_bytes = _bytes_by_place(sizes)
        n_layers = min(max(read.integer("block_count") or 0, max(bytes_of, default=-1) + 1), MAX_LAYERS)
        heads = read.integer("attention.head_count") or 0
        width = read.integer("embedding_length") or 0
        kv_heads = read.per_layer("attention.head_count_kv", n_layers, otherwise=heads)
        window, windowed = _windows(read, architecture, n_layers)
        state = state_values(read.integer)
        attends = _attention(read, state, kv_heads)
        embeddings = sizes.get(INPUT, 0)
        return cls(
            architecture=architecture,
            layers=tuple(
                Layer(
                    bytes_of.get(i, 0),
                    kv_heads[i] if attends[i] else 0,
                    windowed[i],
                    expert_bytes.get(i, 0),
                )
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
            value_width=0
            if read.is_latent
            else read.integer("attention.value_length") or (width // heads if heads else 0),
            window=window,
            state_values=state,
            n_ctx_train=read.integer("context_length") or 0,
            tensors=sizes,
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

    @property
    def is_latent(self) -> bool:
        """Whether keys and values are kept as one (multi-head latent attention): a value is a part of its key."""
        return bool(self.integer("attention.key_length_mla") and self.integer("attention.value_length_mla"))

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


def place_of(tensor: str) -> tuple[int | None, bool]:
    """The layer that a tensor belongs to, by its name, None for none; and whether experts are made of it."""
    match = _BLOCK.match(tensor)
    return (None, False) if match is None else (int(match[1]), bool(_EXPERTS.search(tensor)))


def _bytes_by_place(sizes: Mapping[str, int]) -> tuple[dict[int, int], dict[int, int]]:
    """Bytes of each layer's tensors, and of those that experts are made of; those of no layer count as layer -1."""
    places: dict[int, int] = {}
    experts: dict[int, int] = {}
    for name, n_bytes in sizes.items():
        layer, is_expert = place_of(name)
        place = -1 if layer is None else layer
        places[place] = places.get(place, 0) + n_bytes
        if is_expert:
            experts[place] = experts.get(place, 0) + n_bytes
    return places, experts


def _windows(read: _Metadata, architecture: str, n_layers: int) -> tuple[int, list[bool]]:
    window = read.integer("attention.sliding_window") or 0
    pattern = read.value("attention.sliding_window_pattern")
    if isinstance(pattern, tuple) and len(pattern) >= n_layers:
        windowed = [bool(value) for value in pattern[:n_layers]]
    else:
        period = pattern if isinstance(pattern, int) and pattern > 0 else _FULL_EVERY.get(architecture, 1)
        windowed = [(layer + 1) % period != 0 for layer in range(n_layers)]
    return (window, windowed) if window and any(windowed) else (0, [False] * n_layers)


def _attention(read: _Metadata, state_values: int, kv_heads: Sequence[int]) -> list[bool]:
    """Which layers have attention: in models with recurrent layers those with heads, or one in so many."""
    if not state_values:
        return [True] * len(kv_heads)
    if read.integer("attention.head_count") is None:
        return [False] * len(kv_heads)
    period = read.integer("full_attention_interval")
    return [heads > 0 and (not period or (layer + 1) % period == 0) for layer, heads in enumerate(kv_heads)]


def state_values(number: Callable[[str], int | None]) -> int:
    """Numbers a sequence keeps in one recurrent layer: of state-space models, short convolutions (LFM2), or RWKV (`n_embd_r` and
    `n_embd_s` in llama.cpp). `number` reads one of the model's metadata, by its name without the architecture."""
    width = number("embedding_length") or 0
    inner, state = number("ssm.inner_size"), number("ssm.state_size")
    if inner and state:
        kernel, groups = number("ssm.conv_kernel") or 1, number("ssm.group_count") or 0
        return (kernel - 1) * (inner + 2 * groups * state) + inner * state
    if head := number("wkv.head_size"):
        return width * head + 2 * width
    return width * ((number("shortconv.l_cache") or 1) - 1)


def state_bytes(values: int, n_layers: int) -> int:
    """Bytes of the states of one sequence, if all layers had one of so many numbers."""
    return 4 * values * n_layers


def _feed_forward(read: _Metadata, n_layers: int) -> int:
    """The widest row between the two halves of a layer; of mixtures, all experts that are used together."""
    dense = max(read.per_layer("feed_forward_length", n_layers, otherwise=0), default=0)
    expert = read.integer("expert_feed_forward_length") or dense
    used = read.integer("expert_used_count") or 0
    return max(dense, expert * used)
