"""Conversations that outlive their cells: what was saved and restored is what would have been computed afresh.

On a tiny model in f32, of each kind of memory, and on the fake backend, whose next token is computed from the cells themselves.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kolosal.engines.parameters import FlashAttention
from kolosal.engines.worker.backend import RestoreFailed
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.sampling import SamplingParams
from kolosal.schema import GenerateRequest, TokensPrompt
from tests.engines.worker.helpers import Answer, InProcessWorker, ask, counting, engine_config, fake_backend
from tests.fake_worker.backend import FakeBackend
from tests.tiny_gguf import write_tiny_gguf

PRECISE: dict[str, Any] = {
    "cache_type_k": "f32",
    "cache_type_v": "f32",
    "flash_attn": FlashAttention.OFF,
    "n_ctx": 512,
    "n_parallel": 2,
    "kv_pool_tokens": 768,
    "n_threads": 1,
}


def turn(tokens: list[int], scope: str = "", **changes: Any) -> GenerateRequest:
    sampling = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    return replace(GenerateRequest(TokensPrompt(tuple(tokens)), sampling, cache_scope=scope), **changes)


def cached(answer: Answer) -> int:
    assert answer.usage is not None
    return answer.usage.cached_tokens


@pytest.mark.parametrize("kind", ["llama", "gemma3", "mamba"])
def test_conversations_of_which_two_fit_are_computed_once(tmp_path: Path, kind: Any) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf", kind)
    backend, other = (
        LlamaCppBackend(engine_config(str(tmp_path / "tiny.gguf"), **PRECISE), lambda _: None)
        for _ in range(2)
    )
    chance = random.Random(3)  # noqa: S311 - a test's prompts, not a secret
    talks = [[chance.randrange(20, 200) for _ in range(300)] for _ in range(4)]
    worker = InProcessWorker(
        backend,
        saved_bytes=1 << 26,
        after_step=lambda: worker.loop._cache.check_integrity(backend.cells),
    )
    afresh = InProcessWorker(other, speculation=False)
    for round_number in range(2):
        chance.shuffle(talks)
        asked = [worker.submit(turn(talk)) for talk in talks]
        worker.run()
        for number, request_id in enumerate(asked):
            answer = worker.answers[request_id]
            assert answer.tokens == afresh.answer(turn(talks[number], use_cache=False)).tokens
            assert cached(answer) >= (len(talks[number]) - 4 if round_number else 0)
            talks[number] += [*answer.tokens, 7, 8, 9]
    worker.check_idle()
    backend.close()
    other.close()


def full_pool(saved_bytes: int, **parameters: Any) -> InProcessWorker:
    """A worker whose first conversation, `5:` behind 300 characters, has had to make room for others."""
    sizes: dict[str, Any] = {"n_ctx": 400, "n_parallel": 1, "kv_pool_tokens": 400}
    worker = InProcessWorker(fake_backend(**sizes | parameters), saved_bytes=saved_bytes)
    for name in ("first", "second"):
        worker.answer(ask(f"{name} {'x' * 300} 5:", max_tokens=10))
    return worker


FIRST = f"first {'x' * 300} 5:6 7 8 9 10"


def test_a_turn_that_comes_back_sees_its_cells_and_goes_on_from_them() -> None:
    answer = full_pool(1 << 20).answer(ask(FIRST, max_tokens=10))
    assert answer.text == counting(5, 20)[10:]
    assert cached(answer) >= 300


def test_what_was_saved_is_cut_to_what_a_prompt_has_of_it() -> None:
    worker = full_pool(1 << 20)
    answer = worker.answer(ask(FIRST[:200] + " 77:", max_tokens=10))
    assert answer.text == counting(77, 10)
    assert cached(answer) == 200 + 1
    assert cached(worker.answer(ask(FIRST, max_tokens=1))) >= 300, "the rest was not lost"


@pytest.mark.parametrize(
    ("saved_bytes", "changes"),
    [(0, {}), (1000, {}), (1 << 20, {"cache_scope": "another key"}), (1 << 20, {"use_cache": False})],
)
def test_nothing_is_found_where_it_is_off_or_too_much_or_of_another_key(
    saved_bytes: int, changes: dict[str, Any]
) -> None:
    worker = full_pool(saved_bytes)
    assert cached(worker.answer(replace(ask(FIRST, max_tokens=1), **changes))) < 256
    assert worker.loop._saved.n_bytes <= saved_bytes


def test_bytes_are_bounded_and_what_was_of_use_stays_longest() -> None:
    worker = full_pool(2 * 12 * 330)  # two conversations
    for name in ("first", "fifth", "first", "sixth", "first", "seventh", "eighth"):
        worker.answer(ask(f"{name} {'x' * 300} 5:", max_tokens=10))
        assert worker.loop._saved.n_bytes <= 2 * 12 * 330
    assert cached(worker.answer(ask(FIRST, max_tokens=1))) >= 300


def test_a_state_that_is_not_taken_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(slot: int, state: memoryview) -> None:
        raise RestoreFailed("scripted")

    worker = full_pool(1 << 20)
    monkeypatch.setattr(worker.backend, "restore", refuse)
    answer = worker.answer(ask(FIRST, max_tokens=10))
    assert answer.text == counting(5, 20)[10:]
    worker.check_idle()


def test_a_preempted_sequence_gets_its_cells_back(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = fake_backend(n_ctx=600, n_parallel=2, kv_pool_tokens=900)
    restored: list[int] = []

    def restore(slot: int, state: memoryview) -> None:
        FakeBackend.restore(backend, slot, state)
        restored.append(backend.cells(slot))

    monkeypatch.setattr(backend, "restore", restore)
    worker = InProcessWorker(backend, saved_bytes=1 << 20)
    asked = [worker.submit(ask(f"{name}{'y' * 400} 5:", max_tokens=150)) for name in "ab"]
    worker.run()
    assert [worker.answers[each].text for each in asked] == [counting(5, 150)] * 2
    assert len(restored) == 1
    assert restored[0] > 405
