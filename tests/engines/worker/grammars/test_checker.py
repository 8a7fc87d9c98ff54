"""What compiles first: it may end of a grammar, and nothing else does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import psutil
import pytest

from kolosal.engines.worker.constraint import ConstraintCompiler
from kolosal.engines.worker.grammars.checker import GrammarChecker, GrammarRefused
from kolosal.engines.worker.grammars.llguidance_text import GrammarPart, GrammarTask
from kolosal.engines.worker.sandbox.limits import ProcessLimits
from kolosal.engines.worker.sandbox.process import LimitedProcess, ProcessFailed
from kolosal.schema import Grammar, GrammarKind
from tests.engines.worker.grammars.hostile_grammars import (
    DEEP,
    FAILING,
    SLOW,
    alternatives,
    optional_properties,
    schema,
)
from tests.engines.worker.helpers import fake_backend

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="processor time is limited on POSIX only")


@pytest.fixture
def checker() -> Iterator[GrammarChecker]:
    compiler = ConstraintCompiler(fake_backend().constraint_tokenizer)
    with contextlib.closing(GrammarChecker(compiler.vocabulary)) as checker:
        yield checker


def task(grammar: Grammar) -> GrammarTask:
    return GrammarTask([GrammarPart("", str(grammar.kind), grammar.source)], None, {})


def check(checker: GrammarChecker, grammar: Grammar) -> str:
    return checker.check(task(grammar), True)


@pytest.mark.fault("R1")
@pytest.mark.parametrize("name", DEEP)
def test_grammar_that_is_too_deep_is_refused(checker: GrammarChecker, name: str) -> None:
    with pytest.raises(GrammarRefused, match=r"process that compiles grammars ended.*nested too deeply"):
        check(checker, DEEP[name])

    assert check(checker, Grammar(GrammarKind.REGEX, "ab"))


@posix_only
@pytest.mark.fault("R1")
@pytest.mark.parametrize("name", SLOW)
def test_grammar_that_takes_too_long_is_refused(checker: GrammarChecker, name: str) -> None:
    with pytest.raises(GrammarRefused, match="it takes more than 1 s of processor time"):
        check(checker, SLOW[name])

    assert check(checker, Grammar(GrammarKind.REGEX, "ab"))


@pytest.mark.parametrize(
    "grammar",
    [
        schema(optional_properties(2000)),
        schema({"enum": [f"value {index}" for index in range(5000)]}),
        Grammar(GrammarKind.LARK, 'start: "a" <|tool|>'),
        alternatives(5000),
        FAILING["regex-rep"],
        FAILING["lark-rep"],
    ],
    ids=["properties", "enum", "control-token", "alternatives", "regex-rep", "lark-rep"],
)
def test_grammar_that_can_be_compiled_is_handed_back(checker: GrammarChecker, grammar: Grammar) -> None:
    assert check(checker, grammar)


def test_processor_time_is_that_of_one_request_until_it_is_renewed(checker: GrammarChecker) -> None:
    grammar = task(schema(optional_properties(1500)))

    def until_refused() -> None:
        while True:
            checker.check(grammar, False)

    checker.check(grammar, True)
    if sys.platform != "win32":
        with pytest.raises(GrammarRefused, match="processor time"):
            until_refused()
    assert checker.check(grammar, True)


def test_process_that_is_asked_nothing_ends() -> None:
    script = "import sys; print('[]', flush=True); sys.stdin.readline(); print('[{}]', flush=True); sys.stdin.read()"
    limits = ProcessLimits(1.0, 1 << 30, 1 << 20)
    command = [sys.executable, "-c", script]
    before = set(psutil.Process().children())
    process = LimitedProcess(command, limits, "waits", max_wall_s=2.4, max_idle_s=0.3)
    [child] = set(psutil.Process().children()) - before
    with contextlib.suppress(ProcessFailed, OSError):  # where it was late, or idle, before
        process.ask({}, 1)
    child.wait(30)

    assert not process.is_running
    process.end()
