"""Loading parameters that no model takes, or not this one: what llama.cpp would refuse, said before anything is unloaded for it.

Follows `llama_init_from_model` and `llama_prepare_model_devices` of llama.cpp. Pure. What is not known here, llama.cpp says.
"""

from __future__ import annotations

from kolosal.engines.memory.ggml import cache_type
from kolosal.engines.memory.limits import MemoryKind
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.engines.memory.tensor_overrides import given_overrides
from kolosal.engines.parameters import AUTO, CacheType, FlashAttention, LoadingParameters
from kolosal.errors import LoadFailed


def check_loadable(shape: ModelShape, parameters: LoadingParameters, draft: ModelShape | None = None) -> None:
    """Refuse parameters with which this model cannot be loaded, whatever memory there is.

    Raises:
        LoadFailed: `param` is the field at fault.
    """
    try:
        given_overrides(parameters.override_tensor)
    except ValueError as exc:
        raise refused("override_tensor", str(exc)) from None
    value_type = cache_type(parameters.cache_type_v)
    if value_type.block_values > 1 and parameters.flash_attn == FlashAttention.OFF:
        raise refused(
            "cache_type_v",
            f"cache_type_v {value_type.name} needs flash attention: set flash_attn to 'auto' or 'on', or cache_type_v"
            " to 'f16', 'bf16' or 'f32'",
        )
    for model in (shape,) if draft is None else (shape, draft):
        _check_blocks("cache_type_k", parameters.cache_type_k, model.key_width)
        _check_blocks("cache_type_v", parameters.cache_type_v, model.value_width)
    if draft is not None:
        _check_draft(shape, draft)


def check_gpus(parameters: LoadingParameters, n_gpus: int) -> None:
    """Refuse GPUs that there are not. Where none is known of, there may be some all the same.

    Raises:
        LoadFailed: `param` is the field at fault.
    """
    if not n_gpus or not parameters.n_gpu_layers:
        return
    for override in given_overrides(parameters.override_tensor):
        if override.gpu is not None and override.gpu >= n_gpus:
            raise refused(
                "override_tensor",
                f"override_tensor names {override.buffer}, and the GPUs are 0 to {n_gpus - 1}",
            )
    if parameters.main_gpu_id != AUTO and parameters.main_gpu_id >= n_gpus:
        raise refused(
            "main_gpu_id", f"main_gpu_id is {parameters.main_gpu_id}, and the GPUs are 0 to {n_gpus - 1}"
        )
    if len(parameters.tensor_split) > n_gpus:
        raise refused(
            "tensor_split",
            f"tensor_split has {len(parameters.tensor_split)} shares, and the number of GPUs is {n_gpus}",
        )


def _check_blocks(field: str, name: CacheType, width: int) -> None:
    kind = cache_type(name)
    if width and kind.block_values > 1 and width % kind.block_values:
        raise refused(
            field,
            f"{field} {kind.name} has blocks of {kind.block_values} values, which do not divide this model's heads of"
            f" {width}: use 'f16', 'bf16' or 'f32'",
        )


def _check_draft(shape: ModelShape, draft: ModelShape) -> None:
    if shape.n_vocab and draft.n_vocab and shape.n_vocab != draft.n_vocab:
        raise refused(
            "draft_model_path",
            f"The draft model has {draft.n_vocab} tokens and the model {shape.n_vocab}:"
            " they must have the same vocabulary",
        )
    if draft.memory_kind != MemoryKind():
        raise refused(
            "draft_model_path", "The draft model must have plain attention: its cells cannot be taken back"
        )


def refused(param: str, message: str) -> LoadFailed:
    """A load that no memory would help."""
    error = LoadFailed(message)
    error.param = param
    return error
