"""What is chosen so that a model fits, over the shapes of real models and the GPUs of real machines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.memory.fit import Fit, LoadPlan
from kolosal.engines.memory.limits import GPU_RESERVE_BYTES, KV_CELL_STEP, sequence_slots
from kolosal.engines.memory.machine import MachineMemory, visible_gpus
from kolosal.engines.memory.policy import Bytes
from kolosal.engines.parameters import AUTO, FittedParameters, LoadingParameters, SplitMode
from kolosal.observe.nvml import GpuFacts
from tests.engines.memory.real_models import REAL_MODELS

GIB = 1 << 30
SHAPES = {model.name: model.shape() for model in REAL_MODELS}
CARDS_GIB = (0.3, 2, 4, 6, 8, 11, 12, 16, 24, 32, 40, 48, 80, 96, 141, 192)
EVERYTHING = LoadingParameters(n_ctx=AUTO, main_gpu_id=AUTO)


def table(*free_gib: float, host_gib: float = 2000) -> Bytes:
    """What a machine has free whose driver tells of these GPUs."""
    facts = [
        GpuFacts(index, f"GPU {index}", int(gib * 1.02 * GIB), int(gib * GIB))
        for index, gib in enumerate(free_gib)
    ]
    host = int(host_gib * GIB)
    return MachineMemory(host, host, visible_gpus(facts, None)).free


def plan_for(name: str, free: Bytes, parameters: LoadingParameters = EVERYTHING) -> LoadPlan:
    fit = Fit(SHAPES[name], parameters)
    fitting = next(plan for plan in fit.plans(free) if plan.need.fits(free))
    return fit.grown(fitting, free)


def layer_worth(name: str, plan: LoadPlan) -> int:
    """What the largest of a model's layers takes, the output among them, with a step more of cells."""
    shape, cells = SHAPES[name], plan.estimate.cells + 2 * KV_CELL_STEP
    states = shape.state_values * 4 * sequence_slots(plan.parameters, shape.memory_kind)
    cache = max(layer.kv_heads for layer in shape.layers) * (shape.key_width + shape.value_width) * 2 * cells
    return max(*(layer.weight_bytes for layer in shape.layers), shape.output_bytes) + max(cache, states)


def unused(plan: LoadPlan, free: Bytes) -> int:
    """What is left of the GPUs beyond the reserve of each."""
    return sum(max(0, free.gpu(gpu) - GPU_RESERVE_BYTES - plan.need.gpu(gpu)) for gpu in free.gpus)


def is_whole(name: str, plan: LoadPlan) -> bool:
    """Whether nothing more could be had with more memory."""
    shape, chosen = SHAPES[name], plan.parameters
    wanted = max(min(shape.n_ctx_train, 1_000_000), 4 * min(shape.n_ctx_train, 4096))
    return (
        chosen.n_gpu_layers == len(shape.layers) + 1
        and not chosen.n_cpu_moe
        and plan.estimate.cells == wanted
    )


@pytest.mark.parametrize("name", SHAPES)
def test_a_real_model_fills_a_real_card_and_never_more(name: str) -> None:
    for gib in CARDS_GIB:
        free = table(gib)
        plan = plan_for(name, free)
        room = max(0, free.gpu(0) - GPU_RESERVE_BYTES)
        assert plan.need.gpu(0) <= room, gib
        assert plan.need.host <= free.host, gib
        if plan.parameters.n_gpu_layers and not is_whole(name, plan):
            assert unused(plan, free) < layer_worth(name, plan), gib


@given(name=st.sampled_from([*SHAPES]), cards=st.lists(st.sampled_from(CARDS_GIB), min_size=1, max_size=4),
       n_ctx=st.sampled_from([AUTO, 4096, 32_768]), n_parallel=st.integers(1, 16), split=st.sampled_from(SplitMode))  # fmt: skip
def test_several_cards_are_filled_and_none_too_much(
    name: str, cards: list[float], n_ctx: int, n_parallel: int, split: SplitMode
) -> None:
    free = table(*cards)
    parameters = replace(EVERYTHING, n_ctx=n_ctx, n_parallel=n_parallel, split_mode=split)
    plan = plan_for(name, free, parameters)
    assert all(plan.need.gpu(gpu) <= max(0, free.gpu(gpu) - GPU_RESERVE_BYTES) for gpu in free.gpus)
    chosen, most = plan.parameters, len(SHAPES[name].layers) + 1
    assert n_ctx in (AUTO, chosen.n_ctx)
    if chosen.n_gpu_layers < most and split is SplitMode.LAYER:
        more = Fit(SHAPES[name], replace(parameters, n_gpu_layers=chosen.n_gpu_layers + 1))
        assert not any(each.need.fits(_less(free)) for each in more.plans(free)), "one more layer fits"
        if chosen.n_gpu_layers:
            assert unused(plan, free) < len(cards) * layer_worth(name, plan)


def _less(free: Bytes) -> Bytes:
    return Bytes(free.host, {gpu: n_bytes - GPU_RESERVE_BYTES for gpu, n_bytes in free.gpus.items()})


# --- the order in which things are given up ---


def chosen(plan: LoadPlan) -> dict[str, object]:
    return {choice.field: choice.value for choice in plan.choices}


def test_experts_go_to_the_host_before_layers_and_layers_before_the_least_context() -> None:
    name, least = "qwen3-30b-a3b", 4096
    by_card = {gib: plan_for(name, table(gib)).parameters for gib in (32, 12, 1.5)}
    assert [(each.n_gpu_layers, each.n_cpu_moe > 0) for each in by_card.values()] == [
        (49, False), (49, True), (by_card[1.5].n_gpu_layers, True),
    ]  # fmt: skip
    assert 0 < by_card[1.5].n_gpu_layers < 49
    assert by_card[1.5].n_cpu_moe == 48
    assert [each.n_ctx >= least for each in by_card.values()] == [True] * 3
    assert by_card[32].n_ctx == SHAPES[name].n_ctx_train


def test_what_is_given_is_never_changed() -> None:
    given_ = LoadingParameters(
        n_gpu_layers=10,
        n_cpu_moe=3,
        n_ctx=10_000,
        kv_pool_tokens=20_000,
        tensor_split=(1, 3),
        main_gpu_id=1,
        cache_host_bytes=1_000_000,
    )
    fit = Fit(SHAPES["mixtral-8x7b"], given_)
    for free in (table(), table(1, 1), table(80, 80)):
        [plan] = fit.plans(free)
        assert plan.parameters == FittedParameters.of(given_)
        assert fit.grown(plan, free) == replace(plan, choices=())
    all_layers = Fit(SHAPES["llama-3.3-70b"], LoadingParameters(n_gpu_layers=100)).plans(table(8))
    assert not any(plan.need.fits(table(8)) for plan in all_layers)


def test_a_model_that_one_card_holds_is_not_spread() -> None:
    plan = plan_for("llama-3.1-8b", table(8, 24), LoadingParameters())
    assert plan.parameters.tensor_split == (0, 33)
    assert [*plan.need.gpus] == [1]
    alone = plan_for("llama-3.1-8b", table(8, 24), replace(EVERYTHING, split_mode=SplitMode.NONE))
    assert alone.parameters.main_gpu_id == 1


def test_reasons_say_what_was_wanted_and_what_there_is() -> None:
    free = table(24)
    plan = plan_for("llama-3.3-70b", free)
    reasons = {choice.field: choice.reason for choice in plan.choices}
    assert reasons["n_gpu_layers"] == (
        f"{plan.parameters.n_gpu_layers} of 81 layers fit: all that may would take 38.4 GiB of GPU memory, and 24.0 GiB are free"
    )
    assert reasons["n_ctx"] == (
        f"memory allows {plan.parameters.n_ctx} of the 131072 tokens that the model was trained for"
    )
    assert plan_for("llama-3.3-70b", table(), LoadingParameters()).choices == ()


def test_without_gpus_the_context_is_what_is_chosen() -> None:
    plan = plan_for("qwen3-8b", table(host_gib=8))
    assert [*chosen(plan)] == ["n_ctx"]
    assert 4096 < plan.parameters.n_ctx < 40_960
    assert plan.parameters.n_gpu_layers == -1  # there may be one that no driver tells of
    assert plan_for("gpt-oss-20b", table(host_gib=100)).parameters.n_ctx == 131_072


@pytest.mark.parametrize(("name", "tight_gib"), [("gemma-3-27b", 32), ("gpt-oss-20b", 16)])
def test_layers_with_a_window_keep_all_cells_where_everything_fits_with_them(
    name: str, tight_gib: int
) -> None:
    roomy, tight = table(192), table(tight_gib)
    assert plan_for(name, roomy).parameters.swa_full
    assert "swa_full" not in chosen(plan_for(name, roomy))

    windowed = plan_for(name, tight)
    assert not windowed.parameters.swa_full
    assert chosen(windowed)["swa_full"] is False
    given_ = plan_for(name, tight, replace(EVERYTHING, swa_full=True))
    assert given_.parameters.swa_full
    assert given_.parameters.n_ctx < windowed.parameters.n_ctx


def test_a_context_is_never_more_than_a_model_was_trained_for_nor_than_the_pool() -> None:
    assert plan_for("falcon-7b", table(80)).parameters.n_ctx == 2048
    pooled = plan_for("llama-3.1-8b", table(80), replace(EVERYTHING, kv_pool_tokens=6000))
    assert (pooled.parameters.n_ctx, pooled.estimate.cells) == (6000, 6000)


def test_a_load_that_found_less_memory_takes_less() -> None:
    fit, free = Fit(SHAPES["llama-3.1-8b"], EVERYTHING), table(16)
    plan = fit.grown(fit.plans(free)[0], free)
    for _ in range(3):
        smaller = fit.smaller(plan)
        assert smaller is not None
        assert smaller.need.gpu(0) < 0.9 * plan.need.gpu(0)
        plan = smaller
    explicit = Fit(SHAPES["llama-3.1-8b"], LoadingParameters(n_gpu_layers=-1, kv_pool_tokens=4096))
    assert explicit.smaller(explicit.plans(free)[0]) is None


@pytest.mark.parametrize("host_gib", [8, 64, 2000])
def test_conversations_without_cells_get_some_of_what_is_left(host_gib: float) -> None:
    free, none = table(host_gib=host_gib), replace(EVERYTHING, cache_host_bytes=0)
    without = plan_for("llama-3.1-8b", free, none)
    plan = plan_for("llama-3.1-8b", free)

    n_bytes = plan.parameters.cache_host_bytes
    left = max(0, free.host - without.need.host)
    assert n_bytes == min(left // 8, 8 * GIB)
    assert plan.need.host == without.need.host + n_bytes
    assert replace(plan.parameters, cache_host_bytes=0) == without.parameters
