"""A draft model: the same answers in fewer steps, and never in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kolosal.engines.parameters import FlashAttention
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.engines.worker.llamacpp.weights import LoadError
from kolosal.engines.worker.schedule.speculative import PromptLookup
from kolosal.engines.worker.schedule.step_cost import Work
from tests.engines.worker.helpers import InProcessWorker, ask, engine_config
from tests.tiny_gguf import write_tiny_gguf

Load = Callable[..., LlamaCppBackend]


@pytest.fixture
def load(tiny_gguf: Path) -> Iterator[Load]:
    """Loads the tiny model with a draft model: `load(draft_model_path=…)`."""
    loaded: list[LlamaCppBackend] = []

    def load_one(**parameters: Any) -> LlamaCppBackend:
        precise = {"n_ctx": 256, "n_parallel": 2, "n_threads": 1, "flash_attn": FlashAttention.OFF}
        loaded.append(LlamaCppBackend(engine_config(str(tiny_gguf), **precise | parameters), lambda _: None))
        return loaded[-1]

    yield load_one
    for backend in loaded:
        backend.close()


def eager(backend: LlamaCppBackend) -> InProcessWorker:
    """A worker that thinks that larger steps cost nothing, so that it always drafts."""
    worker = InProcessWorker(backend)
    for n_tokens in (1, 2, 4, 8, 16, 32, 64):
        worker.loop._cost.observe(Work(n_tokens), 1.0)
    worker.loop._cost.observe = lambda *_: None  # type: ignore[method-assign]  # it learns nothing else
    return worker


def test_draft_model_changes_no_token_and_saves_steps(load: Load, tiny_gguf: Path) -> None:
    requests = [ask(f"{letter} some text", max_tokens=60, ignore_eos=True) for letter in "abcd"]
    plain = [InProcessWorker(load(speculation=False)).answer(request).tokens for request in requests]
    worker = eager(load(draft_model_path=str(tiny_gguf)))
    for request in requests:
        worker.submit(request)
    steps = 0
    while worker.busy:
        worker.step()
        steps += 1
    assert [answer.tokens for answer in worker.answers.values()] == plain
    assert steps < 80  # two at a time, 240 tokens: 120 steps without drafts


def test_another_draft_model_of_the_same_vocabulary_changes_no_token(load: Load, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    write_tiny_gguf(other, seed=8)
    request = ask("some text", max_tokens=60, ignore_eos=True)
    plain = InProcessWorker(load(speculation=False)).answer(request).tokens
    assert eager(load(draft_model_path=str(other))).answer(request).tokens == plain


def test_draft_without_room_has_no_idea_and_harms_nobody(load: Load, tiny_gguf: Path) -> None:
    backend = load(draft_model_path=str(tiny_gguf))
    source = backend.new_draft()
    assert source is not None
    source.extend([1] * 700)  # more than its context holds
    assert source.draft(4) == []
    assert source.draft(4) == []
    source.close()


def test_sequence_ids_of_the_draft_are_given_back(load: Load, tiny_gguf: Path) -> None:
    worker = eager(load(draft_model_path=str(tiny_gguf), n_parallel=1))
    for _ in range(5):
        assert worker.answer(ask("text", max_tokens=20, ignore_eos=True)).endings == 1
    source = worker.backend.new_draft()
    assert source is not None
    source.extend([1, 2, 3])
    assert len(source.draft(4)) == 4
    source.close()
    source.close()


def test_draft_of_another_vocabulary_or_memory_is_refused(load: Load, tmp_path: Path) -> None:
    other = tmp_path / "gemma.gguf"
    write_tiny_gguf(other, "gemma3")
    with pytest.raises(LoadError, match="cannot be the draft model"):
        load(draft_model_path=str(other))


def test_prompt_lookup_holds_nothing() -> None:
    PromptLookup().close()
