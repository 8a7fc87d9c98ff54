"""Saved cells of a sequence id on the real llama.cpp, on tiny models in f32: what goes on from them is what went on before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kolosal.engines.worker.backend import RestoreFailed
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.sampling import SamplingParams
from tests.engines.worker.helpers import engine_config
from tests.engines.worker.llamacpp.test_backend import PRECISE
from tests.tiny_gguf import N_SWA, write_tiny_gguf

Load = Callable[..., LlamaCppBackend]
PROMPT = [9 + position * 7 % 200 for position in range(3 * N_SWA)]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    loaded: list[LlamaCppBackend] = []

    def load_one(kind: Any = "llama", **parameters: Any) -> LlamaCppBackend:
        path = tmp_path / f"{kind}.gguf"
        write_tiny_gguf(path, kind)
        loaded.append(LlamaCppBackend(engine_config(str(path), **PRECISE | parameters), lambda _: None))
        return loaded[-1]

    yield load_one
    for backend in loaded:
        backend.close()


def go_on(backend: LlamaCppBackend, slot: int, tokens: list[int], n_more: int = 12) -> list[int]:
    """Compute tokens behind the cells of a sequence id, then so many that are sampled."""
    sampler = backend.new_sampler(SamplingParams(temperature=0), ())
    said: list[int] = []
    while True:
        start = backend.cells(slot)
        sequence: Any = object.__new__(Sequence)  # of which a backend looks at these two only
        sequence.sampler = sequence.constraint = None
        backend.decode([Chunk(sequence, slot, start, tokens, 1)])
        if len(said) == n_more:
            return said
        said.append(backend.sample(sampler, 0, None))
        tokens = said[-1:]


@pytest.mark.parametrize(
    ("kind", "swa_full"), [("llama", True), ("gemma3", True), ("gemma3", False), ("mamba", True)]
)
def test_what_goes_on_from_a_saved_state_is_the_same(load: Load, kind: Any, *, swa_full: bool) -> None:
    backend = load(kind, swa_full=swa_full)
    go_on(backend, 0, PROMPT, 0)
    state = backend.save(0)
    before = go_on(backend, 0, [5])
    backend.release(0)
    go_on(backend, 1, [7] * 20, 0)

    backend.restore(0, state)
    assert backend.cells(0) == len(PROMPT)
    assert go_on(backend, 0, [5]) == before


def test_cells_need_not_lie_together_and_can_be_cut(load: Load) -> None:
    backend = load(n_ctx=256, kv_pool_tokens=256)
    go_on(backend, 0, PROMPT, 0)
    state = backend.save(0)
    afresh = go_on(backend, 0, [5])
    backend.release(0)
    for slot in range(6):  # 40 cells each, of 256
        go_on(backend, slot, [11] * 40, 0)
    for slot in (0, 2, 4):
        backend.release(slot)

    backend.restore(0, state)
    backend.trim(0, 30)
    assert go_on(backend, 0, [*PROMPT[30:], 5]) == afresh


def test_without_room_or_of_another_context_there_are_no_cells(load: Load) -> None:
    backend, other = load(n_ctx=256, kv_pool_tokens=256), load(n_ctx=256, cache_type_k="f16")
    go_on(backend, 0, PROMPT, 0)
    state = backend.save(0)
    go_on(backend, 1, [11] * (250 - len(PROMPT)), 0)
    with pytest.raises(RestoreFailed):
        backend.restore(2, state)
    with pytest.raises(RestoreFailed):
        other.restore(2, state)
    assert backend.cells(2) == other.cells(2) == 0


def test_cells_behind_a_window_stay_for_those_who_share_or_cut(load: Load) -> None:
    """llama.cpp would take them for others, from the start of the cache on, once there are free ones there."""
    backend = load("gemma3", n_ctx=256, kv_pool_tokens=256)
    go_on(backend, 1, [11] * 40, 0)
    go_on(backend, 0, PROMPT, 0)
    afresh = go_on(backend, 2, [*PROMPT[:20], 5])
    backend.release(1)
    backend.release(2)
    for _ in range(2):
        go_on(backend, 1, [11] * 150, 0)
        backend.release(1)

    assert backend.cells(0) == len(PROMPT)
    backend.copy(0, 3, 20)
    assert go_on(backend, 3, [5]) == afresh
    backend.trim(0, 20)
    assert go_on(backend, 0, [5]) == afresh


def test_all_cells_behind_a_window_are_saved(load: Load) -> None:
    backend = load("gemma3", n_ctx=256)
    afresh = go_on(backend, 0, [*PROMPT[:20], 5])
    go_on(backend, 1, PROMPT, 0)
    backend.restore(2, backend.save(1))
    backend.trim(2, 20)
    assert go_on(backend, 2, [5]) == afresh
