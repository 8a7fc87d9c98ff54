"""Shared cells, drafts, grammars and pressure change how an answer is computed, never the answer.

Exact on the fake backend, whose next token is computed from the cells themselves, and on a tiny model in f32.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kolosal.engines.parameters import FlashAttention
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.engines.worker.schedule.step_cost import Work
from kolosal.schema import FinishReason, GenerateRequest, Grammar, GrammarKind
from tests.engines.worker.helpers import (
    InProcessWorker,
    RecordingBackend,
    ask,
    counting,
    engine_config,
    fake_backend,
)
from tests.tiny_gguf import write_tiny_gguf

SYSTEM = ["You count. " * 6, "Please go on from here, " * 3, "x" * 70]


def books_equal(worker: InProcessWorker) -> None:
    worker.loop._cache.check_integrity(worker.backend.cells)


@pytest.mark.fault("M3")
def test_two_thousand_counting_requests_under_pressure_are_all_right() -> None:
    """Sharing, drafts, priorities, aborts, preemption and a backend without room, all at once."""
    chance = random.Random(11)  # noqa: S311 - a test's order, not a secret
    faults = [f"decode@{step}=1" for step in range(50, 40_000, 97)]
    backend = RecordingBackend(*faults, n_ctx=200, n_parallel=6, kv_pool_tokens=500, n_batch=64)
    worker = InProcessWorker(backend, after_step=lambda: books_equal(worker))
    starts: dict[int, int] = {}
    aborted: set[int] = set()
    while len(starts) < 2000 or worker.busy:
        if len(starts) < 2000 and len(worker.loop._scheduler.waiting) < 8:
            start = chance.randrange(10_000)
            request = ask(f"{chance.choice(SYSTEM)}{start}:", max_tokens=chance.randint(1, 40))
            request = replace(request, priority=chance.randint(0, 1), use_cache=chance.random() < 0.9)
            starts[worker.submit(request)] = start
        if chance.random() < 0.05:
            victim = chance.randint(1, len(starts))
            if not worker.answers[victim].ended:
                aborted.add(victim)
            worker.abort(victim)
        worker.step()
    worker.check_idle()
    assert backend.closes == [1] * 2000
    for request_id, answer in worker.answers.items():
        assert answer.endings == 1
        assert answer.text == counting(starts[request_id], len(answer.text))
        assert answer.finish_reason is FinishReason.LENGTH or request_id in aborted


def test_drafts_that_are_accepted_save_steps() -> None:
    text = "around the ragged rock " * 8
    steps, texts = [], []
    for speculation in (False, True):
        backend = fake_backend()
        for n_tokens in (1, 2, 4, 8, 16, 32, 64):  # a machine where more tokens cost no more
            worker = InProcessWorker(backend, speculation=speculation)
            worker.loop._cost.observe(Work(n_tokens), 0.001)
        texts.append(worker.answer(ask(f"<say>{text}</say>", max_tokens=400)).text)
        steps.append(backend.steps)
    assert texts == [text, text]
    assert steps[1] < steps[0] / 2


def test_a_grammar_is_obeyed_beside_free_requests() -> None:
    worker = InProcessWorker(fake_backend(n_parallel=4))
    schema = '{"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": false}'
    free = worker.submit(ask("41:", max_tokens=20))
    grammar = Grammar(GrammarKind.JSON_SCHEMA, schema)
    bound = worker.submit(replace(ask("7:", max_tokens=50), grammar=grammar))
    worker.run()
    assert worker.answers[free].text == counting(41, 20)
    assert worker.answers[bound].text in ('{"n": 1}', '{"n": 2}')
    assert worker.answers[bound].finish_reason is FinishReason.STOP
    assert worker.answers[bound].usage is not None


def test_forced_tokens_are_not_sampled_one_by_one() -> None:
    worker = InProcessWorker(backend := fake_backend())
    answer = worker.answer(
        replace(ask("7:", max_tokens=90), grammar=Grammar(GrammarKind.REGEX, "[a-c]{60}x{20}"))
    )
    assert answer.text.endswith("x" * 20)
    assert len(answer.tokens) == 80
    assert backend.steps <= 62


def test_an_invalid_grammar_fails_its_own_request_only() -> None:
    worker = InProcessWorker(fake_backend())
    bad = worker.submit(replace(ask("7:"), grammar=Grammar(GrammarKind.REGEX, "(", "regex")))
    good = worker.submit(ask("7:", max_tokens=4))
    worker.run()
    error = worker.answers[bad].error
    assert error is not None
    assert (error.error, error.param) == ("InvalidRequest", "regex")
    assert worker.answers[good].text == "8 9 "


# --- the tiny model, in f32 ---

PRECISE: dict[str, Any] = {
    "cache_type_k": "f32",
    "cache_type_v": "f32",
    "flash_attn": FlashAttention.OFF,
    "n_ctx": 256,
    "n_parallel": 4,
    "n_threads": 1,
}


@pytest.fixture(params=["llama", "gemma3"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LlamaCppBackend]:
    """Plain attention, and sliding windows that keep all cells."""
    path = tmp_path / "tiny.gguf"
    write_tiny_gguf(path, request.param)
    loaded = LlamaCppBackend(engine_config(str(path), **PRECISE, kv_pool_tokens=512), lambda _: None)
    yield loaded
    loaded.close()


def tiny_request(chance: random.Random, *, use_cache: bool = True) -> GenerateRequest:
    prompt = chance.choice(SYSTEM) + "".join(chance.choice("abc ") for _ in range(chance.randint(1, 40)))
    request = ask(prompt, max_tokens=chance.randint(2, 30), ignore_eos=True)
    return replace(request, use_cache=use_cache)


def test_cached_batched_preempted_and_alone_give_the_same_tokens(backend: LlamaCppBackend) -> None:
    chance = random.Random(5)  # noqa: S311 - a test's prompts, not a secret
    requests = [tiny_request(chance) for _ in range(60)]
    together = InProcessWorker(backend, after_step=lambda: books_equal(together))
    for request in requests:
        together.submit(request)
    together.run()
    together.check_idle()
    cached = sum(
        answer.usage.cached_tokens for answer in together.answers.values() if answer.usage is not None
    )
    assert cached > 30 * 50
    for request, answer in zip(requests, together.answers.values(), strict=True):
        alone = InProcessWorker(backend, speculation=False).answer(replace(request, use_cache=False))
        assert answer.tokens == alone.tokens


def test_drafted_and_plain_give_the_same_tokens(backend: LlamaCppBackend) -> None:
    request = ask("abcabcabcabcabcabc", max_tokens=150, ignore_eos=True)
    answers = []
    for speculation in (True, False):
        worker = InProcessWorker(backend, speculation=speculation)
        for n_tokens in (1, 2, 4, 8, 16, 32, 64):
            worker.loop._cost.observe(Work(n_tokens), 0.001)
        answers.append(worker.answer(request).tokens)
    assert answers[0] == answers[1]
