"""Writes GGUF headers byte by byte, right ones and wrong ones, for tests of what reads them before llama.cpp does."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kolosal.engines.memory.model_shape import ModelShape

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
F32, F16 = 0, 1

_FORMATS = {
    UINT8: "<B", INT8: "<b", UINT16: "<H", INT16: "<h", UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?",
    UINT64: "<Q", INT64: "<q", FLOAT64: "<d",
}  # fmt: skip

Typed = tuple[int, object]
"""The number of a type, and a value; of an array the type of its elements and a list."""


def text(value: str | bytes) -> bytes:
    """A string with its length."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(kind: int, given: object) -> bytes:
    """A value without its type."""
    if kind == STRING:
        return text(given)  # type: ignore[arg-type]
    if kind == ARRAY:
        element: int
        items: list[object]
        element, items = given  # type: ignore[misc]
        return struct.pack("<IQ", element, len(items)) + b"".join(value(element, item) for item in items)
    return struct.pack(_FORMATS[kind], given)


def weight_bytes(shape: ModelShape) -> int:
    """All tensors of a model."""
    once = 0 if shape.tied else shape.output_bytes
    return sum(layer.weight_bytes for layer in shape.layers) + shape.input_bytes + once


@dataclass
class Tensor:
    """A tensor as it stands in the header; `n_bytes` of data follow."""

    name: str
    shape: Sequence[int] = (32,)
    kind: int = F32
    offset: int | None = None
    """None: behind the one before."""
    n_bytes: int | None = None


LLAMA: dict[str, Typed] = {
    "general.architecture": (STRING, "llama"),
    "llama.block_count": (UINT32, 2),
    "llama.context_length": (UINT32, 2048),
    "llama.embedding_length": (UINT32, 64),
    "llama.feed_forward_length": (UINT32, 128),
    "llama.attention.head_count": (UINT32, 4),
    "llama.attention.head_count_kv": (UINT32, 2),
    "tokenizer.ggml.tokens": (ARRAY, (STRING, [f"token {n}" for n in range(50)])),
    "tokenizer.ggml.scores": (ARRAY, (FLOAT32, [0.0] * 50)),
}

TENSORS = (
    Tensor("token_embd.weight", (64, 50)),
    Tensor("blk.0.attn_q.weight", (64, 64)),
    Tensor("blk.1.attn_q.weight", (64, 64), F16),
    Tensor("output.weight", (64, 50)),
)


def gguf(
    metadata: Mapping[str, Typed] = LLAMA,
    tensors: Sequence[Tensor] = TENSORS,
    *,
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
    data: bool = True,
) -> bytes:
    """A whole file: what is not given is right."""
    n_keys = len(metadata) if n_keys is None else n_keys
    n_tensors = len(tensors) if n_tensors is None else n_tensors
    parts = [b"GGUF", struct.pack("<IQQ", version, n_tensors, n_keys)]
    parts += [
        text(key) + struct.pack("<I", kind) + value(kind, given) for key, (kind, given) in metadata.items()
    ]
    offset = 0
    for tensor in tensors:
        n_values = 1
        for length in tensor.shape:
            n_values *= length
        n_bytes = n_values * (2 if tensor.kind == F16 else 4) if tensor.n_bytes is None else tensor.n_bytes
        at = offset if tensor.offset is None else tensor.offset
        parts.append(
            text(tensor.name) + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        )
        parts.append(struct.pack("<IQ", tensor.kind, at))
        offset += -(-n_bytes // alignment) * alignment
    header = b"".join(parts)
    padding = b"\0" * (-len(header) % alignment)
    return header + padding + (b"\0" * offset if data else b"")


def corrupt() -> Iterator[tuple[str, bytes]]:
    """More than two hundred files that no one may load, each with what is wrong with it."""
    good = gguf()
    header = len(gguf(data=False))
    for length in (1, 4, 16, *(header * n // 64 for n in range(1, 64))):
        yield f"cut off after {length} bytes", good[:length]
    for n in range(1, 33):
        yield f"{n} bytes of tensor data missing", good[: len(good) - n]
    yield from _bad_counts()
    yield from _bad_metadata()
    yield from _bad_tensors()
    for position in range(4):
        yield (
            f"byte {position} of the magic changed",
            bytes(byte ^ 0xFF if i == position else byte for i, byte in enumerate(good)),
        )
    yield "big-endian", b"GGUF" + struct.pack(">IQQ", 3, 4, 9) + good[24:]
    for version in (0, 1, 4, 5, 255, 2**31, 2**32 - 1):
        yield f"version {version}", gguf(version=version)


_HUGE = (2**16 + 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def _bad_counts() -> Iterator[tuple[str, bytes]]:
    for count in _HUGE:
        yield f"{count} keys", gguf(n_keys=count)
        yield f"{count} tensors", gguf(n_tensors=count)
        yield f"a key of {count} bytes", gguf(data=False)[:24] + struct.pack("<Q", count) + b"x" * 64
        yield f"a string of {count} bytes", _with_raw(STRING, struct.pack("<Q", count) + b"x" * 64)
        for element in (UINT8, FLOAT64, STRING):
            yield (
                f"an array of {count} of type {element}",
                _with_raw(ARRAY, struct.pack("<IQ", element, count)),
            )
        yield (
            f"a tensor name of {count} bytes",
            gguf({"general.architecture": (STRING, "llama")}, (), n_tensors=1)[:-8]
            + struct.pack("<Q", count)
            + b"x" * 64,
        )
        strings = struct.pack("<IQ", STRING, 3) + text("a") + struct.pack("<Q", count) + b"x" * 64
        yield f"a string of {count} bytes in an array", _with_raw(ARRAY, strings)


def _bad_metadata() -> Iterator[tuple[str, bytes]]:
    for kind in (13, 14, 255, 2**31, 2**32 - 1):
        yield f"a value of type {kind}", _with_raw(kind, b"\0" * 64)
        yield f"an array of type {kind}", _with_raw(ARRAY, struct.pack("<IQ", kind, 2) + b"\0" * 64)
    yield "an array of arrays", _with_raw(ARRAY, struct.pack("<IQIQ", ARRAY, 1, UINT8, 1) + b"\0" * 64)
    twice = gguf({"general.architecture": (STRING, "llama")}, (Tensor("a"),), n_keys=2, data=False)
    first = text("general.architecture") + struct.pack("<I", STRING) + text("llama")
    yield "a key twice", twice[:24] + first + first + b"\0" * 200
    for alignment in (0, 1 << 31, 3, 31, 33, 96):
        yield f"alignment {alignment}", gguf({**LLAMA, "general.alignment": (UINT32, alignment)})
    for kind, given in ((STRING, "32"), (UINT64, 32), (INT32, 32), (FLOAT32, 32.0), (BOOL, True)):
        yield f"alignment of type {kind}", gguf({**LLAMA, "general.alignment": (kind, given)})
    yield "no architecture", gguf({key: LLAMA[key] for key in LLAMA if key != "general.architecture"})
    for name in ("", "a" * 65, "a/b", "../x", "\0"):
        yield f"architecture {name!r}", gguf({**LLAMA, "general.architecture": (STRING, name)})
    yield "an architecture that is a number", gguf({**LLAMA, "general.architecture": (UINT32, 7)})
    yield "no tensors", gguf(tensors=())


def _bad_tensors() -> Iterator[tuple[str, bytes]]:
    def one(**fields: object) -> bytes:
        return gguf(tensors=(*TENSORS[:1], Tensor(**{"name": "blk.0.x", "n_bytes": 4096, **fields})))  # type: ignore[arg-type]

    for shape in (
        (),
        (0,),
        (0, 32),
        (32, 0),
        (2**63,),
        (2**64 - 1,),
        (2**32, 2**32),
        (2**31, 2**31, 2**31),
        (1,) * 5,
    ):
        yield f"shape {shape}", one(shape=shape)
    for kind in (4, 5, 31, 32, 33, 36, 37, 38, 42, 255, 2**31, 2**32 - 1):
        yield f"tensor type {kind}", one(kind=kind)
    for kind in (2, 8, 12):
        yield f"rows of 31 values of type {kind}", one(kind=kind, shape=(31,))
    for offset in (0, 1, 31, 12_832, 12_768, 2**32, 2**63, 2**64 - 32, 2**64 - 1):
        yield f"offset {offset}", one(offset=offset)
    yield "a name twice", gguf(tensors=(Tensor("a"), Tensor("a")))
    yield "a tensor longer than the file", one(shape=(2**40,))
    yield "a name of 64 bytes", one(name="x" * 64)


def _with_raw(kind: int, raw: bytes) -> bytes:
    """A file whose second value is what is given."""
    start = gguf({"general.architecture": (STRING, "llama")}, (), n_keys=2, n_tensors=1, data=False).rstrip(
        b"\0"
    )
    return start + text("x.y") + struct.pack("<I", kind) + raw
