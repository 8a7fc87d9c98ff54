"""Which way attention is computed faster on this processor: llama.cpp's flash attention, or matrix products and a softmax.

llama.cpp takes flash attention wherever it can. On a CPU that computes row by row where a step has fewer than 64, which for some widths of
heads on some processors takes a multiple of what the products take (measured: 6 times at a width of 64 where llama.cpp was compiled with AVX512-FP16,
which `scripts/native.cmake` leaves out, and with 128 less than they). So both are tried on numbers, for a few milliseconds, before a context is made.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from kolosal.engines.worker.llamacpp.native import native

_F32, _F16 = 0, 1  # of the enum ggml_type

_STREAMS = 4
_CELLS = 256
"""Cells of each of them: a step of a few chats that have gone on for a while."""

_FEW = 8
"""Cells that are seen where the price of the others is asked for: products take the same time for both."""

_REPEATS = 4
"""Of which the fastest counts, as the machine may be busy."""

_LEAST_GAIN = 1.25
"""By so much the products must be faster: flash attention takes less memory, and cells of others cost it less."""

_MOST_KV_HEADS = 4
"""Heads are alike: a few of them tell."""

_MEMORY_BYTES = 64 * 1024 * 1024
"""For the tensors of one try; what they do not need is never touched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """What of a model the time of attention depends on."""

    head_width: int
    n_heads: int
    n_kv_heads: int


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@dataclass(frozen=True, slots=True)
class Attention:
    """How attention is best computed here."""

    by_products: bool
    """Whether it is faster without flash attention."""
    cell_s: float
    """What a cell that none of its tokens sees adds to a step of a few streams, in one thread: in one layer, computed that way."""


def measure(shape: AttentionShape, n_parallel: int, *, choose: bool) -> Attention | None:
    """Try both ways for steps of up to `n_parallel` streams, in one thread; None where that cannot be done.

    `choose`: whether it may be without flash attention.
    """
    try:
        ggml = _Ggml()
    except AttributeError:  # of a build whose library does not show these functions
        return None
    n_streams = min(n_parallel, _STREAMS)
    n_cells = _STREAMS * _CELLS // n_streams
    flash_s, products_s = ggml.seconds(shape, n_streams, n_cells)
    by_products = choose and flash_s > _LEAST_GAIN * products_s
    others_s = products_s if by_products else ggml.seconds(shape, n_streams, n_cells, n_seen=_FEW)[0]
    share = shape.n_kv_heads / min(shape.n_kv_heads, _MOST_KV_HEADS)
    return Attention(by_products, share * others_s / (n_streams * n_cells))


class _Ggml:
    """The few functions of ggml that a try needs."""

    def __init__(self) -> None:
        """Find them.

        Raises:
            AttributeError: one is not there.
        """
        pointer, number, fraction = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
        self._init = _function("ggml_init", pointer, _InitParams)
        self._free = _function("ggml_free", None, pointer)
        self._tensor = _function("ggml_new_tensor_4d", pointer, pointer, ctypes.c_int, *(number,) * 4)
        self._data = _function("ggml_get_data", pointer, pointer)
        self._product = _function("ggml_mul_mat", pointer, *(pointer,) * 3)
        self._softmax = _function("ggml_soft_max_ext", pointer, *(pointer,) * 3, fraction, fraction)
        self._flash = _function("ggml_flash_attn_ext", pointer, *(pointer,) * 5, *(fraction,) * 3)
        self._graph = _function("ggml_new_graph", pointer, pointer)
        self._expand = _function("ggml_build_forward_expand", None, pointer, pointer)
        self._compute = _function("ggml_graph_compute_with_ctx", ctypes.c_int, pointer, pointer, ctypes.c_int)

    def seconds(
        self, shape: AttentionShape, n_streams: int, n_cells: int, n_seen: int | None = None
    ) -> tuple[float, float]:
        """What attention of some heads takes for a token of each stream, which sees `n_seen` of its own `n_cells`, or all: with
        flash attention, and without."""
        context = self._init(_InitParams(_MEMORY_BYTES, None, False))
        try:
            width, n_kv_heads = shape.head_width, min(shape.n_kv_heads, _MOST_KV_HEADS)
            n_heads = shape.n_heads // shape.n_kv_heads * n_kv_heads
            total = n_streams * n_cells
            own = np.kron(np.eye(n_streams, dtype=bool), (np.arange(n_cells) < (n_seen or n_cells))[None])
            mask = np.where(own, np.float32(0), np.float32(-np.inf))
            query = self._filled(context, np.ones((n_heads, n_streams, width), np.float32))
            keys = self._filled(context, np.ones((n_kv_heads, total, width), np.float16))
            values = self._filled(context, np.ones((n_kv_heads, total, width), np.float16))
            turned = self._filled(context, np.ones((n_kv_heads, width, total), np.float16))
            scale = width**-0.5
            flash_mask = self._filled(context, mask.astype(np.float16)[None])
            flash = self._flash(context, query, keys, values, flash_mask, scale, 0.0, 0.0)
            scores = self._product(context, keys, query)
            shares = self._softmax(context, scores, self._filled(context, mask[None]), scale, 0.0)
            products = self._product(context, turned, shares)
            return self._fastest(context, flash), self._fastest(context, products)
        finally:
            self._free(context)

    def _filled(self, context: Any, numbers: np.ndarray) -> Any:
        kind = _F16 if numbers.dtype == np.float16 else _F32
        tensor = self._tensor(context, kind, *reversed(numbers.shape), 1)
        ctypes.memmove(self._data(tensor), numbers.ctypes.data, numbers.nbytes)
        return tensor

    def _fastest(self, context: Any, result: Any) -> float:
        graph = self._graph(context)
        self._expand(graph, result)
        fastest = float("inf")
        for _ in range(_REPEATS):
            started = time.thread_time()
            self._compute(context, graph, 1)
            fastest = min(fastest, time.thread_time() - started)
        return fastest


def _function(name: str, result: Any, *arguments: Any) -> Any:
    library: Any = native._lib  # noqa: SLF001 - the bindings have no functions for these
    found = getattr(library, name)
    found.restype, found.argtypes = result, arguments
    return found
