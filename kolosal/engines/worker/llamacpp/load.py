"""Loading a model file into llama.cpp: parameters in, model, context and what was really got out."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from kolosal.chat.formats import detect_thinking_tags, detect_tool_format
from kolosal.engines.ipc.messages import EngineInfo, Pooling
from kolosal.engines.memory.ggml import cache_type
from kolosal.engines.memory.gguf import GGUF_MAGIC
from kolosal.engines.memory.limits import MAX_DRAFT_TOKENS_PER_STEP, sequence_slots
from kolosal.engines.parameters import (
    EngineConfig,
    FlashAttention,
    LoadingParameters,
    SplitMode,
)
from kolosal.engines.worker.backend import BackendError, Reuse
from kolosal.engines.worker.llamacpp.native import native
from kolosal.engines.worker.llamacpp.native_log import native_log
from kolosal.engines.worker.llamacpp.page_release import PageRelease
from kolosal.engines.worker.schedule.kv_pool import kv_bytes_per_cell, pool_sizes

_PROGRESS_INTERVAL_S = 0.05
"""Shortest time between two progress reports: llama.cpp calls back for every tensor."""

POOLING: dict[Pooling, int] = {
    "mean": native.LLAMA_POOLING_TYPE_MEAN,
    "cls": native.LLAMA_POOLING_TYPE_CLS,
    "last": native.LLAMA_POOLING_TYPE_LAST,
    "rank": native.LLAMA_POOLING_TYPE_RANK,
}
_FLASH_ATTENTION = {FlashAttention.AUTO: -1, FlashAttention.OFF: 0, FlashAttention.ON: 1}
_SPLIT_MODE = {SplitMode.NONE: 0, SplitMode.LAYER: 1, SplitMode.ROW: 2}


class LoadError(BackendError):
    """The model cannot be loaded. The message is for the person who asked for it."""


@dataclass(slots=True)
class LoadedModel:
    """A model and its context. `close` frees both, context first; safe to call twice."""

    model: Any
    context: Any
    info: EngineInfo
    can_trim: bool
    n_slots: int
    chat_template: str | None

    def close(self) -> None:
        if self.context is not None:
            native.llama_free(self.context)
            self.context = None
        if self.model is not None:
            native.llama_model_free(self.model)
            self.model = None


def load_model(config: EngineConfig, on_progress: Callable[[float], None]) -> LoadedModel:
    """Load weights, then make a context with as many KV cells as fit.

    Raises:
        LoadError: with llama.cpp's own reason.
    """
    native_log.install()
    native.llama_backend_init()
    parameters = config.parameters
    model = _load_weights(config, on_progress)
    try:
        if native.llama_model_has_encoder(model) and native.llama_model_has_decoder(model):
            raise LoadError("Models of an encoder and a decoder are not supported")
        can_trim = _has_plain_attention(model)
        reuse = Reuse.NONE if not parameters.cache_prompt else Reuse.PREFIX if can_trim else Reuse.WHOLE
        pages = PageRelease()
        context, settings = _make_context(
            model, parameters, sequence_slots(parameters, plain_attention=can_trim)
        )
        released_bytes = pages.release() if _may_release_pages(parameters) else 0
    except BaseException:
        native.llama_model_free(model)
        raise
    template = native.llama_model_chat_template(model, None)
    text = template.decode(errors="replace") if template else None
    info = replace(
        _describe(model, context, parameters, settings, reuse, template=text), unused_bytes=released_bytes
    )
    return LoadedModel(model, context, info, can_trim, settings.n_seq_max, text)


def load_draft(config: EngineConfig, target: LoadedModel) -> LoadedModel:
    """Load the draft model of an engine, with a context as large as the engine's.

    Raises:
        LoadError: it cannot be loaded, or its vocabulary is another one.
    """
    path = config.parameters.draft_model_path or ""
    parameters = replace(
        config.parameters, kv_pool_tokens=target.info.kv_pool_tokens, cache_prompt=False, chat_template=None
    )
    draft = load_model(EngineConfig(config.engine_id, path, parameters), lambda _: None)
    if draft.info.n_vocab != target.info.n_vocab or not draft.can_trim or not draft.info.can_generate:
        draft.close()
        raise LoadError(
            f"{path} cannot be the draft model: it must have the vocabulary of the model, {target.info.n_vocab} tokens"
            f" (it has {draft.info.n_vocab}), and plain attention"
        )
    return draft


def _load_weights(config: EngineConfig, on_progress: Callable[[float], None]) -> Any:
    path = Path(config.model_path)
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as exc:
        raise LoadError(f"The model file cannot be read: {exc.strerror}") from exc
    if magic != GGUF_MAGIC:
        raise LoadError("The file is not a GGUF model: it does not begin with 'GGUF'")
    native_log.begin()
    params, _keep_alive = _model_params(config.parameters, on_progress)
    model = native.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise LoadError(f"llama.cpp could not load the file: {native_log.reason()}")
    return model


def _model_params(
    parameters: LoadingParameters, on_progress: Callable[[float], None]
) -> tuple[native.llama_model_params, tuple[object, ...]]:
    """The native parameters, and what must stay alive while they are used."""
    params = native.llama_model_default_params()
    params.n_gpu_layers = parameters.n_gpu_layers
    params.split_mode = _SPLIT_MODE[parameters.split_mode]
    if parameters.main_gpu_id >= 0:
        params.main_gpu = parameters.main_gpu_id
    split = None
    if parameters.tensor_split:
        split = (ctypes.c_float * max(native.llama_max_devices(), len(parameters.tensor_split)))(
            *parameters.tensor_split
        )
        params.tensor_split = split
    params.load_mode = (native.LLAMA_LOAD_MODE_MMAP if parameters.use_mmap else 0) | (
        native.LLAMA_LOAD_MODE_MLOCK if parameters.use_mlock else 0
    )
    callback = native.llama_progress_callback(_progress_reporter(on_progress))
    params.progress_callback = callback
    return params, (split, callback)


def _progress_reporter(on_progress: Callable[[float], None]) -> Callable[[float, object], bool]:
    reported_at = 0.0

    def report(fraction: float, _data: object) -> bool:
        nonlocal reported_at
        now = time.monotonic()
        if now - reported_at >= _PROGRESS_INTERVAL_S or fraction >= 1:
            reported_at = now
            on_progress(fraction)
        return True

    return report


def _has_plain_attention(model: Any) -> bool:
    """Whether any cell can be shared or cut off: not with sliding windows or recurrent states."""
    stateful = native.llama_model_is_recurrent(model) or native.llama_model_is_hybrid(model)
    return not stateful and native.llama_model_n_swa(model) == 0


def _make_context(
    model: Any, parameters: LoadingParameters, n_slots: int
) -> tuple[Any, native.llama_context_params]:
    """A context with the largest pool of KV cells that can be had."""
    settings = _context_params(parameters, n_slots)
    for cells in pool_sizes(
        parameters, kv_bytes_per_cell(_metadata(model), parameters), _free_host_bytes(parameters)
    ):
        settings.n_ctx = cells
        native_log.begin()
        context = native.llama_init_from_model(model, settings)
        if context:
            return context, settings
    raise LoadError(f"No room for a context of {settings.n_ctx} tokens: {native_log.reason()}")


def _context_params(parameters: LoadingParameters, n_slots: int) -> native.llama_context_params:
    params: native.llama_context_params = native.llama_context_default_params()
    params.n_batch = max(parameters.n_batch, parameters.n_parallel)  # a step holds a token of every sequence
    params.n_ubatch = min(parameters.n_ubatch, params.n_batch)
    params.n_seq_max = n_slots
    params.n_outputs_max = n_slots + MAX_DRAFT_TOKENS_PER_STEP  # rows of logits in one step
    params.kv_unified = True
    params.n_threads = parameters.n_threads or _cpu_cores()
    params.n_threads_batch = parameters.n_threads_batch or params.n_threads
    params.flash_attn_type = _FLASH_ATTENTION[parameters.flash_attn]
    params.type_k = cache_type(parameters.cache_type_k).number
    params.type_v = cache_type(parameters.cache_type_v).number
    params.no_perf = True
    return params


def _describe(
    model: Any,
    context: Any,
    parameters: LoadingParameters,
    settings: native.llama_context_params,
    reuse: Reuse,
    *,
    template: str | None,
) -> EngineInfo:
    description = ctypes.create_string_buffer(256)
    native.llama_model_desc(model, description, len(description))
    n_layers = int(native.llama_model_n_layer(model)) + 1  # the output layer counts
    asked = n_layers if parameters.n_gpu_layers < 0 else min(parameters.n_gpu_layers, n_layers)
    pool = int(native.llama_n_ctx(context))
    pooling = native.llama_pooling_type(context)
    return EngineInfo(
        description=description.value.decode(errors="replace"),
        architecture=_metadata(model)("general.architecture") or "unknown",
        n_params=int(native.llama_model_n_params(model)),
        size_bytes=int(native.llama_model_size(model)),
        n_vocab=int(native.llama_vocab_n_tokens(native.llama_model_get_vocab(model))),
        n_ctx_train=int(native.llama_model_n_ctx_train(model)),
        n_ctx=min(parameters.n_ctx, pool),
        kv_pool_tokens=pool,
        n_parallel=parameters.n_parallel,
        n_batch=int(native.llama_n_batch(context)),
        n_ubatch=int(native.llama_n_ubatch(context)),
        n_threads=settings.n_threads,
        n_threads_batch=settings.n_threads_batch,
        n_gpu_layers=asked if native.llama_supports_gpu_offload() else 0,
        flash_attn=parameters.flash_attn.value,
        chat_template="configured" if parameters.chat_template else "model" if template else "chatml",
        prompt_cache=reuse.value,
        tool_format=detect_tool_format(parameters.chat_template or template or ""),
        thinking_tags=detect_thinking_tags(parameters.chat_template or template or ""),
        can_generate=bool(native.llama_get_memory(context)) and native.llama_model_has_decoder(model),
        n_embd=int(native.llama_model_n_embd_out(model)),
        pooling=next((name for name, number in POOLING.items() if number == pooling), "mean"),
    )


def _may_release_pages(parameters: LoadingParameters) -> bool:
    """Not where a driver may have lent host memory to a GPU, nor for those who lock memory to be sure of it."""
    return not native.llama_supports_gpu_offload() and not parameters.use_mlock


def _metadata(model: Any) -> Callable[[str], str | None]:
    """Reader of scalar GGUF metadata."""

    def read(key: str) -> str | None:
        buffer = ctypes.create_string_buffer(256)
        length = native.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if length >= 0 else None

    return read


def _free_host_bytes(parameters: LoadingParameters) -> int | None:
    """Host memory the KV cache may take; None where it goes to GPU memory, whose allocator says no by itself."""
    if native.llama_supports_gpu_offload() and parameters.n_gpu_layers != 0:
        return None
    return int(psutil.virtual_memory().available)


def _cpu_cores() -> int:
    """Physical cores this process may use: llama.cpp gains nothing from a second thread per core."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, usable))
