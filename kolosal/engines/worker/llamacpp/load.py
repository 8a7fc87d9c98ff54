"""Loading a model file into llama.cpp: parameters in, model, context and what was really got out."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psutil

from kolosal.chat.formats import detect_thinking_tags, detect_tool_format
from kolosal.engines.gguf_sampling import KEYS, PREFIX
from kolosal.engines.ipc.messages import EngineInfo, Pooling
from kolosal.engines.memory.ggml import cache_type
from kolosal.engines.memory.limits import (
    MAX_DRAFT_TOKENS_PER_STEP,
    MemoryKind,
    prefill_cells,
    sequence_slots,
)
from kolosal.engines.memory.model_shape import state_bytes, state_values
from kolosal.engines.memory.placement import of_draft
from kolosal.engines.parameters import (
    MAX_PARALLEL,
    FittedConfig,
    FittedParameters,
    FlashAttention,
)
from kolosal.engines.worker.backend import OutOfMemory, Reuse
from kolosal.engines.worker.llamacpp.attention import AttentionShape, measure
from kolosal.engines.worker.llamacpp.cells import Cells
from kolosal.engines.worker.llamacpp.native import native
from kolosal.engines.worker.llamacpp.native_log import native_log
from kolosal.engines.worker.llamacpp.page_release import PageRelease
from kolosal.engines.worker.llamacpp.weights import LoadError, Weights, load_weights, may_release_pages
from kolosal.engines.worker.schedule.kv_pool import kv_bytes_per_cell, metadata_number, pool_sizes

POOLING: dict[Pooling, int] = {
    "mean": native.LLAMA_POOLING_TYPE_MEAN,
    "cls": native.LLAMA_POOLING_TYPE_CLS,
    "last": native.LLAMA_POOLING_TYPE_LAST,
    "rank": native.LLAMA_POOLING_TYPE_RANK,
}
_FLASH_ATTENTION = {FlashAttention.AUTO: -1, FlashAttention.OFF: 0, FlashAttention.ON: 1}


@dataclass(slots=True)
class LoadedModel:
    """A model and its context. `close` frees both, context first; safe to call twice."""

    model: Any
    context: Any
    info: EngineInfo
    settings: native.llama_context_params
    cells: Cells
    can_trim: bool
    n_slots: int
    guard: int
    """From a sequence id to its guard (`cells.py`); 0 for none."""
    window: int
    """Tokens that layers with a sliding window see, where they keep all cells; else 0."""
    prefill_cells: int
    bytes_per_cell: int
    cell_s: float
    chat_template: str | None

    def close(self) -> None:
        if self.context is not None:
            native.llama_free(self.context)
            self.context = None
        if self.model is not None:
            native.llama_model_free(self.model)
            self.model = None


def load_model(config: FittedConfig, weights: Weights) -> LoadedModel:
    """Make a context with as many KV cells as fit for weights, which are the loaded model's from then on.

    Raises:
        LoadError: with llama.cpp's own reason.
    """
    parameters, model = config.parameters, weights.model
    try:
        if native.llama_model_has_encoder(model) and native.llama_model_has_decoder(model):
            raise LoadError("Models of an encoder and a decoder are not supported")
        kind = _memory_kind(model)
        can_trim = kind.can_be_cut(parameters)
        reuse = Reuse.NONE if not parameters.cache_prompt else Reuse.PREFIX if can_trim else Reuse.WHOLE
        scores_bytes, cell_s = _attention(model, parameters) if kind == MemoryKind() else (0, 0.0)
        if scores_bytes:
            parameters = replace(parameters, flash_attn=FlashAttention.OFF)
        pages = PageRelease()
        slots = sequence_slots(parameters, kind)
        n_ids = slots + can_trim  # one more to move cells through; it costs nothing where that can be done
        guard = n_ids if kind.keeps_windows(parameters) else 0
        settings = _context_params(parameters, slots, min(n_ids + guard, MAX_PARALLEL))
        settings.swa_full = kind.keeps_windows(parameters)
        # where not every layer keeps all cells, only the daemon's estimate knows what they take
        bytes_per_cell = kv_bytes_per_cell(read_metadata(model), parameters) if can_trim else None
        context = _make_context(model, parameters, settings, bytes_per_cell)
        released_bytes = pages.release() if may_release_pages(parameters) else 0
    except BaseException:
        native.llama_model_free(model)
        raise
    template = native.llama_model_chat_template(model, None)
    text = template.decode(errors="replace") if template else None
    info = _describe(model, context, parameters, settings, reuse, template=text)
    on_gpu = bool(native.llama_supports_gpu_offload()) and parameters.n_gpu_layers != 0
    apart = prefill_cells(parameters, info.kv_pool_tokens, kind, on_gpu=on_gpu)
    if not bytes_per_cell or not info.can_generate:
        apart = 0
    released_bytes += scores_bytes * info.kv_pool_tokens  # which steps over a full pool would take
    info = replace(
        info, unused_bytes=released_bytes, repacked_bytes=min(weights.repacked_bytes, info.size_bytes)
    )
    window = int(native.llama_model_n_swa(model)) if guard else 0
    spare = slots if can_trim and slots < MAX_PARALLEL else None
    return LoadedModel(
        model=model,
        context=context,
        info=info,
        settings=settings,
        cells=Cells(context, window=window, guard=guard, spare=spare),
        can_trim=can_trim,
        n_slots=slots,
        guard=guard,
        window=window,
        prefill_cells=apart,
        bytes_per_cell=bytes_per_cell or 0,
        cell_s=cell_s,
        chat_template=text,
    )


def load_draft(config: FittedConfig, target: LoadedModel) -> LoadedModel:
    """Load the draft model of an engine, with a context as large as the engine's.

    Raises:
        LoadError: it cannot be loaded, or its vocabulary is another one.
    """
    path = config.parameters.draft_model_path or ""
    parameters = replace(
        of_draft(config.parameters),
        kv_pool_tokens=target.info.kv_pool_tokens,
        cache_prompt=False,
        chat_template=None,
    )
    draft_config = FittedConfig(config.engine_id, path, parameters)
    draft = load_model(draft_config, load_weights(draft_config, lambda _: None))
    has_plain_attention = draft.can_trim and not draft.guard
    if draft.info.n_vocab != target.info.n_vocab or not has_plain_attention or not draft.info.can_generate:
        draft.close()
        raise LoadError(
            f"{path} cannot be the draft model: it must have the vocabulary of the model, {target.info.n_vocab} tokens"
            f" (it has {draft.info.n_vocab}), and plain attention"
        )
    return draft


def _memory_kind(model: Any) -> MemoryKind:
    """What the model remembers a sequence by."""
    stateful = native.llama_model_is_recurrent(model) or native.llama_model_is_hybrid(model)
    values = state_values(partial(metadata_number, read_metadata(model))) if stateful else 0
    return MemoryKind(
        windows=native.llama_model_n_swa(model) > 0,
        states=bool(stateful),
        state_bytes=state_bytes(values, native.llama_model_n_layer(model)),
    )


def _attention(model: Any, parameters: FittedParameters) -> tuple[int, float]:
    """Bytes for each cell that attention without flash attention takes in the largest step, where it is to be used, else 0; and what a
    cell adds to each step.

    It is used where nobody said which way, it is faster on this processor, the cache is of a kind that it can read, and there is
    memory for it: no more than the cells themselves take.
    """
    read = read_metadata(model)
    architecture = read("general.architecture")
    n_heads, n_kv_heads = int(native.llama_model_n_head(model)), int(native.llama_model_n_head_kv(model))
    kv_bytes = kv_bytes_per_cell(read, parameters)
    on_gpu = native.llama_supports_gpu_offload() and parameters.n_gpu_layers != 0
    is_compressed = read(f"{architecture}.attention.kv_lora_rank") is not None
    if on_gpu or is_compressed or not kv_bytes or not n_kv_heads or n_heads % n_kv_heads:
        return 0, 0.0
    scores = 4 * n_heads * min(parameters.n_ubatch, parameters.n_batch)
    cells = parameters.kv_pool_tokens or parameters.n_ctx * parameters.n_parallel
    fits = scores <= kv_bytes and cells * (kv_bytes + scores) <= psutil.virtual_memory().available
    width = read(f"{architecture}.attention.key_length")
    head_width = int(width) if width else int(native.llama_model_n_embd(model)) // n_heads
    shape = AttentionShape(head_width=head_width, n_heads=n_heads, n_kv_heads=n_kv_heads)
    may_choose = fits and parameters.flash_attn is FlashAttention.AUTO
    readable = cache_type(parameters.cache_type_v).block_values == 1
    found = measure(shape, parameters.n_parallel, choose=may_choose and readable)
    if found is None:
        return 0, 0.0
    n_threads = parameters.n_threads or _cpu_cores()
    cell_s = found.cell_s * int(native.llama_model_n_layer(model)) / n_threads
    return (scores if found.by_products else 0), cell_s


def _make_context(
    model: Any,
    parameters: FittedParameters,
    settings: native.llama_context_params,
    bytes_per_cell: int | None,
) -> Any:
    """A context with the largest pool of KV cells that can be had; `settings` have then how many those are."""
    for cells in pool_sizes(parameters, bytes_per_cell, _free_host_bytes(parameters)):
        settings.n_ctx = cells
        native_log.begin()
        context = native.llama_init_from_model(model, settings)
        if context:
            return context
        if not native_log.lacked_memory():  # a smaller one would be refused as well
            raise LoadError(f"llama.cpp cannot use the model with these parameters: {native_log.reason()}")
    raise OutOfMemory(f"No room for a context of {settings.n_ctx} tokens: {native_log.reason()}")


def _context_params(parameters: FittedParameters, n_slots: int, n_ids: int) -> native.llama_context_params:
    """What a context is made with that has `n_slots` sequences, by `n_ids` sequence ids."""
    params: native.llama_context_params = native.llama_context_default_params()
    params.n_batch = max(parameters.n_batch, parameters.n_parallel)  # a step holds a token of every sequence
    params.n_ubatch = min(parameters.n_ubatch, params.n_batch)
    params.n_seq_max = n_ids
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
    parameters: FittedParameters,
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
        architecture=read_metadata(model)("general.architecture") or "unknown",
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
        sampling=_sampling(read_metadata(model)),
        pooling=next((name for name, number in POOLING.items() if number == pooling), "mean"),
    )


def _sampling(read: Callable[[str], str | None]) -> dict[str, str]:
    """What the file says of how tokens are chosen, as it says it."""
    said = {key: read(PREFIX + key) for key in KEYS}
    return {key: value for key, value in said.items() if value is not None}


def read_metadata(model: Any) -> Callable[[str], str | None]:
    """Reader of scalar GGUF metadata."""

    def read(key: str) -> str | None:
        buffer = ctypes.create_string_buffer(256)
        length = native.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if length >= 0 else None

    return read


def _free_host_bytes(parameters: FittedParameters) -> int | None:
    """Host memory the KV cache may take; None where it goes to GPU memory, whose allocator says no by itself."""
    if native.llama_supports_gpu_offload() and parameters.n_gpu_layers != 0:
        return None
    return int(psutil.virtual_memory().available)


def _cpu_cores() -> int:
    """Physical cores this process may use: llama.cpp gains nothing from a second thread per core."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, usable))
