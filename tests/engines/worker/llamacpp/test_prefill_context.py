"""The prefill context on the real llama.cpp, on a tiny model in f32: what is read there is what a step would have computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kolosal.engines.parameters import FlashAttention
from kolosal.engines.worker.backend import PrefillFailed
from kolosal.engines.worker.llamacpp import prefill_context
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.engines.worker.schedule.plan import Chunk
from tests.engines.worker.helpers import InProcessWorker, ask, engine_config
from tests.engines.worker.llamacpp.test_backend import PRECISE, prompt, request, tokens_alone
from tests.tiny_gguf import N_LAYERS, write_tiny_gguf


class Reader(LlamaCppBackend):
    """Counts what it reads in its prefill context, and how often it stops there."""

    def __init__(self, path: Path, **parameters: Any) -> None:
        self.n_read = self.n_stops = 0
        self.interrupt: Callable[[], None] = lambda: None
        super().__init__(engine_config(str(path), **PRECISE | parameters), lambda _: None)

    def prefill(self, chunk: Chunk, between_layers: Callable[[], bool]) -> bool:
        def between() -> bool:
            self.n_stops += 1
            self.interrupt()
            return between_layers()

        computed = super().prefill(chunk, between)
        self.n_read += computed * len(chunk.tokens)
        return computed


Load = Callable[..., Reader]


@pytest.fixture
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Load]:
    """Of plain attention, where a test does not ask for another architecture."""
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, getattr(request, "param", "llama"))
    loaded: list[Reader] = []

    def load_one(**parameters: Any) -> Reader:
        loaded.append(Reader(path, **parameters))
        return loaded[-1]

    yield load_one
    for backend in loaded:
        backend.close()


def beside_streams(backend: Reader) -> tuple[InProcessWorker, list[int]]:
    """Two streams, and a step due after every layer."""
    worker = InProcessWorker(
        backend,
        target_step_s=0,
        after_step=lambda: worker.loop._cache.check_integrity(backend.cells),
    )
    streams = [worker.submit(request(length, max_tokens=150)) for length in (20, 30)]
    worker.step()
    worker.step()
    return worker, streams


@pytest.mark.parametrize(
    ("load", "flash_attn"),
    [("llama", FlashAttention.OFF), ("llama", FlashAttention.ON), ("gemma3", FlashAttention.OFF)],
    indirect=["load"],
)
def test_answers_are_those_given_alone(load: Load, flash_attn: FlashAttention) -> None:
    backend = load(flash_attn=flash_attn)
    worker, streams = beside_streams(backend)
    long = worker.submit(request(700))
    worker.run()
    worker.check_idle()

    usage = worker.answers[long].usage
    assert usage is not None
    assert (
        backend.n_read == usage.prompt_tokens - 2
    )  # the first token is the streams' too, the last is a step's
    assert backend.n_stops > N_LAYERS
    for request_id, one in zip(
        [*streams, long], [request(20, 150), request(30, 150), request(700)], strict=True
    ):
        assert worker.answers[request_id].tokens == tokens_alone(backend, one)


@pytest.mark.parametrize("load", ["llama", "gemma3"], indirect=True)
def test_a_second_turn_is_read_behind_the_cells_of_the_first(load: Load) -> None:
    backend = load()
    worker, _ = beside_streams(backend)
    worker.submit(request(300, max_tokens=1))
    while worker.answers[3].finish_reason is None:
        worker.step()
    backend.n_read = 0
    turn = ask(prompt(300) + prompt(400), max_tokens=20, ignore_eos=True)
    second = worker.submit(turn)
    worker.run()
    usage = worker.answers[second].usage

    assert usage is not None
    assert usage.cached_tokens >= 300
    assert backend.n_read == usage.prompt_tokens - usage.cached_tokens - 1
    assert worker.answers[second].tokens == tokens_alone(backend, turn)


def test_what_is_given_up_between_layers_leaves_nothing(load: Load) -> None:
    backend = load()
    worker, _ = beside_streams(backend)
    given_up = worker.submit(request(700))
    worker.abort(given_up)
    worker.step()
    again = worker.submit(request(700))
    worker.run()
    worker.check_idle()

    assert worker.answers[again].tokens == tokens_alone(backend, request(700))


def test_without_memory_for_it_prompts_are_read_in_steps(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill_context, "HOST_RESERVE_BYTES", 1 << 60)
    backend = load()
    worker, _ = beside_streams(backend)
    long = worker.submit(request(700))
    worker.run()

    assert backend.n_read == 0
    assert worker.answers[long].tokens == tokens_alone(backend, request(700))
    with pytest.raises(PrefillFailed, match="no memory for a prefill context"):
        backend._prefill_context._reserve(100)


@pytest.mark.parametrize(
    "parameters", [{"n_parallel": 1}, {"n_parallel": 256, "n_ctx": 1024}, {"n_ctx": 200}]
)
def test_engines_without_use_for_it_have_none(load: Load, parameters: dict[str, int]) -> None:
    assert load(**parameters).prefill_cells == 0


@pytest.mark.parametrize("kind", ["gemma3", "mamba"])
def test_memory_that_cannot_be_cut_has_none(tmp_path: Path, kind: Any) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf", kind)
    backend = Reader(tmp_path / "tiny.gguf", swa_full=False)
    backend.close()

    assert backend.prefill_cells == 0


def test_what_fails_between_layers_is_raised_past_llama_cpp(load: Load) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    backend = load()
    worker, _ = beside_streams(backend)
    worker.submit(request(700))
    backend.interrupt = fail
    with pytest.raises(ZeroDivisionError):
        worker.step()


def test_a_model_whose_layers_cannot_be_told_apart_is_asked_once(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill_context, "_LAYER_OUTPUT", b"no such name")
    backend = load()
    worker, _ = beside_streams(backend)
    long = [worker.submit(request(length)) for length in (300, 400)]
    worker.run()
    worker.check_idle()

    assert backend.n_read == 0
    assert [worker.answers[each].tokens for each in long] == [
        tokens_alone(backend, request(length)) for length in (300, 400)
    ]
    with pytest.raises(PrefillFailed, match="cannot be told apart"):
        backend.prefill(Chunk(None, 0, 0, [1], 0), lambda: True)  # type: ignore[arg-type]
