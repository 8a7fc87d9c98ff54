"""Fill in the middle: the prompt's layout, and models that can and cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kolosal.engines.worker.backend import FimTokens
from kolosal.engines.worker.infill import infill_tokens
from kolosal.engines.worker.llamacpp.backend import LlamaCppBackend
from kolosal.errors import UnsupportedFeature
from kolosal.sampling import SamplingParams
from kolosal.schema import GenerateRequest, InfillPrompt
from tests.engines.worker.helpers import InProcessWorker, engine_config, fake_backend
from tests.tiny_gguf import FIM_BYTES, fim_token, write_tiny_gguf

BEGIN, PRE, SUF, MID, REP, SEP = range(1000, 1006)
ALL = FimTokens(PRE, SUF, MID, REP, SEP)
FILES = (("a.py", "A"), ("b.py", "B"))


def tokenize(text: str) -> list[int]:
    return list(text.encode())


def laid_out(prompt: InfillPrompt, fim: FimTokens = ALL, room: int = 999) -> str:
    """The prompt's tokens as text, those of its parts as words."""
    names = {BEGIN: "<begin>", PRE: "<pre>", SUF: "<suf>", MID: "<mid>", REP: "<rep>", SEP: "<sep>"}
    tokens = infill_tokens(prompt, fim, [BEGIN], tokenize, room)
    return "".join(names.get(token) or chr(token) for token in tokens)


def test_the_middle_comes_last() -> None:
    assert laid_out(InfillPrompt("x = ", "\n")) == "<begin><pre>x = <suf>\n<mid>"


def test_the_beginning_of_the_middle_is_continued() -> None:
    assert laid_out(InfillPrompt("x = ", "\n", "1 + ")) == "<begin><pre>x = <suf>\n<mid>1 + "


def test_other_files_come_first_with_their_names() -> None:
    assert laid_out(InfillPrompt("x", "y", extra=FILES)) == (
        "<begin><rep>project\n<sep>a.py\nA<sep>b.py\nB<sep>current\n<pre>x<suf>y<mid>"
    )


def test_other_files_are_parted_where_the_model_knows_no_files() -> None:
    text = laid_out(InfillPrompt("x", "y", extra=FILES), FimTokens(PRE, SUF, MID))

    assert text.startswith("<begin>\n\n--- snippet ---\n\nA\n\n--- snippet ---\n\nB<pre>x")


@pytest.mark.parametrize("room", range(12))
def test_of_other_files_the_end_is_kept_as_far_as_there_is_room(room: int) -> None:
    prompt = InfillPrompt("x", "y", extra=(("a", "0123456789"),))
    fim = FimTokens(PRE, SUF, MID)
    alone = laid_out(InfillPrompt("x", "y"))
    kept = max(0, room - 6)

    assert laid_out(prompt, fim, room) == f"<begin>{'0123456789'[10 - kept :] if kept else ''}{alone[7:]}"


@pytest.mark.parametrize("fim", [FimTokens(), FimTokens(PRE, SUF), FimTokens(None, SUF, MID)])
def test_a_model_without_the_tokens_is_told_apart(fim: FimTokens) -> None:
    with pytest.raises(UnsupportedFeature, match="cannot fill in the middle") as caught:
        laid_out(InfillPrompt("x", "y", param="suffix"), fim)
    assert caught.value.param == "suffix"


# --- workers ---


def gap(prefix: str, suffix: str, max_tokens: int = 4) -> GenerateRequest:
    return GenerateRequest(
        InfillPrompt(prefix, suffix, param="suffix"), SamplingParams(temperature=0, max_tokens=max_tokens)
    )


def test_a_gap_is_filled() -> None:
    answer = InProcessWorker(fake_backend()).answer(gap("<say>yes</say>", "!", 9))

    assert answer.text == "yes"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len("<say>yes</say>!") + 4


def test_a_gap_that_is_too_large_is_refused_with_both_numbers() -> None:
    error = InProcessWorker(fake_backend(n_ctx=64)).answer(gap("x" * 60, "y" * 60)).error

    assert error is not None
    assert (error.error, "124 tokens" in error.message) == ("ContextLengthExceeded", True)


@pytest.fixture
def filler(tmp_path: Path) -> Iterator[LlamaCppBackend]:
    """A tiny model that can fill in the middle."""
    path = tmp_path / "filler.gguf"
    write_tiny_gguf(path, fim=tuple(FIM_BYTES))
    backend = LlamaCppBackend(engine_config(str(path), n_ctx=512), lambda _: None)
    yield backend
    backend.close()


def test_the_tokens_of_a_real_model_are_found(filler: LlamaCppBackend) -> None:
    assert filler.fim == FimTokens(*map(fim_token, FIM_BYTES))


def test_a_real_model_gets_the_parts_in_order(filler: LlamaCppBackend) -> None:
    request = replace(gap("ab", "c"), prompt_logprobs=True)
    answer = InProcessWorker(filler).answer(request)
    parts = [fim_token(part) for part in FIM_BYTES]

    prompt = [entry.chosen.token for entry in answer.logprobs if entry.in_prompt]
    a, b, c = (filler.tokenize(text, add_special=False, parse_special=False)[0] for text in "abc")
    assert prompt == [1, parts[0], a, b, parts[1], c, parts[2]]


def test_a_real_model_without_the_tokens_says_so(tiny_gguf: Path) -> None:
    backend = LlamaCppBackend(engine_config(str(tiny_gguf), n_ctx=512), lambda _: None)
    error = InProcessWorker(backend).answer(gap("ab", "c")).error
    backend.close()

    assert error is not None
    assert (error.error, error.param) == ("UnsupportedFeature", "suffix")
