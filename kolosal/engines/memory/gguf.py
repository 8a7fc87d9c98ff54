"""GgufHeader: what a GGUF file says of itself, read before any native code sees the file.

The format is that of ggml (docs/gguf.md in its repository), versions 2 and 3, little-endian. Owns the bounds: every count, length, offset and size is checked against what the file can hold before it is used, so that a
hostile file costs a second and a few megabytes at most. Long strings and arrays are skipped, not kept. Nothing of a
tensor's data is read. Blocks on the disk: the event loop calls it in a thread.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TypeAlias

from kolosal.engines.memory.ggml import GGML_TYPES
from kolosal.errors import ModelFileError
from kolosal.files.regular import open_regular

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | tuple[Scalar, ...]

GGUF_MAGIC = b"GGUF"
"""The first four bytes of every GGUF file."""
MAX_HEADER_BYTES = 256 * 1024 * 1024
"""Bytes before the tensor data. The largest vocabularies take some 30 MiB."""
MAX_KEYS = 65_536
"""Metadata keys of one file; models have some fifty."""
MAX_TENSORS = 65_536
"""Tensors of one file; the largest models have a few thousand."""
MAX_STRINGS = 2_000_000
"""Strings in all arrays of one file. They are walked over one by one; vocabularies with their merges have 800,000."""
MAX_KEPT_CHARS = 4096
"""Strings longer than this are not kept: licences and the like."""
MAX_TEMPLATE_CHARS = 256 * 1024
"""The same for the chat template; real ones have some 10,000 characters."""
MAX_KEPT_VALUES = 4096
"""Arrays longer than this are not kept. Those with one value for each layer are shorter."""
MAX_KEPT_STRINGS = 16
"""Arrays of more strings than this are not kept: vocabularies. Lists of languages and the like are shorter."""
_MAX_KEPT_STRINGS_OF_ALL = 4096
"""The same for all arrays of one file together: reading them one by one takes time."""
MAX_KEPT_BYTES = 24 * 1024 * 1024
"""Memory for names and values of one file, by a rough count."""
_ENTRY_BYTES, _VALUE_BYTES = 100, 32
"""What Python adds to each kept name or text, and takes for each number."""
_MAX_NAME_BYTES = 65_535
_MAX_TENSOR_NAME_BYTES = 63
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 20
_MAX_VALUES = 2**63 - 1
_CHUNK_BYTES = 256 * 1024
_SHOWN_CHARS = 64
CHAT_TEMPLATE = "tokenizer.chat_template"
"""The key of the template that a model's file has for its prompts."""

TOKENS = "tokenizer.ggml.tokens"
"""The key of the vocabulary."""
_SCORES = "tokenizer.ggml.scores"

_BLOCK_STRINGS, _SHORT_BYTES = 128, 127
_BLOCK_BYTES = _BLOCK_STRINGS * (8 + _SHORT_BYTES)

_STRING, _ARRAY, _BOOL = 8, 9, 7
_FORMATS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_UINT32 = 4


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its name, its size and where its data begins after the header."""

    name: str
    n_values: int
    n_bytes: int
    offset: int
    kind: int
    """A key of `GGML_TYPES`."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The checked header of one file."""

    metadata: Mapping[str, Value]
    """Without long strings and long arrays."""
    lengths: Mapping[str, int]
    """How many elements each array has, also of those that were not kept."""
    tensors: tuple[TensorInfo, ...]


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of one file.

    Raises:
        ModelFileError: it is no GGUF file that llama.cpp could load; one sentence says why.
    """
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            return _Reader(file, size, path.name).header()
    except OSError as exc:
        raise _damaged(path.name, f"cannot be read: {exc.strerror or 'the disk gives no reason'}") from None


@functools.cache
def _short_strings() -> re.Pattern[bytes]:
    """So many strings of at most so many bytes, each behind its length: six times as fast as a loop over them."""
    one = (re.escape(bytes([n])) + rb"\0{7}.{%d}" % n for n in range(1, _SHORT_BYTES + 1))
    return re.compile(rb"(?s:(?:%s){%d}+)" % (b"|".join(one), _BLOCK_STRINGS))


class _Reader:
    """A position in a file, and the bytes around it. Nothing moves the position past the end."""

    def __init__(self, file: FileIO, size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._chunk = b""
        self._chunk_at = 0
        self._at = 0
        self._strings_left = MAX_STRINGS
        self._kept_strings_left = _MAX_KEPT_STRINGS_OF_ALL
        self._kept_bytes = 0

    def header(self) -> GgufHeader:
        self._check_start()
        n_tensors, n_keys = self._number("<Q"), self._number("<Q")
        self._check_count(n_keys, MAX_KEYS, 13, "metadata keys")
        self._check_count(n_tensors, MAX_TENSORS, 24, "tensors")
        metadata: dict[str, Value] = {}
        lengths: dict[str, int] = {}
        seen: set[str] = set()
        for _ in range(n_keys):
            key = self._text(_MAX_NAME_BYTES, "a metadata key")
            if key in seen:
                raise self._error(f"gives the metadata key {_shown(key)} twice")
            seen.add(key)
            value = self._value(key, lengths)
            if value is not None:
                metadata[key] = value
        alignment = self._alignment(metadata)
        tensors = tuple(self._tensor(alignment) for _ in range(n_tensors))
        self._check_tensors(tensors, alignment)
        return GgufHeader(metadata, lengths, tensors)

    def _check_start(self) -> None:
        if self._take(len(GGUF_MAGIC)) != GGUF_MAGIC:
            raise self._error("does not begin with 'GGUF'")
        version = self._number("<I")
        if version and version & 0xFFFF == 0:
            raise self._error("is a big-endian GGUF file, and this machine reads little-endian ones")
        if version not in (2, 3):
            raise self._error(f"has version {version} of the GGUF format, and 2 and 3 are known")

    # --- metadata ---

    def _value(self, key: str, lengths: dict[str, int]) -> Value | None:
        """A value, or None where it is too long to be kept."""
        kind = self._number("<I")
        if kind == _STRING:
            return self._long_text(MAX_TEMPLATE_CHARS if key == CHAT_TEMPLATE else MAX_KEPT_CHARS)
        if kind == _ARRAY:
            element, count = self._number("<I"), self._number("<Q")
            lengths[key] = count
            return self._array(key, element, count)
        if kind not in _FORMATS:
            raise self._error(f"gives {_shown(key)} the unknown type {kind}")
        if key == "general.alignment" and kind != _UINT32:
            raise self._error("gives general.alignment another type than uint32")
        return self._scalar(kind)

    def _scalar(self, kind: int) -> Scalar:
        value: Scalar = struct.unpack(_FORMATS[kind], self._take(struct.calcsize(_FORMATS[kind])))[0]
        return value

    def _array(self, key: str, kind: int, count: int) -> Value | None:
        if kind == _STRING:
            return self._strings(key, count)
        if kind not in _FORMATS:
            what = "an array of arrays" if kind == _ARRAY else f"an array of the unknown type {kind}"
            raise self._error(f"gives {_shown(key)} {what}")
        width = struct.calcsize(_FORMATS[kind])
        if count * width > self._size - self._at:
            raise self._error(
                f"says that the array {_shown(key)} has {count} elements, more than the file holds"
            )
        if (
            key == _SCORES and count <= MAX_STRINGS
        ):  # a tokenizer sorts by them, and what is no number has no order
            self._check_finite(key, kind, count * width)
        if count > MAX_KEPT_VALUES or not self._may_keep(count * _VALUE_BYTES):
            self._skip(count * width)
            return None
        return struct.unpack(f"<{count}{_FORMATS[kind][1]}", self._take(count * width))

    def _strings(self, key: str, count: int) -> Value | None:
        """A short array of strings. A long one is walked over, as only their lengths say where it ends."""
        if count > self._strings_left or count * 8 > self._size - self._at:
            raise self._error(
                f"says that the array {_shown(key)} has {count} strings, more than the file holds or than are allowed"
            )
        self._strings_left -= count
        if count <= min(MAX_KEPT_STRINGS, self._kept_strings_left):
            self._kept_strings_left -= count
            texts = [self._long_text(MAX_KEPT_CHARS) for _ in range(count)]
            return tuple(text for text in texts if text is not None)
        n_empty, left = 0, count
        while left:
            n_strings = min(left, _BLOCK_STRINGS)
            if n_strings < _BLOCK_STRINGS or not self._skip_short_strings():
                n_empty += self._skip_strings(n_strings)
            left -= n_strings
        if key == TOKENS and n_empty * 2 > count:
            raise self._error(f"has a vocabulary of {count} words of which {n_empty} are empty")
        return None

    def _skip_short_strings(self) -> bool:
        """Walk over a block of strings, as most are in a vocabulary; False, and nothing done, where one is long or empty."""
        if self._at - self._chunk_at + _BLOCK_BYTES > len(self._chunk):
            if self._at + _BLOCK_BYTES > self._size:
                return False
            self._fill(_BLOCK_BYTES)
        block = _short_strings().match(self._chunk, self._at - self._chunk_at)
        if block is None:
            return False
        self._at = self._chunk_at + block.end()
        return True

    def _skip_strings(self, count: int) -> int:
        """Walk over strings one by one; how many of them are empty."""
        unpack, n_empty = struct.Struct("<Q").unpack_from, 0
        for _ in range(count):
            here = self._at - self._chunk_at
            if here + 8 > len(self._chunk):
                self._fill(8)
                here = 0
            (length,) = unpack(self._chunk, here)
            self._at += 8
            if length:
                self._skip(length)
            else:
                n_empty += 1
        return n_empty

    def _check_finite(self, key: str, kind: int, n_bytes: int) -> None:
        """Look at numbers, and go back to where they begin."""
        begin, code = self._at, _FORMATS[kind][1]
        if code not in "fd":
            return
        width = struct.calcsize(code)
        while self._at < begin + n_bytes:
            piece = self._take(min(_CHUNK_BYTES // width * width, begin + n_bytes - self._at))
            if not all(map(math.isfinite, struct.unpack(f"<{len(piece) // width}{code}", piece))):
                raise self._error(f"has numbers in {_shown(key)} that are not finite")
        self._at = self._chunk_at = begin
        self._chunk = b""

    def _alignment(self, metadata: Mapping[str, Value]) -> int:
        value = metadata.get("general.alignment", 32)
        if not isinstance(value, int) or not 0 < value <= _MAX_ALIGNMENT or value & (value - 1):
            raise self._error(f"says that its data is aligned to {value!r} bytes, which is no power of 2")
        return value

    # --- tensors ---

    def _tensor(self, alignment: int) -> TensorInfo:
        name = self._text(_MAX_TENSOR_NAME_BYTES, "a tensor's name")
        n_dimensions = self._number("<I")
        if not 1 <= n_dimensions <= _MAX_DIMENSIONS:
            raise self._error(
                f"gives the tensor {_shown(name)} {n_dimensions} dimensions, and 1 to 4 are allowed"
            )
        *shape, kind, offset = self._numbers(f"<{n_dimensions}QIQ")
        n_values = 1
        for length in shape:
            n_values *= length
            if not 0 < n_values <= _MAX_VALUES:
                raise self._error(f"gives the tensor {_shown(name)} an impossible shape, {shape}")
        ggml_type = GGML_TYPES.get(kind)
        if ggml_type is None:
            raise self._error(f"gives the tensor {_shown(name)} the unknown type {kind}")
        block = ggml_type.block_values
        if shape[0] % block:
            raise self._error(
                f"gives the tensor {_shown(name)} rows of {shape[0]} values, no multiple of {block}"
            )
        if offset % alignment:
            raise self._error(
                f"puts the tensor {_shown(name)} at {offset}, which is not aligned to {alignment}"
            )
        return TensorInfo(name, n_values, n_values // block * ggml_type.block_bytes, offset, kind)

    def _check_tensors(self, tensors: tuple[TensorInfo, ...], alignment: int) -> None:
        """They follow each other without a gap, as llama.cpp demands, and end within the file."""
        if len({tensor.name for tensor in tensors}) < len(tensors):
            raise self._error("has two tensors of the same name")
        start = -(-self._at // alignment) * alignment
        expected = 0
        for tensor in tensors:
            if tensor.offset != expected:
                raise self._error(
                    f"puts the tensor {_shown(tensor.name)} at {tensor.offset}, and it should be at {expected}"
                )
            end = start + tensor.offset + tensor.n_bytes
            if end > self._size:
                raise self._error(
                    f"is {self._size} bytes long, but its tensor {_shown(tensor.name)} ends at byte {end}:"
                    " it was cut off, or not fully downloaded"
                )
            expected += -(-tensor.n_bytes // alignment) * alignment

    # --- bytes ---

    def _check_count(self, count: int, limit: int, least_bytes: int, what: str) -> None:
        if count > limit or count * least_bytes > self._size - self._at:
            raise self._error(
                f"says that it has {count} {what}, more than it can hold or than the {limit} allowed"
            )

    def _text(self, limit: int, what: str) -> str:
        length = self._number("<Q")
        if length > limit:
            raise self._error(f"has {what} of {length} bytes, at most {limit} are allowed")
        if not self._may_keep(length):
            raise self._error(f"has names of more than {MAX_KEPT_BYTES} bytes together")
        return self._take(length).decode("utf-8", "replace")

    def _may_keep(self, n_bytes: int) -> bool:
        """Whether the memory set aside for what is kept allows this too."""
        self._kept_bytes += n_bytes + _ENTRY_BYTES
        return self._kept_bytes <= MAX_KEPT_BYTES

    def _long_text(self, limit: int) -> str | None:
        length = self._number("<Q")
        if length > limit or not self._may_keep(length):
            self._skip(length)
            return None
        return self._take(length).decode("utf-8", "replace")

    def _number(self, form: str) -> int:
        return self._numbers(form)[0]

    def _numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._take(struct.calcsize(form)))

    def _take(self, n_bytes: int) -> bytes:
        here = self._at - self._chunk_at
        if here + n_bytes > len(self._chunk):
            self._fill(n_bytes)
            here = 0
        self._at += n_bytes
        return self._chunk[here : here + n_bytes]

    def _skip(self, n_bytes: int) -> None:
        if n_bytes > self._size - self._at:
            raise self._too_short()
        self._at += n_bytes

    def _fill(self, n_bytes: int) -> None:
        """Have the next bytes at hand, and some more."""
        if n_bytes > self._size - self._at:
            raise self._too_short()
        if self._at > MAX_HEADER_BYTES:
            raise self._error(f"has a header of more than {MAX_HEADER_BYTES} bytes")
        self._file.seek(self._at)
        self._chunk = self._file.read(max(n_bytes, _CHUNK_BYTES))
        self._chunk_at = self._at
        if len(self._chunk) < n_bytes:  # it has become shorter since its size was asked
            raise self._too_short()

    def _too_short(self) -> ModelFileError:
        return self._error(f"ends at byte {self._size}, in the middle of its header")

    def _error(self, what: str) -> ModelFileError:
        return _damaged(self._name, what)


def _damaged(name: str, what: str) -> ModelFileError:
    message = f"The model file {_shown(name)} {what}"
    return ModelFileError(message, param="model_path", code="invalid_model_format")


def _shown(name: str) -> str:
    return repr(name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "…")
