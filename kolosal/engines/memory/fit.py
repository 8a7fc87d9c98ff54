"""Fit: what is chosen for a model where its owner leaves it to us, so that it fits into the memory there is. Pure arithmetic.

Given up is what costs the least speed first: the whole model on GPUs, then with the experts of its first layers on the host, then
with fewer layers on GPUs. What is left of the memory goes to the context, and then to the KV cache of further requests. Layers with
a sliding window keep all cells where all of that fits with them. A value that was given is never changed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from kolosal.engines.memory.limits import GPU_RESERVE_BYTES, KV_CELL_STEP, smaller_pools
from kolosal.engines.memory.model_shape import ModelShape
from kolosal.engines.memory.placement import DeviceMemory, Estimate, estimate, layer_split
from kolosal.engines.memory.policy import Bytes, size_text
from kolosal.engines.parameters import (
    AUTO,
    LEAST_AUTO_CTX,
    FittedParameters,
    LoadingParameters,
    SplitMode,
)
from kolosal.sampling import MAX_TOKENS_LIMIT

_AFTER_FAILURE = 0.85
"""How much of what a plan takes the next one may take, where llama.cpp found less memory than was estimated."""

_NO_LIMIT = 1 << 60

_SAVED_SHARE, _MOST_SAVED_BYTES, _MOST_SAVED_POOLS = 1 / 8, 8 * 1024**3, 16
"""Of the host memory that a plan leaves, for conversations without cells; at most so many bytes, and so many KV caches of its."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One loading parameter that was chosen."""

    field: str
    value: int | tuple[float, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How an engine would be loaded, and what it would take."""

    parameters: FittedParameters
    estimate: Estimate
    rank: int = 0
    """What of its speed is given up, in steps; 0: nothing."""
    choices: tuple[Choice, ...] = ()
    """What was chosen, and why."""

    @property
    def need(self) -> Bytes:
        return self.estimate.need


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where the parts of a model lie, and whether layers with a window keep all cells."""

    n_gpu_layers: int
    n_cpu_moe: int
    swa_full: bool


class Fit:
    """The plans for one model."""

    def __init__(
        self, shape: ModelShape, parameters: LoadingParameters, draft: ModelShape | None = None
    ) -> None:
        self._shape, self._parameters, self._draft = shape, parameters, draft
        self._n_layers = len(shape.layers) + 1  # the output counts as one
        trained = min(shape.n_ctx_train or LEAST_AUTO_CTX, MAX_TOKENS_LIMIT)
        pool = parameters.kv_pool_tokens
        self._most_ctx = trained if pool is None else min(trained, pool)
        self._least_ctx = min(self._most_ctx, LEAST_AUTO_CTX) if pool is None else self._most_ctx
        if parameters.n_ctx not in (AUTO, 0):
            self._least_ctx = self._most_ctx = parameters.n_ctx
        elif parameters.n_ctx == 0:
            self._least_ctx = self._most_ctx

    def plans(self, free: Bytes) -> tuple[LoadPlan, ...]:
        """The amounts the engine can live with where it is as fast as `free` allows, the best first: they differ in the size of
        the KV cache. Where even the least does not fit, that."""
        stages = self._stages(free)
        room = _room(free)

        def plan(rank: int, cells: int) -> LoadPlan:
            return self._plan(rank, stages[rank], room, self._least_ctx, cells)

        rank = bisect_left(
            range(len(stages) - 1), True, key=lambda rank: _fit_gpus(plan(rank, self._least_cells), room)
        )
        *larger, least = (plan(rank, cells) for cells in self._pools())
        return (*(each for each in larger if _fit_gpus(each, room)), least)

    def grown(self, plan: LoadPlan, free: Bytes) -> LoadPlan:
        """A plan that fits, with as large a context and as many cells as `free` allows, and with the reasons for all of it."""
        chosen = plan.parameters
        room, stage = _room(free), _Stage(chosen.n_gpu_layers, chosen.n_cpu_moe, chosen.swa_full)
        cells = plan.estimate.cells
        if self._parameters.kv_pool_tokens is None:

            def with_ctx(n_ctx: int) -> LoadPlan:
                return self._plan(plan.rank, stage, room, n_ctx, max(cells, n_ctx))

            plan = _largest(with_ctx, plan, self._least_ctx, self._most_ctx, room)
            n_ctx, cells = plan.parameters.n_ctx, plan.estimate.cells

            def with_cells(n_cells: int) -> LoadPlan:
                return self._plan(plan.rank, stage, room, n_ctx, n_cells)

            plan = _largest(with_cells, plan, cells, max(cells, self._wanted_cells(n_ctx)), room)
        return self._with_saved(replace(plan, choices=tuple(self._choices(plan, free))), room)

    def _with_saved(self, plan: LoadPlan, room: Bytes) -> LoadPlan:
        """A plan with room for conversations without cells, as far as that is left to us."""
        if self._parameters.cache_host_bytes != AUTO or not self._parameters.cache_prompt:
            return plan
        host = plan.estimate.host
        devices = (host, *plan.estimate.gpus.values())
        kv_cache = sum(device.kv_cache for device in devices)
        left = max(0, room.host - host.total)
        n_bytes = min(int(left * _SAVED_SHARE), _MOST_SAVED_BYTES, _MOST_SAVED_POOLS * kv_cache)
        return replace(
            plan,
            parameters=replace(plan.parameters, cache_host_bytes=n_bytes),
            estimate=replace(plan.estimate, host=host + DeviceMemory(kv_cache=n_bytes)),
        )

    def smaller(self, plan: LoadPlan) -> LoadPlan | None:
        """A plan that takes clearly less, for a load that found less memory than was estimated; None where nothing may be changed."""
        need = plan.need
        if need.gpus:
            each = {
                gpu: int(n_bytes * _AFTER_FAILURE) + GPU_RESERVE_BYTES for gpu, n_bytes in need.gpus.items()
            }
            free = Bytes(_NO_LIMIT, each)
        else:
            free = Bytes(int(need.host * _AFTER_FAILURE))
        found = next((each for each in self.plans(free) if each.need.fits(free)), None)
        return None if found is None else self.grown(found, free)

    # --- what may be chosen ---

    def _stages(self, free: Bytes) -> list[_Stage]:
        """From the fastest to what needs the least GPU memory."""
        given = self._parameters.swa_full
        full = self._places(free, swa_full=given != False)  # noqa: E712 - it may be a text
        is_open = given == AUTO and self._shape.memory_kind.windows
        if not is_open or self._everything(full[0], free).need.fits(_room(free)):
            return full
        return self._places(free, swa_full=False)

    def _everything(self, stage: _Stage, free: Bytes) -> LoadPlan:
        """What it would take to leave nothing to be wished for."""
        n_ctx = self._most_ctx
        cells = self._parameters.kv_pool_tokens or self._wanted_cells(n_ctx)
        return self._plan(0, stage, _room(free), n_ctx, cells)

    def _places(self, free: Bytes, *, swa_full: bool) -> list[_Stage]:
        given, experts = self._parameters.n_gpu_layers, self._parameters.n_cpu_moe
        if not free.gpus:  # there may be one that is not known of
            return [_Stage(-1 if given == AUTO else given, 0 if experts == AUTO else experts, swa_full)]
        most = self._n_layers if given in (AUTO, -1) else min(given, self._n_layers)
        n_experts = [0] if experts == AUTO else [experts]
        if experts == AUTO and most:
            n_experts += [number for number, layer in enumerate(self._shape.layers, 1) if layer.expert_bytes]
        fewer = range(most - 1, -1, -1) if given == AUTO else ()
        return [
            *(_Stage(most, each, swa_full) for each in n_experts),
            *(_Stage(each, n_experts[-1], swa_full) for each in fewer),
        ]

    @property
    def _least_cells(self) -> int:
        return self._parameters.kv_pool_tokens or self._least_ctx

    def _pools(self) -> Iterator[int]:
        given = self._parameters.kv_pool_tokens
        return iter([given]) if given else smaller_pools(self._wanted_cells(self._least_ctx), self._least_ctx)

    def _wanted_cells(self, n_ctx: int) -> int:
        """Cells that are good to have: for as many requests as run. An automatic context is one that they share."""
        if self._parameters.n_ctx != AUTO:
            return n_ctx * self._parameters.n_parallel
        return max(n_ctx, self._least_ctx * self._parameters.n_parallel)

    # --- plans ---

    def _plan(self, rank: int, stage: _Stage, room: Bytes, n_ctx: int, cells: int) -> LoadPlan:
        given = self._parameters
        gpus = dict(room.gpus)
        is_default = given.kv_pool_tokens is None and cells == n_ctx * given.n_parallel
        parameters = FittedParameters.of(
            given,
            n_ctx=n_ctx,
            n_gpu_layers=stage.n_gpu_layers,
            n_cpu_moe=stage.n_cpu_moe,
            swa_full=stage.swa_full,
            main_gpu_id=_most_room(gpus) if given.main_gpu_id == AUTO else given.main_gpu_id,
            kv_pool_tokens=None if is_default else cells,
        )
        if self._splits(gpus):
            split = layer_split(self._shape, parameters, gpus, cells)
            parameters = replace(parameters, tensor_split=tuple(map(float, split)))
        return LoadPlan(
            parameters, estimate(self._shape, parameters, gpus, cells=cells, draft=self._draft), rank
        )

    def _splits(self, gpus: Mapping[int, int]) -> bool:
        given = self._parameters
        spread = given.split_mode is SplitMode.LAYER and not given.tensor_split
        return spread and len(gpus) > 1 and self._draft is None

    # --- why ---

    def _choices(self, plan: LoadPlan, free: Bytes) -> Iterator[Choice]:
        given, chosen = self._parameters, plan.parameters
        if free.gpus and AUTO in (given.n_gpu_layers, given.n_cpu_moe):
            yield from self._layer_choices(plan, free)
        if chosen.tensor_split != given.tensor_split:
            counts = " and ".join(
                f"{int(count)} on GPU {gpu}" for gpu, count in enumerate(chosen.tensor_split) if count
            )
            yield Choice("tensor_split", chosen.tensor_split, f"layers are where there is room: {counts}")
        if given.main_gpu_id == AUTO and free.gpus:
            room = size_text(free.gpu(chosen.main_gpu_id))
            yield Choice("main_gpu_id", chosen.main_gpu_id, f"no GPU has more free memory: {room}")
        if given.swa_full == AUTO and not chosen.swa_full:
            stage = _Stage(chosen.n_gpu_layers, chosen.n_cpu_moe, swa_full=True)
            more = _total(self._everything(stage, free).need) - _total(
                self._everything(replace(stage, swa_full=False), free).need
            )
            reason = f"to keep all cells of the layers with a sliding window would take {size_text(more)} more, which is not free"
            yield Choice("swa_full", value=False, reason=reason)
        if given.n_ctx == AUTO:
            trained = f"the {self._most_ctx} tokens that the model was trained for"
            reason = (
                f"memory allows {chosen.n_ctx} of {trained}" if chosen.n_ctx < self._most_ctx else trained
            )
            if given.kv_pool_tokens is not None:
                reason = "as many as the model was trained for and kv_pool_tokens allows"
            yield Choice("n_ctx", chosen.n_ctx, reason)
        cells, wanted = plan.estimate.cells, self._wanted_cells(chosen.n_ctx)
        if given.kv_pool_tokens is None and cells < wanted:
            yield Choice("kv_pool_tokens", cells, f"memory allows {cells} of {wanted} cells")

    def _layer_choices(self, plan: LoadPlan, free: Bytes) -> Iterator[Choice]:
        given, chosen = self._parameters, plan.parameters
        whole = self._plan(0, self._stages(free)[0], _room(free), self._least_ctx, self._least_cells)
        has = size_text(sum(max(0, n_bytes) for n_bytes in free.gpus.values()))
        needs = f"all that may would take {size_text(sum(whole.need.gpus.values()))} of GPU memory, and {has} are free"
        if given.n_gpu_layers == AUTO:
            count, most = chosen.n_gpu_layers, self._n_layers
            taken = size_text(sum(plan.need.gpus.values()))
            reason = (
                f"all {most} layers fit: the engine takes {taken} of {has} free GPU memory"
                if count == most
                else f"{count or 'none'} of {most} layers fit: {needs}"
            )
            yield Choice("n_gpu_layers", count, reason)
        if given.n_cpu_moe == AUTO and chosen.n_cpu_moe and chosen.n_gpu_layers:
            reason = f"the experts of {chosen.n_cpu_moe} layers stay in host memory: {needs}"
            yield Choice("n_cpu_moe", chosen.n_cpu_moe, reason)


def unlimited(parameters: LoadingParameters, size: Estimate) -> LoadPlan:
    """The plan of an engine of a fixed size, where nobody counts."""
    return LoadPlan(FittedParameters.of(parameters), size)


def _largest(make: Callable[[int], LoadPlan], plan: LoadPlan, least: int, most: int, room: Bytes) -> LoadPlan:
    """The plan with the largest number that fits, in steps of KV cells; the given one, which has the least, where no other does."""
    n_steps = -(-(most - least) // KV_CELL_STEP)

    def number(step: int) -> int:
        return min(most, least + step * KV_CELL_STEP)

    n_fitting = bisect_left(
        range(1, n_steps + 1), True, key=lambda step: not make(number(step)).need.fits(room)
    )
    return make(number(n_fitting)) if n_fitting else plan


def _fit_gpus(plan: LoadPlan, room: Bytes) -> bool:
    return all(n_bytes <= room.gpu(gpu) for gpu, n_bytes in plan.need.gpus.items())


def _room(free: Bytes) -> Bytes:
    """What automatic choices may take."""
    return Bytes(free.host, {gpu: max(0, n_bytes - GPU_RESERVE_BYTES) for gpu, n_bytes in free.gpus.items()})


def _total(need: Bytes) -> int:
    return need.host + sum(need.gpus.values())


def _most_room(gpus: Mapping[int, int]) -> int:
    return max(gpus, key=lambda gpu: gpus[gpu], default=0)
